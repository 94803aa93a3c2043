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


class Rectified(nn.Module):
    """Writes into what it is given: a tensor, or a list of one."""

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        return torch.relu_(x if isinstance(x, Tensor) else x[0])


class First(nn.Module):
    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        return x if isinstance(x, Tensor) else x[0]


@pytest.mark.parametrize("given", [lambda x: x, lambda x: [x]])
@pytest.mark.parametrize(
    "weights",
    [
        lambda: {"write": 0.5, "skip": 0.5},
        lambda: {"skip": half(), "write": half()},
        lambda: {"write": half().requires_grad_(), "skip": Held(half())},
        lambda: {"skip": half().requires_grad_(), "write": Held(half())},
    ],
)
def test_an_option_that_writes_into_its_input_is_not_mixed(
    weights: Callable[[], dict], given: Callable[[Tensor], Tensor | list[Tensor]]
) -> None:
    choice = OneOf(skip=First(), write=Rectified(), label="op")
    choice.mix = weights()
    said = r"^op: the option 'write' writes into its input, .*; use inplace=False in it, or"
    with pytest.raises(UnsupportedMix, match=said):
        choice(given(torch.tensor([-1.0, 2.0])))
    with pytest.raises(UnsupportedMix, match=said):
        choice(x=given(torch.tensor([-1.0, 2.0])))


@pytest.mark.parametrize(
    ("blocks", "mix", "number"),
    [
        ([nn.Tanh, Rectified], {1: half().requires_grad_(), 2: half().requires_grad_()}, 1),
        ([Rectified, nn.Tanh], {0: 0.5, 2: 0.5}, 0),
        ([nn.Identity, Rectified], {0: half(), 2: half()}, 1),
    ],
)
def test_a_block_that_writes_into_what_a_shallower_depth_returns_is_not_mixed(
    blocks: list[type[nn.Module]], mix: dict, number: int
) -> None:
    depth = Depth(*(block() for block in blocks), min=0, label="deep")
    depth.mix = mix
    said = rf"^deep: block {number} writes into its input, .*; use inplace=False in it, or"
    with pytest.raises(UnsupportedMix, match=said):
        depth(torch.tensor([-1.0, 2.0]))


def test_a_block_may_write_into_what_no_other_depth_of_the_mix_returns() -> None:
    depth = Depth(nn.Tanh(), Rectified(), nn.Identity(), min=0)
    depth.mix = {0: 0.5, 3: 0.5}
    assert depth(torch.tensor([-2.0, 0.0])).tolist() == [-1.0, 0.0]
    depth.mix = {2: 1.0}
    assert depth(torch.tensor([-2.0, 0.0])).tolist() == [0.0, 0.0]


def test_alone_it_may_be_selected_and_weighed() -> None:
    choice = OneOf(skip=First(), write=Rectified())
    for weight, expected in ((1.0, [0.0, 2.0]), (half(), [0.0, 1.0])):
        choice.mix = {"write": weight}
        assert choice(torch.tensor([-1.0, 2.0])).tolist() == expected


def test_what_is_mixed_may_run_where_torch_counts_no_writes() -> None:
    choice = OneOf(same=First(), tanh=nn.Tanh())
    choice.mix = {"same": 0.5, "tanh": 0.5}
    with torch.inference_mode():
        assert choice(torch.zeros(2)).tolist() == [0.0, 0.0]
