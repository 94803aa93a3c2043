"""Dividing what is left of an audit's time among its estimators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Needs", "equal_parts"]


@dataclass(frozen=True)
class Needs:
    """What an estimator says that it takes here.

    Attributes:
        step_s: Seconds of one step of its preparation; 0 if it prepares nothing.
        each_s: Seconds of one estimate; 0 where that is not known before.
        num: Architectures that it has yet to score.
    """

    step_s: float
    each_s: float
    num: int

    @property
    def score_s(self) -> float:
        """Seconds of all its scoring, as far as it is known."""
        return self.num * self.each_s


def equal_parts(left_s: float, needs: Mapping[str, Needs]) -> dict[str, float]:
    """Return how long each estimator may prepare: equally long, whatever their order.

    The scoring of all is set aside first. Where it does not fit, those that score dearest are left
    out, one after another.

    Args:
        left_s: Seconds.
        needs: Estimator -> what it takes.
    Returns:
        Estimator -> seconds to prepare, 0 for one that prepares nothing; without those left out.
    """
    kept, left_s = dict(needs), max(0.0, left_s)
    while sum(n.score_s for n in kept.values()) > left_s:
        del kept[max(kept, key=lambda name: kept[name].score_s)]
    preparing = [name for name, n in kept.items() if n.step_s > 0]
    spare_s = left_s - sum(n.score_s for n in kept.values())
    return {name: spare_s / len(preparing) if name in preparing else 0.0 for name in kept}
