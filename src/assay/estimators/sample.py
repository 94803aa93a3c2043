"""How a number of training steps is spent on a sample: so many trainings, so long each."""

from __future__ import annotations

from typing import Any

from assay.contracts import Context
from assay.errors import InvalidSetting
from assay.estimators.low_fidelity import LowFidelity

__all__ = ["trainings"]

_USUAL = 60
_LEAST_STEPS = 200


def trainings(ctx: Context, of: Any, steps: int, sample: int, *, fewest: int) -> tuple[Any, int]:
    """Return the estimator that trains a sample, and how many trainings the steps pay for.

    Without an estimator of the user's own, `LowFidelity` trains 60 architectures, each as long as
    the steps allow but for 200 steps at least (then fewer of them), and no longer than the recipe
    (then more of them): few trainings, each longer, tell more of the best than many short ones.

    Args:
        ctx: Its recipe says what a whole training is.
        of: An estimator with `steps_each(ctx)`; None for the default.
        steps: Optimiser steps for all trainings together.
        sample: How many the user asked for; 0 for as many as the steps pay for.
        fewest: Trainings below which nothing can be learned from them.
    Raises:
        InvalidSetting: the steps do not pay for `fewest`.
    """
    whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
    if of is None:
        each = max(1, min(whole, max(_LEAST_STEPS, steps // (sample or _USUAL))))
        of = LowFidelity(steps=each)
    else:
        each = of.steps_each(ctx)
    count = sample or steps // each
    if count < fewest:
        raise InvalidSetting(
            f"{steps} training steps pay for {count} trainings of {each} steps each, and {fewest} "
            "is the least that can be learned from; give a larger budget, or use the estimator "
            "'zero-cost'"
        )
    return of, count
