"""Counting and walking the decisions, against every combination of their options."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from assay.architecture import Architecture
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.space.structure import Choice, Lattice, State

HIDDEN = Width(2, 4, label="hidden")


def hidden() -> nn.Module:
    return nn.Sequential(nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, 2))


def activation() -> nn.Module:
    return OneOf(relu=nn.ReLU(), gelu=nn.GELU(), label="act")


PARTS: dict[str, Callable[[], nn.Module]] = {
    "hidden": hidden,
    "act": activation,
    "plain": nn.Tanh,
    "own": lambda: OneOf(a=nn.Tanh(), b=nn.Identity()),
}


def module(plan: Any) -> nn.Module:
    """Make a module of a plan: the name of a part, or a kind, a label and the plans inside."""
    if isinstance(plan, str):
        return PARTS[plan]()
    kind, label, inside = plan
    parts = [module(part) for part in inside]
    if kind == "depth":
        return Depth(*parts, min=0, label=label)
    if kind == "chain":
        return nn.Sequential(*parts)
    return OneOf(a=parts[0], b=nn.Sequential(*parts[1:]), skip=nn.Identity(), label=label)


def plans(level: int = 2) -> st.SearchStrategy[Any]:
    """Return what draws plans; a label is that of one level only, so that none contains itself."""
    if not level:
        return st.sampled_from(sorted(PARTS))
    inside = st.lists(plans(level - 1), min_size=2, max_size=3)
    return plans(level - 1) | st.one_of(
        st.tuples(st.just("depth"), st.none(), inside),
        st.tuples(st.just("chain"), st.none(), inside),
        st.tuples(st.just("oneof"), st.sampled_from([None, f"op{level}"]), inside),
    )


def every_architecture(space: Space) -> list[Architecture]:
    """Return the architectures of all combinations of options, in the order of these."""
    combinations = itertools.product(*[choice.options for choice in space.choices.values()])
    points = [space.complete(dict(zip(space.choices, c)), lambda c: None) for c in combinations]
    return list(dict.fromkeys(points))


def chance(lattice: Lattice, point: Architecture) -> Fraction:
    """Return how often a walk that heeds what lies behind each way ends at an architecture."""
    state: State = ()
    found = Fraction(1)
    for i, choice in enumerate(lattice.choices):
        ways = {option: (after, n) for option, after, n in lattice.ways(i, state)}
        behind = sum(n for _, n in ways.values())
        state, n = ways[point.get(choice.label)]
        found *= Fraction(n, behind)
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(plans(), min_size=2, max_size=4))
def test_counts_and_walks_are_those_of_all_combinations(plan: list[Any]) -> None:
    space = Space(nn.Sequential(OneOf(a=nn.Tanh(), b=nn.ReLU()), *map(module, plan)))
    assume(math.prod(len(choice.options) for choice in space.choices.values()) <= 600)
    points = every_architecture(space)
    assert list(space.all()) == points
    assert space.size == len(points)
    lattice = Lattice(list(space.choices.values()))
    assert {chance(lattice, point) for point in points} == {Fraction(1, space.size)}


def optional(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes a block that some of several options put a part into."""

    def block() -> nn.Module:
        options = {str(i): nn.Sequential(nn.Tanh(), part()) for i, part in enumerate(parts)}
        return OneOf({**options, "skip": nn.Identity()})

    return block


N = 20


@pytest.mark.parametrize(
    ("block", "size", "widest"),
    [
        (optional(hidden), 2 * (2**N - 1) + 1, 2),
        (optional(activation), 2 * (2**N - 1) + 1, 2),
        (optional(activation, activation, nn.Tanh), 2 * (4**N - 2**N) + 2**N, 2),
        # whether the decision inside a block is active counts too
        (optional(optional(activation)), 2 * (3**N - 2**N) + 2**N, 4),
        # both labels, one of them, or none
        (optional(activation, hidden), 4 * (3**N - 2 * 2**N + 1) + 2 * 2 * (2**N - 1) + 1, 4),
    ],
)
def test_a_decision_that_many_optional_blocks_share_is_taken_or_not(
    block: Callable[[], nn.Module], size: int, widest: int
) -> None:
    space = Space(nn.Sequential(*[block() for _ in range(N)]))
    assert space.size == size
    assert max(len(states) for states in space._lattice.counts) == widest


def test_what_is_met_asks_nothing_more() -> None:
    zero = frozenset[Any]([0])
    choices = [Choice(label, "OneOf", (0, 1), [()]) for label in "xyz"]
    asking = Choice("last", "OneOf", (0, 1), [(("x", zero),), (("y", zero), ("z", zero))])
    lattice = Lattice([*choices, asking])
    assert lattice.size == 5 * 2 + 3
    assert [len(states) for states in lattice.counts] == [1, 2, 3, 2, 1]
