"""Architectures to measure: some that together run every unit of a space, and whole networks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np

from assay.architecture import Architecture
from assay.cost import derive
from assay.hardware.calls import PathCalls
from assay.space.space import Space

__all__ = ["distinct", "meet_all_units"]

_FEWEST_SWEEPS = 16
_MOST_ARCHITECTURES = 20_000


def meet_all_units(space: Space, calls: PathCalls, *, seed: int = 0) -> None:
    """Ask for the units of architectures until no new unit turns up; they end in `calls.modules`.

    Around one drawn architecture after another, each single decision takes each of its options. It
    ends when the later half of all these sweeps met nothing new: a unit that depends on a
    few decisions at once, each of few options, is then missed with a small chance only.

    Args:
        space: The space.
        calls: Asked for the units.
        seed: Names the draws.
    """
    rng = derive(seed, "units")
    asked = sweeps = last_new = 0
    while sweeps < max(_FEWEST_SWEEPS, 2 * last_new) and asked < _MOST_ARCHITECTURES:
        over: Literal["architectures", "decisions"] = "decisions" if sweeps % 2 else "architectures"
        before = len(calls.modules)
        for point in _sweep(space, space.sample(rng, over=over), rng):
            calls.of(point)
            asked += 1
        sweeps += 1
        if len(calls.modules) > before:
            last_new = sweeps


def _sweep(space: Space, base: Architecture, rng: np.random.Generator) -> Iterator[Architecture]:
    """Yield an architecture and those that differ from it in one decision, and what that opens."""
    yield base
    for label in base:
        for option in space.choices[label].options:
            if option != base[label]:
                yield space.complete(
                    {**base, label: option},
                    lambda choice: choice.options[int(rng.integers(len(choice.options)))],
                )


def distinct(
    space: Space,
    n: int,
    rng: np.random.Generator,
    *,
    over: Literal["architectures", "decisions"] = "architectures",
    exclude: Collection[Architecture] = (),
) -> list[Architecture]:
    """Draw canonical architectures that differ from each other; fewer where a space has no more.

    Args:
        space: The space.
        n: How many.
        rng: Draws them.
        over: As in `Space.sample`; "decisions" meets shallow and deep networks alike.
        exclude: Canonical ones that are not wanted.
    """
    found: dict[Architecture, None] = {}
    for _ in range(50 * n):
        point = space.canonical(space.sample(rng, over=over))
        if point not in exclude:
            found[point] = None
        if len(found) == n:
            break
    return list(found)
