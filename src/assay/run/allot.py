"""Turning a budget in seconds into counts, a step at a time.

Each step may spend its share of what is left when it begins. How much one unit of its work takes
is timed first; the count that follows is written to the study, and a resumed run obeys it.
"""

from __future__ import annotations

from collections.abc import Mapping

from assay.errors import InvalidSetting

__all__ = ["SHARES", "count_for", "share_of"]

SHARES: Mapping[str, float] = {"train": 0.38, "search": 0.28, "finalists": 0.88}
"""Share of the seconds left that a step may spend; the rest is for the steps behind it."""

_MOST = 1_000_000


def share_of(step: str, left_s: float) -> float:
    """Return the seconds that a step may spend of those left."""
    return max(0.0, left_s) * SHARES[step]


def count_for(step: str, unit: str, left_s: float, unit_s: float, *, most: int = _MOST) -> int:
    """Return how many units of work a step may do.

    Args:
        step: A key of `SHARES`.
        unit: What one unit is called in the message.
        left_s: Seconds left of the budget.
        unit_s: Seconds of one unit, timed.
        most: Upper bound.
    Raises:
        InvalidSetting: not even one unit fits.
    """
    share = share_of(step, left_s)
    count = most if unit_s <= 0 else int(share / unit_s)
    if count < 1:
        more_s = unit_s / SHARES[step] - left_s
        raise InvalidSetting(
            f"the budget is too small for one {unit}: the step {step!r} may spend {share:.3g} s "
            f"and one takes {unit_s:.3g} s here; give at least {more_s:.3g} s more"
        )
    return min(count, most)
