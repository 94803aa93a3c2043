"""Turning a budget in seconds into counts, a step at a time.

Each step may spend its share of what is left when it begins. How much one unit of its work takes
is timed first; the count that follows is written to the study, and a resumed run obeys it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from assay.errors import InvalidSetting
from assay.run.plan import Plan
from assay.train.loop import Trainer
from assay.train.splits import Loaded

__all__ = ["SHARES", "count_for", "finalists_seconds", "share_of", "timed"]

SHARES: Mapping[str, float] = {"train": 0.38, "search": 0.28, "finalists": 0.88}
"""Share of the seconds left that a step may spend; the rest is for the steps behind it."""

_MOST = 1_000_000
_TIMING_SHARE = 0.01  # of the budget, for timing the largest network
_COMPARED = 3  # networks that are trained beside the finalists


def share_of(step: str, left_s: float, behind_s: float = math.inf) -> float:
    """Return the seconds that a step may spend of those left.

    Args:
        step: A key of `SHARES`.
        left_s: Seconds left of the budget.
        behind_s: The most that the finalists can use; what is more than enough for these, the step
            before them may spend too.
    """
    left_s = max(0.0, left_s)
    return max(left_s * SHARES[step], left_s - behind_s / SHARES["finalists"])


def count_for(
    step: str,
    unit: str,
    left_s: float,
    unit_s: float,
    *,
    most: int = _MOST,
    behind_s: float = math.inf,
) -> int:
    """Return how many units of work a step may do.

    Args:
        step: A key of `SHARES`.
        unit: What one unit is called in the message.
        left_s: Seconds left of the budget.
        unit_s: Seconds of one unit, timed.
        most: Upper bound.
        behind_s: See `share_of`.
    Raises:
        InvalidSetting: not even one unit fits.
    """
    share = share_of(step, left_s, behind_s)
    count = most if unit_s <= 0 else int(share / unit_s)
    if count < 1:
        more_s = unit_s / SHARES[step] - left_s
        raise InvalidSetting(
            f"the budget is too small for one {unit}: the step {step!r} may spend {share:.3g} s "
            f"and one takes {unit_s:.3g} s here; give at least {more_s:.3g} s more"
        )
    return min(count, most)


def finalists_seconds(plan: Plan) -> float:
    """Return the most seconds that the finalists can use: all of them the largest network.

    Each trains for the whole recipe and no longer.

    Args:
        plan: With a budget in time.
    Raises:
        Exception: what training the largest network raised.
    """
    recipe = plan.finalists.recipe or plan.recipe
    steps = (plan.budget.epochs or recipe.epochs) * plan.task.steps_per_epoch(recipe.batch_size)
    networks = plan.finalists.k * plan.finalists.seeds + _COMPARED * plan.finalists.compare
    largest = plan.space.fresh(plan.space.largest(), plan.seed)
    task = plan.task.over(plan.task.train, plan.task.valid)  # no test split leaves this process
    maker = partial(
        Trainer, largest, task, recipe, steps=10**9, device=plan.train_on, seed=plan.seed
    )
    most_s = _TIMING_SHARE * (plan.budget.seconds or 0.0)
    here = isinstance(plan.task.train, Loaded)
    job = plan.executor.submit(partial(timed, maker, most_s), in_place=here)
    for _ in plan.executor.gather([job]):
        pass
    at_once = 1 if here else plan.executor.at_once
    return steps * job.result() * max(1.0, networks / at_once)


def timed(maker: Callable[[], Trainer], most_s: float) -> float:
    """Return the seconds of a step of a trainer, here or in another process.

    Args:
        maker: Makes the trainer.
        most_s: What timing may take, see there.
    """
    return maker().step_seconds(most_s=most_s)
