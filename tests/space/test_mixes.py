"""Options that can be selected but not mixed are refused by the label of their choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from assay.errors import UnsupportedMix
from assay.space.choices import Depth, Held, Inputs, OneOf
from assay.space.space import Space


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


def half() -> Tensor:
    return torch.tensor(0.5)


@pytest.mark.parametrize(
    ("options", "weights", "said"),
    [
        ((Twice, Twice), lambda: (0.5, 0.5), "one is of type tuple"),
        ((Twice, Twice), lambda: (half(), half()), "one is of type tuple"),
        ((Twice, nn.Identity), lambda: (half(),), "one is of type tuple"),
        ((nn.Identity, Halved), lambda: (half(), half()), r"one is \[2, 2\] beside \[2, 4\]"),
        ((nn.Identity, Halved), lambda: (half(), Held(half())), r"\[2, 2\] beside \[2, 4\]"),
    ],
)
def test_a_mix_of_operations_needs_tensors_of_one_shape(
    options: tuple[Callable[[], nn.Module], ...], weights: Callable[[], tuple], said: str
) -> None:
    space = Space(nn.Sequential(nn.Tanh(), OneOf(a=options[0](), b=options[1]())))
    x = torch.ones(2, 4)
    for option in "ab":
        space.select({"1": {option: 1.0}})
        space.model(x)
    space.select({"1": dict(zip("ab", weights()))})
    with pytest.raises(UnsupportedMix, match=rf"^1: what is mixed must be .*{said}; use"):
        space.model(x)


def test_so_does_a_mix_of_depths_and_of_inputs() -> None:
    depth = Depth(nn.Identity(), Halved(), min=1, label="deep")
    depth.mix = {1: 0.5, 2: 0.5}
    with pytest.raises(UnsupportedMix, match=r"^deep: what is mixed"):
        depth(torch.ones(2, 4))
    pick = Inputs(2)
    pick.mix = {(0,): 0.5, (1,): 0.5}
    with pytest.raises(UnsupportedMix, match=r"^Inputs: what is mixed"):
        pick([Twice()(torch.ones(2)), Twice()(torch.ones(2))])
