from __future__ import annotations

import torch

from assay.cost import derive
from assay.hardware.calls import PathCalls
from assay.hardware.coverage import distinct, meet_all_units
from assay.space.space import Space
from assay.testing import tiny_space
from assay.zoo.mobile import Stage, mobile
from tests.hardware.models import Looped


def all_units(space: Space, example: torch.Tensor) -> set[str]:
    calls = PathCalls(space, example)
    for point in space.all():
        calls.of(point)
    return set(calls.modules)


def met(space: Space, example: torch.Tensor) -> set[str]:
    calls = PathCalls(space, example)
    meet_all_units(space, calls)
    return set(calls.modules)


def test_every_unit_of_a_space_is_met():
    space, example = tiny_space(), torch.zeros(1, 6)
    assert met(space, example) == all_units(space, example)


def test_units_that_hang_on_three_decisions_are_met():
    stages = (Stage((2, 3, 4), (1, 2)), Stage((2, 3, 4), (1, 1)))
    space = mobile(input_shape=(1, 4, 4), stages=stages, stem=4, head=4, kernels=(1, 3))
    example = torch.zeros(1, 1, 4, 4)
    assert met(space, example) == all_units(space, example)


def test_units_of_an_ordinary_loop_are_met():
    space, example = Space(lambda: Looped(2)), torch.zeros(1, 3, 8, 8)
    assert met(space, example) == all_units(space, example)


def test_networks_drawn_are_canonical_distinct_and_not_the_excluded():
    space = tiny_space()
    first = distinct(space, 20, derive(0, "a"))
    second = distinct(space, 20, derive(0, "b"), over="decisions", exclude=set(first))
    assert len({*first, *second}) == 40
    assert all(space.canonical(a) == a for a in (*first, *second))
    assert first == distinct(space, 20, derive(0, "a"))


def test_a_small_space_gives_what_it_has():
    space = Space(lambda: Looped(1))
    assert len(distinct(space, 100, derive(0, "all"))) == len({*map(space.canonical, space.all())})
