"""Regularised (aging) evolution."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting

__all__ = ["Evolution"]


@dataclass
class Evolution:
    """Mutates the best of a few drawn from the youngest.

    Source: Real, Aggarwal, Huang, Le 2019, "Regularized Evolution for Image Classifier Architecture
    Search", arXiv:1802.01548, algorithm 1; differs: a mutation is any single change of
    `Space.mutate`, children of one batch have the same population, and architectures that were
    seen are asked for no second time by the loop.

    Args:
        population: The youngest scored trials among which parents are drawn.
        sample: How many are drawn; the best of them by the first objective is the parent.
    Raises:
        InvalidSetting: fewer than two, or a sample larger than the population.
    """

    population: int = 50
    sample: int = 10
    _alive: list[Trial] = field(default_factory=list, init=False, repr=False)
    _read: int = field(default=0, init=False, repr=False)
    _first: Trial | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.sample <= self.population:
            raise InvalidSetting(
                f"evolution with population={self.population}, sample={self.sample}: the sample "
                "must be 2 to the population"
            )

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n children; random ones while there are too few scored trials to draw from."""
        alive = self._youngest(history)
        if len(alive) < self.sample:
            return [Proposal(history.space.sample(rng)) for _ in range(n)]
        return [self._child(history, alive, rng) for _ in range(n)]

    def _child(self, history: History, alive: list[Trial], rng: np.random.Generator) -> Proposal:
        drawn = rng.choice(len(alive), size=self.sample, replace=False)
        parent = max((alive[int(i)] for i in drawn), key=lambda t: (t.objectives[0], -t.number))
        return Proposal(history.space.mutate(parent.architecture, rng), parent=parent.number)

    def _youngest(self, history: History) -> list[Trial]:
        """Return the youngest scored trials; reads only what was appended since the last call."""
        first = history[0] if len(history) else None
        if first is not self._first or len(history) < self._read:
            self._alive, self._read, self._first = [], 0, first
        end = self._read
        while end < len(history) and history[end].state != "running":
            end += 1
        new = [t for t in history[self._read : end] if t.state == "scored"]
        self._alive = [*self._alive, *new][-self.population :]
        self._read = end
        return self._alive
