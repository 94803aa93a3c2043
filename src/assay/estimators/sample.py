"""How a number of training steps is spent on a sample: so many trainings, so long each."""

from __future__ import annotations

import math
from typing import Any

from assay.contracts import Context
from assay.errors import InvalidSetting
from assay.estimators.low_fidelity import LowFidelity

__all__ = ["trainings"]

_LONGER = 60
_LEAST_STEPS = 100


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
    whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
    if of is None:
        wanted = sample or max(fewest, math.isqrt(steps // _LONGER))
        each = min(whole, max(min(_LEAST_STEPS, whole), steps // wanted))
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
