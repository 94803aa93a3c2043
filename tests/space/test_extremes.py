from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from tests.space.spaces import Drawn, macs_of, models


def hidden(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4))


def inner(first: nn.Module, then: nn.Module) -> nn.Module:
    return nn.Sequential(OneOf(s=first, h=then))


def in_two_levels() -> nn.Module:
    deep = OneOf(c=inner(nn.Identity(), inner(nn.Identity(), hidden(64))), d=hidden(2))
    return nn.Sequential(nn.Linear(4, 4), OneOf(a=hidden(8), b=nn.Sequential(nn.ReLU(), deep)))


def behind_a_depth() -> nn.Module:
    blocks = [
        nn.Linear(4, 4),
        inner(hidden(9), nn.Identity()),
        inner(nn.Tanh(), hidden(Width(3, 5))),
    ]
    return nn.Sequential(OneOf(a=hidden(20), b=Depth(*blocks, min=1)), nn.Linear(4, 4))


class Reads(nn.Module):
    """An open reading of an open node, in an option."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = Inputs(2)
        self.paths = nn.ModuleList([inner(nn.ReLU(), hidden(3)), inner(nn.Tanh(), hidden(30))])

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.pick([path(x) for path in self.paths]))


NESTED = {
    "largest": lambda: nn.Sequential(
        nn.Linear(4, 4), OneOf(a=nn.Linear(4, 4), b=inner(nn.Identity(), hidden(64)))
    ),
    "smallest": lambda: nn.Sequential(
        nn.Linear(4, 4), OneOf(a=nn.Linear(4, 4), b=inner(hidden(64), nn.Identity()))
    ),
    "two levels": in_two_levels,
    "behind a depth": behind_a_depth,
    "reads": lambda: nn.Sequential(OneOf(a=hidden(9), b=Reads()), nn.Linear(4, 4)),
}


def are_those_of_enumeration(space: Space, example: Tensor) -> None:
    def macs(point: Architecture) -> int:
        return macs_of(space.build(point), example)

    every = [macs(point) for point in space.all()]
    assert macs(space.largest(example)) == max(every)
    assert macs(space.smallest(example)) == min(every)


@pytest.mark.parametrize("name", NESTED)
def test_nested_extremes_are_those_of_enumeration(name: str) -> None:
    space = Space(NESTED[name])
    are_those_of_enumeration(space, torch.zeros(1, 4))
    assert space.largest() == space.largest(torch.zeros(1, 4))


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(models())
def test_drawn_extremes_are_those_of_enumeration(model: Drawn) -> None:
    space = Space(model)
    assume(space.size <= 40)
    are_those_of_enumeration(space, torch.zeros(1, *model.shape))


def test_no_architecture_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(NESTED["two levels"])
    built: list[Architecture] = []
    build = Space.build
    monkeypatch.setattr(Space, "build", lambda s, a: (built.append(a), build(s, a))[1])
    space.largest()
    assert len(built) == len(set(built)) <= space.size
