"""Which estimators really rank better than others: paired differences of tau, corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from assay.trust.bootstrap import Judged, why_no_interval
from assay.trust.interval import Interval

__all__ = ["Difference", "compare", "holm"]

_ALPHA = 0.05
_ALIKE = "they rank alike"


@dataclass(frozen=True)
class Difference:
    """How much better one estimator ranks than another, on the same architectures.

    Attributes:
        one: An estimator.
        other: Another.
        tau: Tau of `one` less tau of `other`; its 95 % interval stands for this pair alone.
        p: How often so large a difference comes by chance, where there is none; None where untold.
        p_holm: The same, corrected for all comparisons made together.
        real: Whether the difference holds after the correction.
    """

    one: str
    other: str
    tau: Interval
    p: float | None
    p_holm: float | None
    real: bool

    @property
    def alike(self) -> bool:
        """Whether both rank the architectures alike, in every resample."""
        return self.tau.reason == _ALIKE


def compare(
    judged: Mapping[str, Judged], pairs: Sequence[tuple[str, str]]
) -> tuple[Difference, ...]:
    """Compare pairs of estimators, and correct for there being several.

    Both taus of a pair come from the same resamples, so what makes a resample easy for both falls
    out of their difference. Its standard deviation over resamples is the standard error of a t-test
    with N - 1 degrees of freedom, and of the interval that goes with it: the interval excludes 0
    exactly where p < 0.05. A difference is real where p is below 0.05 after Holm's correction,
    which is stricter, so its interval excludes 0, too.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 12 and 16; Holm
    1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6.

    Args:
        judged: By `assay.trust.bootstrap.judge`, all in one call; tau is defined for each.
        pairs: (one, other), as many as are looked at: each costs the others some of their power.
    Returns:
        In the order of the pairs.
    """
    told = [_difference(judged[one], judged[other]) for one, other in pairs]
    corrected = iter(holm([p for _, p in told if p is not None]))
    found = []
    for (one, other), (tau, p) in zip(pairs, told):
        p_holm = None if p is None else next(corrected)
        real = p_holm is not None and p_holm < _ALPHA
        found.append(Difference(one, other, tau, p, p_holm, real))
    return tuple(found)


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p-values for there being several, so that any false finding has the chance of one.

    Args:
        ps: In any order.
    Returns:
        The corrected ones, in the same order.
    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - place) * ps[i]))
        corrected[i] = least
    return corrected


def _difference(one: Judged, other: Judged) -> tuple[Interval, float | None]:
    """Return the difference in tau with its interval, and p."""
    value = (one.figures["tau"].value or 0.0) - (other.figures["tau"].value or 0.0)
    gaps = one.tau - other.tau
    reason = why_no_interval(gaps, num=one.num)
    if reason:
        alike = value == 0 and not np.nan_to_num(gaps).any()
        return Interval(value, reason=_ALIKE if alike else reason), None
    error, freedom = float(np.nanstd(gaps, ddof=1)), one.num - 1
    reach = float(stats.t.ppf(1 - _ALPHA / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Interval(value, value - reach, value + reach), p
