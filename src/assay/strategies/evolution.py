"""Regularised (aging) evolution."""

from __future__ import annotations

from collections import deque
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
    `Space.mutate`; children of one batch have the same population; parents are drawn as soon as
    `sample` trials are scored, so that a small budget is not spent on random ones; and while
    nothing is within the limits, the least of the violations wins in place of the best score.

    Args:
        population: The youngest scored trials among which parents are drawn.
        sample: How many are drawn; the best of them by the first objective is the parent.
    Raises:
        InvalidSetting: fewer than two, or a sample larger than the population.
    """

    population: int = 50
    sample: int = 10
    _history: History | None = field(default=None, init=False, repr=False, compare=False)
    _read: int = field(default=0, init=False, repr=False, compare=False)
    _alive: deque[Trial] = field(default_factory=deque, init=False, repr=False, compare=False)
    _over: deque[Trial] = field(default_factory=deque, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.sample <= self.population:
            raise InvalidSetting(
                f"evolution with population={self.population}, sample={self.sample}: the sample "
                "must be at least 2 and at most the population"
            )

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n children; random ones while there are too few trials to draw parents from."""
        self._catch_up(history)
        # Under tight limits few are scored: then after a whole population any will do.
        if len(self._alive) < self.sample and self._read < self.population:
            return [Proposal(history.space.sample(rng)) for _ in range(n)]
        pool = list(self._alive or self._over)
        if not pool:  # everything has failed
            return [Proposal(history.space.sample(rng)) for _ in range(n)]
        return [self._child(history, pool, rng) for _ in range(n)]

    def _child(self, history: History, pool: list[Trial], rng: np.random.Generator) -> Proposal:
        drawn = rng.choice(len(pool), size=min(self.sample, len(pool)), replace=False)
        parent = max((pool[int(i)] for i in drawn), key=_fitness)
        return Proposal(history.space.mutate(parent.architecture, rng), parent=parent.number)

    def _catch_up(self, history: History) -> None:
        """Take in what has ended since the last call: the old die, best or not."""
        if history is not self._history:
            self._history, self._read = history, 0
            self._alive, self._over = (deque(maxlen=self.population) for _ in range(2))
        new = history.ended(self._read)
        self._read += len(new)
        for trial in new:
            if trial.state == "scored":
                self._alive.append(trial)
            elif trial.state == "infeasible":
                self._over.append(trial)


def _fitness(trial: Trial) -> tuple[float, int]:
    """Return what the best has most of: the first objective, or closeness; the older wins a tie."""
    value = trial.objectives[0] if trial.state == "scored" else -trial.violation
    return value, -trial.number
