"""NSGA-II: a population that spreads along the Pareto front, limits first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting
from assay.pareto import crowding_distance, non_dominated_sort

__all__ = ["NSGA2"]


@dataclass
class NSGA2:
    """Constraint-dominated, elitist, by non-dominated rank and crowding.

    Source: Deb, Pratap, Agarwal, Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
    Algorithm: NSGA-II", IEEE TEC 6(2); differs: each `population` new trials make a generation,
    infeasible ones are members that were never estimated, and crossover and mutation are those of
    the space.

    Args:
        population: Members that survive a generation.
        crossover: Chance that a child has two parents.
        mutation: Chance that a child of two parents is mutated; one of a single parent always is.
    Raises:
        InvalidSetting: a population below 4 or a chance outside 0 to 1.
    """

    population: int = 50
    crossover: float = 0.9
    mutation: float = 0.5
    _members: list[Trial] = field(default_factory=list, init=False, repr=False)
    _read: int = field(default=0, init=False, repr=False)
    _first: Trial | None = field(default=None, init=False, repr=False)
    _order: list[tuple[int, float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.population < 4:
            raise InvalidSetting(f"nsga2 with population={self.population} needs at least 4")
        for name in ("crossover", "mutation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidSetting(f"nsga2 with {name}={getattr(self, name)} must be 0 to 1")

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n children of the last whole generation's survivors; random ones before."""
        self._survive(history)
        if not self._members:
            return [Proposal(history.space.sample(rng)) for _ in range(n)]
        return [self._child(history, rng) for _ in range(n)]

    def _child(self, history: History, rng: np.random.Generator) -> Proposal:
        space, mother = history.space, self._tournament(rng)
        if rng.random() >= self.crossover:
            return Proposal(space.mutate(mother.architecture, rng), parent=mother.number)
        father = self._tournament(rng)
        child = space.cross(mother.architecture, father.architecture, rng)
        if rng.random() < self.mutation:
            child = space.mutate(child, rng)
        return Proposal(child, parent=mother.number)

    def _tournament(self, rng: np.random.Generator) -> Trial:
        """Draw two members; the lower front wins, in one front the less crowded."""
        i, j = (int(k) for k in rng.integers(len(self._members), size=2))
        return self._members[min(i, j, key=lambda k: self._order[k])]

    def _survive(self, history: History) -> None:
        """Take in every whole generation that was appended since the last call."""
        first = history[0] if len(history) else None
        if first is not self._first or len(history) < self._read:
            self._members, self._read, self._first, self._order = [], 0, first, []
        while self._read + self.population <= len(history):
            new = history[self._read : self._read + self.population]
            if any(t.state == "running" for t in new):
                return
            candidates = [t for t in [*self._members, *new] if t.state in ("scored", "infeasible")]
            self._members, self._order = _select(candidates, self.population)
            self._read += self.population


def _select(candidates: Sequence[Trial], count: int) -> tuple[list[Trial], list[tuple[int, float]]]:
    """Return the best by front and crowding, with (front, -crowding) of each."""
    width = max((len(t.objectives) for t in candidates), default=0)
    values = [t.objectives or (0.0,) * width for t in candidates]
    members: list[Trial] = []
    order: list[tuple[int, float]] = []
    for rank, indices in enumerate(non_dominated_sort(values, [t.violation for t in candidates])):
        distances = crowding_distance([values[i] for i in indices])
        spread = sorted(zip(indices, distances), key=lambda pair: (-pair[1], pair[0]))
        for index, distance in spread[: count - len(members)]:
            members.append(candidates[index])
            order.append((rank, -distance))
        if len(members) == count:
            break
    return members, order
