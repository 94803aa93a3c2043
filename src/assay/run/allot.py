"""Turning a budget in seconds into counts, a step at a time.

Each step may spend its share of what is left when it begins. How much one unit of its work takes
is timed first; the count that follows is written to the study, and a resumed run obeys it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from assay.architecture import Architecture
from assay.errors import InvalidSetting
from assay.run.plan import Plan
from assay.train.loop import Trainer
from assay.train.splits import Loaded

__all__ = [
    "SHARES",
    "count_for",
    "finalists_seconds",
    "mean_share",
    "replanned",
    "share_of",
    "timed",
    "together",
]

SHARES: Mapping[str, float] = {"train": 0.3, "search": 0.22, "finalists": 0.88}
"""Share of the seconds left that a step may spend; the rest is for the steps behind it."""

_MOST = 1_000_000
_OVERRUN = 1.25  # of the time of a search, which is timed roughly, until it is ended
_TIMING_SHARE = 0.01  # of the budget, for timing one of the networks
_COMPARED = 2  # networks that are trained beside the finalists and the largest


def share_of(step: str, left_s: float, *, behind_s: float = math.inf) -> float:
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
    share = share_of(step, left_s, behind_s=behind_s)
    count = most if unit_s <= 0 else int(share / unit_s)
    if count < 1:
        more_s = unit_s / SHARES[step] - left_s
        raise InvalidSetting(
            f"the budget is too small for one {unit}: the step {step!r} may spend {share:.3g} s "
            f"and one takes {unit_s:.3g} s here; give at least {more_s:.3g} s more"
        )
    return min(count, most)


def finalists_seconds(plan: Plan, dearest: Architecture) -> float:
    """Return about the most seconds that the finalists can use: all of them the dearest there is.

    Each trains for the whole recipe and no longer. Beside them the space's largest network may be
    trained for comparison, and two others that are no dearer.

    Args:
        plan: With a budget in time.
        dearest: Of what may become a finalist.
    Raises:
        Exception: what training one of the two raised.
    """
    recipe = plan.finalists.recipe or plan.recipe
    steps = (plan.budget.epochs or recipe.epochs) * plan.task.steps_per_epoch(recipe.batch_size)
    trained = [dearest] * (plan.finalists.k * plan.finalists.seeds)
    if plan.finalists.compare:
        trained += [dearest] * _COMPARED + [plan.space.largest()]
    task = plan.task.over(plan.task.train, plan.task.valid)  # no test split leaves this process
    here = isinstance(plan.task.train, Loaded)
    most_s = _TIMING_SHARE * (plan.budget.seconds or 0.0)
    step_s: dict[Architecture, float] = {}
    for point in dict.fromkeys(trained):
        maker = partial(
            Trainer, plan.space.fresh(point, plan.seed), task, recipe, steps=10**9,
            device=plan.train_on, seed=plan.seed,
        )  # fmt: skip
        job = plan.executor.submit(partial(timed, maker, most_s), in_place=here)
        for _ in plan.executor.gather([job]):
            pass
        step_s[point] = job.result()
    at_once = 1 if here else plan.executor.at_once
    times_s = [step_s[point] for point in trained]
    return steps * together(times_s, at_once)


def together(times_s: Sequence[float], at_once: int) -> float:
    """Return the seconds in which networks that take turns all do a step.

    Args:
        times_s: Of each, when so many train at once.
        at_once: How many.
    """
    return max(sum(times_s) / at_once, *times_s)


def replanned(counts: Mapping[str, Any], judged: int, spent_s: float) -> int:
    """Return how many trials a search has in all, from what those before have taken.

    They were planned by what scores of a few random architectures take. Proposing and measuring
    may take as long, and what holds the limits is quicker: a search that is far beyond its time
    ends, and one that comes to its end before goes on.

    Args:
        counts: The plan: `trials`; where it is one of time, `seconds`, and the `most` trials.
        judged: Trials that were judged so far.
        spent_s: What they have taken.
    """
    planned, time_s = int(counts["trials"]), counts.get("seconds")
    if time_s is None or judged == 0:
        return planned
    if judged >= planned:
        fitting = int(judged * time_s / max(spent_s, 1e-9))
        return max(planned, min(int(counts["most"]), fitting))
    return judged if spent_s > _OVERRUN * time_s else planned


def mean_share(rungs: Sequence[tuple[int, float]]) -> float:
    """Return the share of a whole training that a trial of a strategy takes on average.

    Args:
        rungs: How many, and the share of each.
    """
    return sum(num * share for num, share in rungs) / sum(num for num, _ in rungs)


def timed(maker: Callable[[], Trainer], most_s: float) -> float:
    """Return the seconds of a step of a trainer, here or in another process.

    Args:
        maker: Makes the trainer.
        most_s: What timing may take, see there.
    """
    return maker().step_seconds(most_s=most_s)
