"""The sample that others learn from: how steps are spent on it, and what came of each training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Cost
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.each import Diverged, Told, each
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.training import Stretch

__all__ = ["Sample", "asked", "num_trainings", "trainings"]

_LONGER = 60
_LEAST_STEPS = 100


class Sample:
    """Architectures in the order in which they were chosen, and what another estimator says.

    Each score is kept as it comes, and what is chosen before it is estimated: whoever is killed in
    the middle goes on with the same architectures.

    Args:
        fewest: Scores below which nothing can be learned from them.
    """

    def __init__(self, fewest: int) -> None:
        self.fewest = fewest
        self.chosen: list[Architecture] = []
        self._scores: dict[Architecture, float] = {}
        self._failed: dict[Architecture, str] = {}

    @property
    def waiting(self) -> list[Architecture]:
        """What is chosen and has neither a score nor a reason for having none."""
        return [a for a in self.chosen if a not in self._scores and a not in self._failed]

    @property
    def scores(self) -> dict[Architecture, float]:
        """Architecture -> score, of those that have one."""
        return {a: self._scores[a] for a in self.chosen if a in self._scores}

    @property
    def diverged(self) -> list[Architecture]:
        """Those that have no finite score."""
        return [a for a in self.chosen if a in self._failed]

    def learn(self, ctx: Context, of: Any, steps_each: int) -> Iterator[Stretch]:
        """Have what waits estimated; yields as the scores come.

        Args:
            ctx: What the estimator may use.
            of: The estimator.
            steps_each: Optimiser steps of one estimate; 0 of one that does not train.
        Raises:
            Exception: any error of an estimate but `NotFinite`, which is kept.
        """
        waiting, started = self.waiting, time.perf_counter()
        for told in each(of, ctx, [Proposal(a) for a in waiting]):
            spent = Cost(device=ctx.device)
            for index, said in told.items():
                known = _finite(said)
                spent += known.cost
                if isinstance(known, Diverged):
                    self._failed[waiting[index]] = str(known)
                else:
                    self._scores[waiting[index]] = known.score
            yield Stretch(
                time.perf_counter() - started, spent.samples, spent.macs, ctx.device,
                len(told) * steps_each,
            )  # fmt: skip
            started = time.perf_counter()

    def check(self) -> None:
        """Refuse to learn from what is left of a sample of which too many diverged.

        Raises:
            NotFinite: some diverged, and fewer than `fewest` are left.
        """
        known = len(self._scores)
        if self._failed and known < self.fewest:
            raise NotFinite(
                f"{len(self._failed)} of {known + len(self._failed)} architectures of the sample "
                f"have no finite score, and {self.fewest} scores are the least that can be learned "
                f"from; the first: {self._failed[self.diverged[0]]}"
            )

    def state(self) -> list[list[Any]]:
        """Return [architecture, score or None, why it has none or ""] of each, as JSON values."""
        return [[a.to_json(), self._scores.get(a), self._failed.get(a, "")] for a in self.chosen]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Take up what `state` returned."""
        rows = [(Architecture.from_json(text), score, why) for text, score, why in state]
        self.chosen = [a for a, _, _ in rows]
        self._scores = {a: float(score) for a, score, _ in rows if score is not None}
        self._failed = {a: why for a, _, why in rows if why}


def trainings(ctx: Context, of: Any, steps: int, sample: int, *, fewest: int) -> tuple[Any, int]:
    """Return the estimator that trains a sample, and how many trainings the steps pay for.

    Without an estimator of the user's own, `LowFidelity` trains n architectures for 60 n steps
    each: of more steps both get their share, since short trainings rank what learns fast, and few
    trainings say little of the others. None is longer than the recipe; then there are more.

    Args:
        ctx: Its recipe says what a whole training is.
        of: An estimator with `steps_each(ctx)`; None for the default.
        steps: Optimiser steps for all trainings together.
        sample: How many the user asked for; 0 for as many as the steps pay for.
        fewest: Trainings below which nothing can be learned from them.
    Raises:
        InvalidSetting: the steps do not pay for `fewest`.
    """
    of, each, count = _spent(ctx, of, steps, sample, fewest)
    if count < fewest:
        raise InvalidSetting(
            f"{steps} training steps pay for {count} trainings of {each} steps each, and {fewest} "
            "is the least that can be learned from; give a larger budget, or use the estimator "
            "'zero-cost'"
        )
    return of, count


def num_trainings(ctx: Context, of: Any, steps: int, sample: int, *, fewest: int) -> int:
    """Return how many trainings `trainings` would have, where the steps pay for `fewest`."""
    return max(fewest, _spent(ctx, of, steps, sample, fewest)[2])


def _spent(ctx: Context, of: Any, steps: int, sample: int, fewest: int) -> tuple[Any, int, int]:
    """Return what trains the sample, the steps of each training, and how many there are."""
    if of is None:
        whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
        wanted = sample or max(fewest, math.isqrt(steps // _LONGER))
        each = min(whole, max(min(_LEAST_STEPS, whole), steps // wanted))
        of = LowFidelity(steps=each)
    else:
        each = of.steps_each(ctx)
    return of, each, sample or steps // each


def asked(ctx: Context, of: Any, points: Sequence[Architecture]) -> list[Estimate | Diverged]:
    """Return an estimate of each architecture, and for one that diverged the error that says so.

    Raises:
        Exception: any error of an estimate but `NotFinite`.
    """
    told: dict[int, Told] = {}
    for some in each(of, ctx, [Proposal(a) for a in points]):
        told |= some
    return [_finite(told[i]) for i in range(len(points))]


def _finite(said: Told) -> Estimate | Diverged:
    """Return an estimate or that there is none; raise what is an error of another kind."""
    if isinstance(said, Estimate | Diverged):
        return said
    if isinstance(said, NotFinite):
        return Diverged(str(said), Cost())
    raise said
