"""The sample that others learn from: how steps are spent on it, and what came of each training."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Context, Proposal
from assay.cost import Cost
from assay.errors import AssayError, InvalidSetting, NotFinite, reason
from assay.estimators.each import Diverged, Told, each
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.training import Stretch

__all__ = ["Sample", "asked", "cost_of", "num_trainings", "trainings"]

_LONGER = 60
_LEAST_STEPS = 100
_LEAST_SCORES = 3  # below, what is held out leaves nothing to learn from


class Sample:
    """Architectures in the order in which they were chosen, and what another estimator says.

    Each score is kept as it comes, and what is chosen before it is estimated: whoever is killed in
    the middle goes on with the same architectures. One whose estimate raises has no score, and the
    reason is kept in its place.

    Args:
        fewest: Scores below which too many of the sample have failed.
    """

    def __init__(self, fewest: int) -> None:
        self.fewest = fewest
        self.chosen: list[Architecture] = []
        self._scores: dict[Architecture, float] = {}
        self._failed: dict[Architecture, str] = {}
        self._cause: Exception | None = None

    @property
    def waiting(self) -> list[Architecture]:
        """What is chosen and has neither a score nor a reason for having none."""
        return [a for a in self.chosen if a not in self._scores and a not in self._failed]

    @property
    def scores(self) -> dict[Architecture, float]:
        """Architecture -> score, of those that have one."""
        return {a: self._scores[a] for a in self.chosen if a in self._scores}

    @property
    def failed(self) -> list[Architecture]:
        """Those that diverged, or whose estimate raised: they have a reason, and no score."""
        return [a for a in self.chosen if a in self._failed]

    @property
    def num_ended(self) -> int:
        """How many have a score, or a reason for having none."""
        return len(self._scores) + len(self._failed)

    def learn(self, ctx: Context, of: Any, steps_each: int) -> Iterator[Stretch]:
        """Have what waits estimated; yields as the scores come.

        Args:
            ctx: What the estimator may use.
            of: The estimator.
            steps_each: Optimiser steps of one estimate; 0 of one that does not train.
        Raises:
            AssayError: all have failed so far, and they are `fewest` or more; see `check`.
        """
        waiting, started = self.waiting, time.perf_counter()
        for told in each(of, ctx, [Proposal(a) for a in waiting]):
            spent = Cost(device=ctx.device)
            for index, said in told.items():
                spent += cost_of(said)
                if isinstance(said, Exception):
                    self._failed[waiting[index]] = reason(said)
                    self._cause = self._cause or _unframed(said)
                else:
                    self._scores[waiting[index]] = said.score
            yield Stretch(
                time.perf_counter() - started, spent.samples, spent.macs, ctx.device,
                len(told) * steps_each,
            )  # fmt: skip
            started = time.perf_counter()
        if not self._scores and len(self._failed) >= self.fewest:
            self.check()

    def check(self) -> None:
        """Refuse to learn from what is left of a sample of which too many failed.

        Raises:
            AssayError: some failed, and fewer than `fewest` are left; from the first error. It is
                `NotFinite` where that one is.
            InvalidSetting: none failed, and there are fewer than three.
        """
        known, failed = len(self._scores), len(self._failed)
        if failed and known < self.fewest:
            kind = NotFinite if isinstance(self._cause, NotFinite) else AssayError
            raise kind(
                f"{failed} of {known + failed} architectures of the sample failed, and "
                f"{self.fewest} scores are the least that can be learned from; mend what failed, "
                f"or give a larger sample; the first: {next(iter(self._failed.values()))}"
            ) from self._cause
        if known < _LEAST_SCORES:
            raise InvalidSetting(
                f"the sample has {known} of the {_LEAST_SCORES} scores that are the least that can "
                "be learned from; where the space has no more architectures, use the estimator "
                "'scratch', which trains each"
            )

    def state(self) -> list[list[Any]]:
        """Return [architecture, score or None, why it has none or ""] of each, as JSON values."""
        return [[a.to_json(), self._scores.get(a), self._failed.get(a, "")] for a in self.chosen]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Take up what `state` returned.

        What failed waits again where too few have a score: what made so many fail may be mended.
        """
        rows = [(Architecture.from_json(text), score, why) for text, score, why in state]
        self.chosen = [a for a, _, _ in rows]
        self._scores = {a: float(score) for a, score, _ in rows if score is not None}
        enough = len(self._scores) >= self.fewest
        self._failed = {a: why for a, _, why in rows if why and enough}


def trainings(
    ctx: Context, of: Any, steps: int, sample: int, *, fewest: int, done: int = 0
) -> tuple[Any, int]:
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
        done: Trainings that are behind it.
    Raises:
        InvalidSetting: the steps do not pay for `fewest`, or not for what the user asked for.
    """
    of, each, count = _spent(ctx, of, steps, sample, fewest)
    if count < fewest:
        raise InvalidSetting(
            f"{steps} training steps pay for {count} trainings of {each} steps each, and {fewest} "
            "is the least that can be learned from; give a larger budget, or use the estimator "
            "'zero-cost'"
        )
    num = min(count, ctx.space.size)
    if sample and done < num and num * each > steps:
        raise InvalidSetting(
            f"estimator.sample={sample}: {num} trainings of {each:,} steps take {num * each:,} "
            f"steps, and the budget pays for {steps:,}; give a smaller sample, or a larger budget"
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


def asked(ctx: Context, of: Any, points: Sequence[Architecture]) -> list[Told]:
    """Return an estimate of each architecture, or the error of one that has none."""
    told: dict[int, Told] = {}
    for some in each(of, ctx, [Proposal(a) for a in points]):
        told |= some
    return [told[i] for i in range(len(points))]


def cost_of(said: Told) -> Cost:
    """Return what an estimate cost; an error tells nothing of it, unless it is `Diverged`."""
    return Cost() if isinstance(said, Exception) and not isinstance(said, Diverged) else said.cost


def _unframed(error: Exception) -> Exception:
    """Return an error with its traceback as a note.

    The frames hold the network that was trained: of one that memory was too small for, nothing must
    stay behind while the others train.
    """
    error.add_note("".join(traceback.format_exception(error)))
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
