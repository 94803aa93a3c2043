"""Where a value lies among those of a sample, whatever their scale."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["Ranks"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


class Ranks:
    """The mid-rank of any value among a sample and itself, as a share in (0, 1).

    Strictly increasing in the value, so that architectures better than all of the sample still
    differ: between values of the sample it is linear; beyond the last it nears the rank of what is
    larger than all, half of the way at as far beyond as the last is from the median. -inf stands
    for a value that is not defined and is below all others.

    Args:
        sample: `[n]`, finite or -inf.
    """

    def __init__(self, sample: Array) -> None:
        values, equal = np.unique(sample, return_counts=True)
        ranks = (np.cumsum(equal) - equal + (equal + 1) / 2) / (len(sample) + 1)
        finite = np.isfinite(values)
        undefined = len(sample) - int(equal[finite].sum())
        self._undefined = (undefined + 1) / 2 / (len(sample) + 1)
        self._values, self._ranks = values[finite], ranks[finite]
        self._ends = np.array([undefined + 0.5, len(sample) + 0.5]) / (len(sample) + 1)
        self._median = float(np.median(sample[np.isfinite(sample)])) if finite.any() else 0.0

    def __call__(self, values: Array) -> Array:
        """Return the ranks of values, of any shape."""
        if not len(self._values):
            return np.where(np.isneginf(values), self._undefined, self._ends[1])
        least, most = self._values[0], self._values[-1]
        low, high = self._ends
        told = np.interp(values, self._values, self._ranks)
        below = low + (self._ranks[0] - low) * self._nearness(values, least)
        above = high - (high - self._ranks[-1]) * self._nearness(values, most)
        told = np.where(values < least, below, np.where(values > most, above, told))
        ranks: Array = np.where(np.isneginf(values), self._undefined, told)
        return ranks

    def _nearness(self, values: Array, end: float) -> Array:
        """Return 1 at an end of the sample, falling to 0 far beyond it."""
        scale = abs(end - self._median) or abs(end) or 1.0
        nearness: Array = 1 / (1 + np.abs(values - end) / scale)
        return nearness
