"""NSGA-II: a population that spreads along the Pareto front, limits first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting
from assay.pareto import crowding_distance, non_dominated_sort

__all__ = ["NSGA2", "Member", "survivors"]


@dataclass(frozen=True)
class Member:
    """A trial that survives, and how it stands among those that do.

    Attributes:
        trial: Scored, or infeasible and never estimated.
        front: 0 for what nothing beats, then 1, ...
        crowding: Distance of its neighbours on the front; more is better.
    """

    trial: Trial
    front: int
    crowding: float


def survivors(candidates: Sequence[Trial], count: int) -> list[Member]:
    """Return the best by constrained domination, then by crowding; the older wins a tie.

    Source: Deb et al. 2002, section III-C.

    Args:
        candidates: Scored and infeasible trials.
        count: How many survive.
    """
    width = max((len(t.objectives) for t in candidates), default=0)
    values = [t.objectives or (0.0,) * width for t in candidates]
    members: list[Member] = []
    for front, indices in enumerate(non_dominated_sort(values, [t.violation for t in candidates])):
        distances = crowding_distance([values[i] for i in indices])
        spread = sorted(zip(indices, distances), key=lambda pair: (-pair[1], pair[0]))
        members += [Member(candidates[i], front, d) for i, d in spread[: count - len(members)]]
        if len(members) == count:
            break
    return members


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
    _history: History | None = field(default=None, init=False, repr=False, compare=False)
    _read: int = field(default=0, init=False, repr=False, compare=False)
    _members: list[Member] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.population < 4:
            raise InvalidSetting(f"nsga2 with population={self.population} needs at least 4")
        for name in ("crossover", "mutation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidSetting(f"nsga2 with {name}={getattr(self, name)} must be 0 to 1")

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n children of the last whole generation's survivors; random ones before."""
        self._catch_up(history)
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
        pair = self._members[i], self._members[j]
        return min(pair, key=lambda m: (m.front, -m.crowding)).trial

    def _catch_up(self, history: History) -> None:
        """Take in every whole generation that has ended since the last call."""
        if history is not self._history:
            self._history, self._read, self._members = history, 0, []
        new = history.ended(self._read)
        while len(new) >= self.population:
            generation, new = new[: self.population], new[self.population :]
            self._read += self.population
            candidates = [*(m.trial for m in self._members), *generation]
            judged = [t for t in candidates if t.state in ("scored", "infeasible")]
            self._members = survivors(judged, self.population)
