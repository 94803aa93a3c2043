"""The sample that others learn from: how steps are spent on it, and what came of each training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Cost
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.low_fidelity import LowFidelity

__all__ = ["Diverged", "asked", "check_enough", "num_trainings", "trainings"]

_LONGER = 60
_LEAST_STEPS = 100


class Diverged(NotFinite):
    """Why an architecture has no finite score, and what finding that out took.

    Args:
        why: As the training or the estimate says it.
        cost: What was spent on it.
    """

    def __init__(self, why: str, cost: Cost) -> None:
        super().__init__(why)
        self.cost = cost


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

    An estimator that raises for a batch is asked again for halves of it, so that one architecture
    takes no other with it; what it had spent on them it does not tell. Any other error than
    `NotFinite` is raised on.
    """
    try:
        told = of.estimate(ctx, [Proposal(a) for a in points])
    except NotFinite as error:
        if len(points) == 1:
            return [Diverged(str(error), Cost())]
        half = len(points) // 2
        return [*asked(ctx, of, points[:half]), *asked(ctx, of, points[half:])]
    return [Diverged(e.failure, e.cost) if e.failure else e for e in told]


def check_enough(known: int, failed: Mapping[Architecture, str], *, fewest: int) -> None:
    """Refuse to learn from what is left of a sample of which too many diverged.

    Args:
        known: Scores that there are.
        failed: Architecture -> why it has none.
        fewest: Scores below which nothing can be learned from them.
    Raises:
        NotFinite: some diverged, and fewer than `fewest` are left.
    """
    if failed and known < fewest:
        raise NotFinite(
            f"{len(failed)} of {known + len(failed)} architectures of the sample have no finite "
            f"score, and {fewest} scores are the least that can be learned from; the first: "
            f"{next(iter(failed.values()))}"
        )
