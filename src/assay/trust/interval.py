"""A figure with its doubt, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.errors import NotFinite

__all__ = ["Interval"]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; what cannot be told is None, never NaN.

    Attributes:
        value: The figure of this sample; None where it is undefined.
        low: Lower end of its interval; None where the sample tells no interval.
        high: Upper end, None together with `low`.
        reason: Why the value or its ends are None; "" where all are there.
    Raises:
        NotFinite: a number is NaN or infinite.
        ValueError: something is None without a reason, or only one end is.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high)
        if not all(math.isfinite(n) for n in numbers if n is not None):
            raise NotFinite(f"{numbers} is no interval; give None and a reason")
        if (self.low is None) != (self.high is None) or (None in numbers) != bool(self.reason):
            raise ValueError(f"{numbers} with the reason {self.reason!r} is no interval")

    def excludes(self, value: float) -> bool:
        """Whether there is an interval and the value lies outside."""
        if self.low is None or self.high is None:
            return False
        return not self.low <= value <= self.high

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined: {self.reason}"
        if self.low is None:
            return f"{self.value:z.2f}, no interval: {self.reason}"
        return f"{self.value:z.2f}, {self.low:z.2f} to {self.high:z.2f}"
