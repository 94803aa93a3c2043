from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.errors import InvalidSpace
from assay.space.choices import OneOf
from assay.space.sizes import Kernel, Width
from assay.space.space import Space


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        other.weight = one.weight
        self.a, self.b = one, other

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).sum() + self.b(x).sum()


def linear(width: int, fan_in: int = 3) -> nn.Linear:
    return nn.Linear(fan_in, width, bias=False)


def test_layers_that_shrink_one_tensor_differently_are_refused() -> None:
    with pytest.raises(InvalidSpace, match=r"^a\.weight and b\.weight are one tensor"):
        Space(Tied(linear(Width(2, 4)), linear(Width(2, 4))))
    w = Width(2, 4)
    with pytest.raises(InvalidSpace, match=r"^a\.weight and b\.weight"):
        Space(Tied(linear(w, 4), linear(4, w)))


def test_an_open_layer_and_a_plain_one_are_refused() -> None:
    k = Kernel(3, 5)
    with pytest.raises(InvalidSpace, match=r"^a\.weight and b\.weight"):
        Space(Tied(nn.Conv1d(1, 2, k, padding=k // 2), nn.Conv1d(1, 2, 5, padding=2)))


def test_layers_that_shrink_one_tensor_alike_are_served() -> None:
    w = Width(2, 4)
    both = [Width(2, 4, label="w"), Width(2, 4, label="w")]  # equal labels are one decision
    for space in (
        Space(Tied(linear(w), linear(w))),
        Space(Tied(linear(both[0]), linear(both[1]))),
        Space(Tied(linear(2 * w), linear(w * 2))),
    ):
        for point in space.all():
            space.select(point)
            x = torch.randn(2, 3)
            built = space.build(point)
            assert built.a.weight is built.b.weight
            assert torch.equal(space.model(x), built(x))


def test_a_tensor_whose_own_sizes_are_plain_may_be_shared() -> None:
    k = Kernel(3, 5)
    one, other = nn.Conv1d(1, 2, k, padding=k // 2), nn.Conv1d(1, 2, 1)
    other.bias = one.bias
    space = Space(nn.Sequential(one, nn.Conv1d(2, 1, 1), other))
    assert space.build({"0": 3})[0].bias.shape == (2,)


def test_options_of_one_choice_may_share_a_tensor_as_they_like() -> None:
    one, other = linear(Width(2, 4), 4), linear(4, 4)
    other.weight = one.weight
    space = Space(nn.Sequential(OneOf(a=nn.Sequential(one), b=other)))
    shapes = [next(space.build(point).parameters()).shape for point in space.all()]
    assert shapes == [(2, 4), (4, 4), (4, 4)]
