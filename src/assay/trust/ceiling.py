"""The noise ceiling: how well anything can rank by truths that differ from seed to seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean

import numpy as np

from assay.errors import InvalidSetting
from assay.trust.bootstrap import draw_weights, interval, leave_one_out
from assay.trust.correlation import Vector
from assay.trust.interval import Interval

__all__ = ["Ceiling", "noise_ceiling"]


@dataclass(frozen=True)
class Ceiling:
    """How far truths agree with themselves.

    Attributes:
        num: Architectures with two or more seeds.
        num_seeds: Seeds behind each truth; their harmonic mean where the numbers differ.
        between: Tau between the trainings with one seed and those with another.
        mean: The tau to be expected of one who knows each architecture's true mean, against truths
            that are means over `num_seeds`: what no estimator can be expected to exceed.
    """

    num: int
    num_seeds: float
    between: Interval
    mean: Interval


def noise_ceiling(
    truths: Mapping[str, Sequence[float]], *, seed: int = 0, resamples: int = 1000
) -> Ceiling:
    """Return the ceiling that the noise of training sets.

    A value's place among those of its architecture is its seed. `between` averages over every two
    seeds, one held against the other: by pairs of architectures that have both, concordant less
    discordant, over those not tied. What a seed adds to all architectures alike changes no ranking,
    and so neither figure: it is no noise here.

    `mean` supposes that true means and noise are normal, and all architectures equally noisy. Then
    tau between two seeds is 2/π asin(r), where r is the correlation of two seeds; the mean of s
    seeds has the reliability R = s r / (1 + (s - 1) r), and the true mean ranks with it at
    2/π asin(√R).

    Source: Greiner's relation of tau and r, in Kruskal 1958, "Ordinal Measures of Association",
    JASA 53(284), section 5; Spearman 1910 and Brown 1910, British Journal of Psychology 3 (the
    reliability of a mean).

    Args:
        truths: Architecture -> one value a seed, all in the same order of seeds; those with one
            count in `num_seeds` only.
        seed: Of the resamples over architectures.
        resamples: How many.
    Raises:
        InvalidSetting: fewer than two architectures have two seeds, or too few resamples.
    """
    several = [values for values in truths.values() if len(values) > 1]
    if len(several) < 2:
        raise InvalidSetting(
            f"{len(several)} of {len(truths)} architectures have truths of two seeds or more: the "
            "noise of training cannot be told from fewer than 2; give --seeds 2"
        )
    num_seeds = harmonic_mean([len(values) for values in truths.values()])
    agreeing, untied = _agreement(several)
    plan = leave_one_out(draw_weights(len(several), seed=seed, resamples=resamples))
    over, under = (np.einsum("bn,bn->b", plan @ m, plan) for m in (agreeing, untied))
    taus = np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
    if np.isnan(taus[0]):
        unknown = Interval(reason="all truths are equal")
        return Ceiling(len(several), num_seeds, unknown, unknown)
    resampled, left_out = taus[1 : resamples + 1], taus[resamples + 1 :]
    between = interval(float(taus[0]), resampled, left_out, num=len(several))
    return Ceiling(len(several), num_seeds, between, _of_mean(between, num_seeds))


def _agreement(several: Sequence[Sequence[float]]) -> tuple[Vector, Vector]:
    """Return `[N, N]` twice: how two seeds order each pair, and how often a seed does not tie it.

    The first is the mean of sign × sign over all two different seeds (a, b) that both architectures
    have: the sum over all less a = b.
    """
    num = np.array([len(values) for values in several], np.float64)
    padded = np.full((len(several), int(num.max())), np.nan)  # NaN is neither larger nor smaller
    for row, values in zip(padded, several):
        row[: len(values)] = values
    one, other = padded[:, None, :], padded[None, :, :]
    signs = (one > other).astype(np.float64) - (one < other)
    untied = (signs**2).sum(2)
    agreeing = signs.sum(2) ** 2 - untied
    both = np.minimum.outer(num, num)
    agreeing /= both * (both - 1)
    untied /= both
    for matrix in (agreeing, untied):
        np.fill_diagonal(matrix, 0.0)  # no pair is made of one architecture
    return agreeing, untied


def _of_mean(between: Interval, num_seeds: float) -> Interval:
    ends = (between.value, between.low, between.high)
    value, low, high = (None if tau is None else _ceiling(tau, num_seeds) for tau in ends)
    return Interval(value, low, high, between.reason)


def _ceiling(tau: float, num_seeds: float) -> float:
    one = max(0.0, math.sin(math.pi / 2 * tau))
    reliability = num_seeds * one / (1 + (num_seeds - 1) * one)
    return 2 / math.pi * math.asin(math.sqrt(min(1.0, reliability)))
