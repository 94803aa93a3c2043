"""What a user should know of how a search went, beside its result."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from assay.contracts import Trial
from assay.handover.export import HandOver
from assay.hardware.table import Validation
from assay.run.plan import Plan

__all__ = [
    "largest_best", "short_supernet", "slow_file", "table_off", "too_few_to_learn", "unclimbed",
    "unlearned",
]  # fmt: skip

_OFF = 1.25  # times: more than what tables are off by on a machine that keeps its speed


def unclimbed(plan: Plan, trials: Sequence[Trial]) -> str:
    """Say where halving trained no architecture whole; "" where it did."""
    rungs = getattr(plan.strategy, "rungs", [])
    if not rungs or any(t.fidelity == 1.0 and t.state == "scored" for t in trials):
        return ""
    return (
        f"no architecture was trained whole: {len(trials)} trials end in a lower rung, where a "
        f"cycle of all has {sum(num for num, _ in rungs)}; give more trials or time, or a smaller "
        "strategy.depth"
    )


def largest_best(plan: Plan, trials: Sequence[Trial]) -> str:
    """Say where nothing speaks against the largest network; by some scores it always wins."""
    scores = {t.architecture: t.estimate.score for t in trials if t.estimate is not None}
    if plan.limits or tuple(plan.objectives) != ("score",) or len(scores) < 2:
        return ""
    if max(scores, key=scores.__getitem__) != plan.space.canonical(plan.space.largest()):
        return ""
    return (
        "the space's largest network scores best, and nothing speaks against it; a limit, such as "
        "latency_ms, makes it a choice"
    )


def too_few_to_learn(plan: Plan, trials: int, batch: float) -> str:
    """Say where a strategy will not learn from so few trials; "" where it will, or may.

    Under limits it learns of trials over them, too, and nobody knows how many these are to be.

    Args:
        plan: Names the strategy.
        trials: There are to be.
        batch: Learned from at once; infinite where nothing is.
    """
    if plan.limits or not trials < batch < math.inf:
        return ""
    return (
        f"{type(plan.strategy).__name__} learns from {batch} trials at a time, and there are to be "
        f"{trials}: it proposes at random; give more trials or time, or have it learn from fewer"
    )


def unlearned(plan: Plan, steps: int) -> str:
    """Say where a supernet trained without its paths learning anything; "" where they did."""
    warming = getattr(getattr(plan.strategy, "paths", None), "warming", None)
    if not steps or not callable(warming) or not warming(steps - 1):
        return ""
    return (
        f"all {steps:,} steps of the supernet were warm-up, so {type(plan.strategy).__name__} has "
        "learned nothing; give more time or steps, or lower strategy.warmup"
    )


def short_supernet(plan: Plan, steps: int) -> str:
    """Say where the time pays for less than a pass of a supernet; "" where it pays for more.

    Of 21 searches by such supernets the winners were no better than random networks, and worse
    than the better one of two (`bench.methods`).
    """
    epoch = plan.task.steps_per_epoch(plan.recipe.batch_size)
    shares = hasattr(plan.estimator, "shares_weights")
    if plan.budget.in_counts or not shares or not 0 < steps < epoch:
        return ""
    other = "give more time"
    if not hasattr(plan.strategy, "paths"):
        other += ", or take the estimator 'low-fidelity', which needs no supernet"
    return (
        f"the supernet trains for {steps:,} steps, less than one pass over the training split "
        f"({epoch:,}): its scores may rank no better than chance; {other}; an audit says which "
        "ranks here"
    )


def table_off(validation: Validation) -> str:
    """Say where whole networks are far from what the table says, in the middle; "" where not."""
    took = statistics.median(measured / told for told, measured, *_ in validation.pairs)
    if 1 / _OFF <= took <= _OFF:
        return ""
    return (
        f"whole networks took {took:.2f} of what the latency table says, in the middle: the "
        "machine changed its speed since the table was measured, or did other work; limits and "
        "objectives of latency are off by as much until finalists are measured whole; leave the "
        "machine to the search, and begin it in a new folder"
    )


def slow_file(limits: Mapping[Any, float], metrics: Mapping[str, float], made: HandOver) -> str:
    """Say where `model.onnx` is over a limit that the measured graph holds; "" where it is not.

    A slow moment, now or when the graph was measured, is no fault of the file.

    Args:
        limits: By quantity.
        metrics: Of the winner.
        made: What was handed over.
    """
    limit, timed = limits.get("latency_ms"), made.onnx_timed
    if limit is None or timed is None:
        return ""
    times = timed.file_ms / timed.measured_ms
    if min(timed.file_ms, times * metrics["latency_ms"]) <= limit:
        return ""
    return (
        f"model.onnx takes {timed.file_ms:.3g} ms, where the graph that was measured takes "
        f"{timed.measured_ms:.3g} ms, and so is over latency_ms <= {limit:.3g}; a limit of "
        f"{limit / times:.3g} leaves room for it"
    )
