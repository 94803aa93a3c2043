"""What several estimators say of an architecture, each for itself; who fails has no opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from assay.architecture import Architecture
from assay.contracts import Context
from assay.cost import Cost
from assay.errors import AssayError, reason
from assay.estimators.sample import asked, cost_of

__all__ = ["SIGNAL", "Heard", "Opinions", "hear", "refuse_mute"]

Opinions: TypeAlias = Mapping[str, float]
"""Who -> what it says of one architecture."""

SIGNAL = "signal "
"""How the opinion of a single signal begins, before the name of the signal."""


@dataclass
class Heard:
    """What is said of one architecture.

    Attributes:
        opinions: Of those that say something finite.
        errors: Who -> why it says nothing.
        cost: Of all together.
    """

    opinions: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    @property
    def reasons(self) -> dict[str, str]:
        """The errors as one says them."""
        return {name: reason(error) for name, error in self.errors.items()}


def hear(
    ctx: Context, parts: Mapping[str, Any], points: Sequence[Architecture]
) -> dict[Architecture, Heard]:
    """Ask each part for its opinion of each architecture.

    Args:
        ctx: What the parts may use.
        parts: Name -> estimator; the metrics of "signals" are opinions, too, called `SIGNAL` + key.
        points: Architectures, no two of them equal.
    """
    heard = {a: Heard() for a in points}
    for name, part in parts.items():
        for point, said in zip(points, asked(ctx, part, points)):
            of = heard[point]
            of.cost += cost_of(said)
            if isinstance(said, Exception):
                of.errors[name] = said
                continue
            metrics = said.metrics if name == "signals" else {}
            of.opinions |= {name: said.score, **{SIGNAL + k: v for k, v in metrics.items()}}
    return heard


def refuse_mute(
    opinions: Mapping[Architecture, Opinions], heard: Mapping[Architecture, Heard]
) -> None:
    """Refuse a part that has failed for every architecture: the fault is its own.

    Args:
        opinions: Of all architectures so far.
        heard: The last of these, with what was raised.
    Raises:
        AssayError: there is such a part; from its last error.
    """
    errors = {name: error for of in heard.values() for name, error in of.errors.items()}
    for name, error in errors.items():
        if not any(name in said for said in opinions.values()):
            raise AssayError(
                f"{name} failed for each of the first {len(opinions)} architectures; mend it, or "
                f"leave it out; the last: {reason(error)}"
            ) from error
