"""Intervals over architectures: where the figures of the whole space may be, given a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.trust.correlation import STATISTICS, Pair, Vector, why_undefined
from assay.trust.interval import Interval

__all__ = ["Judged", "draw_weights", "interval", "judge", "leave_one_out", "why_no_interval"]

_TAILS = np.array([0.025, 0.975])
_FEWEST = 5  # architectures: an interval from fewer would be too narrow by far
_DEFINED = 0.9  # share of the resamples that a statistic must be defined on
_BLOCK = 128  # resamples
_SMOOTH = ("tau", "rho", "tau_top")  # the others jump: their jackknife tells nothing


@dataclass(frozen=True)
class Judged:
    """What a sample of truths says of one estimator.

    Attributes:
        num: Architectures judged on.
        figures: Name in `STATISTICS` -> figure with its interval.
        tau: `[B]`: tau on each resample, NaN where undefined; resample b is the same one for all
            estimators judged together. Empty where tau is undefined.
    """

    num: int
    figures: Mapping[str, Interval]
    tau: Vector


def judge(
    truth: Vector, scores: Mapping[str, Vector], *, seed: int = 0, resamples: int = 1000
) -> dict[str, Judged]:
    """Judge estimators by the same truths, on the same resamples: their differences are paired.

    The intervals answer for the choice of architectures, not for the noise of the truths: see
    `assay.trust.ceiling`. A regret's interval is rough, since a resample often lacks the very best.

    Source: Efron 1987, "Better Bootstrap Confidence Intervals", JASA 82(397), sections 2 and 6
    (bias-corrected and accelerated); differs: copies in a resample are no ties, see
    `assay.trust.correlation`; precision and regret have the percentile interval.

    Args:
        truth: `[N]`, finite.
        scores: Estimator -> `[N]`, higher is better, -inf for a failure.
        seed: Of the resamples.
        resamples: How many; 1,000 tell an end to about a tenth of the interval's width.
    Returns:
        Estimator -> figures.
    Raises:
        InvalidSetting: fewer than 100 resamples.
    """
    plan = leave_one_out(draw_weights(len(truth), seed=seed, resamples=resamples))
    return {name: _judge(truth, said, plan) for name, said in scores.items()}


def _judge(truth: Vector, scores: Vector, plan: Vector) -> Judged:
    figures, taus, num = {}, np.empty(0), len(truth)
    pair = Pair.of(truth, scores) if num > 1 else None
    resamples = slice(1, len(plan) - num)
    for name, statistic in STATISTICS.items():
        reason = why_undefined(name, truth, scores)
        if reason or pair is None:
            figures[name] = Interval(reason=reason)
            continue
        values = _in_blocks(statistic, pair, plan if name in _SMOOTH else plan[: resamples.stop])
        left_out = values[resamples.stop :]
        figures[name] = interval(float(values[0]), values[resamples], left_out, num=num)
        taus = values[resamples] if name == "tau" else taus
    return Judged(num, figures, taus)


def _in_blocks(statistic: Callable[[Pair, Vector], Vector], pair: Pair, weights: Vector) -> Vector:
    """Apply a statistic to a few resamples at a time: what stays in the cache is twice as fast."""
    starts = range(0, len(weights), _BLOCK)
    return np.concatenate([statistic(pair, weights[i : i + _BLOCK]) for i in starts])


def draw_weights(num: int, *, seed: int, resamples: int) -> Vector:
    """Draw how often each architecture is in each resample: `[B, N]`, rows that sum to N.

    Args:
        num: Architectures, N.
        seed: Of the draws.
        resamples: How many, B.
    Raises:
        InvalidSetting: fewer than 100 resamples.
    """
    if resamples < 100:
        raise InvalidSetting(f"{resamples} resamples tell no interval; take 100 or more")
    if num == 0:
        return np.zeros((resamples, 0))
    rng = derive(seed, "trust", "resamples")
    return rng.multinomial(num, np.full(num, 1 / num), size=resamples).astype(np.float64)


def leave_one_out(weights: Vector) -> Vector:
    """Put the whole sample before resamples `[B, N]`, and after them N with one left out each."""
    num = weights.shape[1]
    return np.concatenate([np.ones((1, num)), weights, 1.0 - np.eye(num)])


def interval(value: float, resampled: Vector, left_out: Vector, *, num: int) -> Interval:
    """Return a figure with its 95 % interval, bias-corrected and accelerated where that is defined.

    Elsewhere it is the percentile interval. It always holds the value.

    Args:
        value: Of the whole sample.
        resampled: `[B]`: of each resample, NaN where undefined.
        left_out: `[N]`: of the sample without each one; empty for the percentile interval.
        num: Architectures in the sample.
    Returns:
        Without ends where `why_no_interval` has a reason.
    """
    reason = why_no_interval(resampled, num=num)
    if reason:
        return Interval(value, reason=reason)
    told = resampled[~np.isnan(resampled)]
    low, high = np.quantile(told, _levels(value, told, left_out))
    return Interval(value, min(float(low), value), max(float(high), value))


def why_no_interval(resampled: Vector, *, num: int) -> str:
    """Say why resamples tell no interval; "" where they do.

    Args:
        resampled: `[B]`: of each resample, NaN where undefined.
        num: Architectures in the sample.
    """
    told = resampled[~np.isnan(resampled)]
    if num < _FEWEST:
        return f"{num} architectures are too few for an interval"
    if len(told) < _DEFINED * len(resampled):
        return "undefined on more than a tenth of the resamples"
    if np.ptp(told) < 1e-12:
        return "all resamples give the same: the sample hides its doubt"
    return ""


def _levels(value: float, told: Vector, left_out: Vector) -> Vector:
    """Return `[2]`: at which shares of the resamples the interval ends."""
    below = float(((told < value).mean() + (told <= value).mean()) / 2)
    if not len(left_out) or np.isnan(left_out).any() or not 0 < below < 1:
        return _TAILS
    gaps = left_out.mean() - left_out
    spread = float((gaps**2).sum())
    acceleration = float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    bias = ndtri(below)
    shifted = bias + ndtri(_TAILS)
    levels: Vector = ndtr(bias + shifted / (1 - acceleration * shifted))
    return levels
