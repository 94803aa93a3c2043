"""What a search holds architectures to, and what it prefers among those that hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay.architecture import Architecture
from assay.contracts import Estimate
from assay.cost import derive
from assay.errors import InvalidSetting, NotFinite
from assay.hardware.measures import COSTS, Quantity, quantity_name
from assay.space.space import Space

__all__ = ["Aims", "Measure", "Quantity", "quantity_name", "refuse_shared_names"]

_DRAWN = 200


class Measure(Protocol):
    """Tells a quantity of an architecture without training anything."""

    def __call__(self, quantity: Any, architecture: Architecture, /) -> float:
        """Return the value, in the unit that the quantity's name ends in."""
        ...


def refuse_shared_names(quantities: Iterable[Quantity]) -> None:
    """Refuse two quantities of one name, under which both would be kept.

    Args:
        quantities: Limits and objectives; one that is named twice is one quantity.
    Raises:
        InvalidSetting: two functions of one name, or one that is called like what Assay measures.
    """
    known: dict[str, Quantity] = {name: name for name in ("score", *COSTS)}
    for quantity in quantities:
        name = quantity_name(quantity).lstrip("-")
        if known.setdefault(name, quantity) != quantity and not isinstance(quantity, str):
            other = "what Assay measures" if known[name] == name else "another function"
            raise InvalidSetting(
                f"the function {name!r} is called like {other}; rename it, since values are kept "
                "by name"
            )


@dataclass(frozen=True)
class _Objective:
    quantity: Quantity
    sign: float

    @property
    def name(self) -> str:
        return ("-" if self.sign < 0 else "") + quantity_name(self.quantity)


class Aims:
    """Limits and objectives of a search.

    Args:
        limits: Quantity -> largest value allowed.
        objectives: What is maximised, in order of weight: "score", the score of the estimator; a
            measured name; a user's function. A leading "-" minimises a name.
        cheapest_first: Orders quantities by what asking for them costs.
    Raises:
        InvalidSetting: a limit that is no positive number, no objective, or one given twice.
    """

    def __init__(
        self,
        limits: Mapping[Quantity, float],
        objectives: Sequence[Quantity],
        cheapest_first: Callable[[list[Any]], list[Any]],
    ) -> None:
        for quantity, value in limits.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise InvalidSetting(
                    f"limit {quantity_name(quantity)}={value!r} must be a positive number"
                )
        self.limits = {q: float(limits[q]) for q in cheapest_first(list(limits))}
        self.objectives = [_objective(o) for o in objectives]
        names = [o.name.lstrip("-") for o in self.objectives]
        if not names or len(set(names)) != len(names):
            raise InvalidSetting(f"objectives {tuple(objectives)!r} must name each quantity once")
        wanted = [o.quantity for o in self.objectives if o.quantity != "score"]
        # MACs cost nothing and are what everybody compares by.
        self.quantities = cheapest_first(list(dict.fromkeys(["macs", *limits, *wanted])))

    def check(self, architecture: Architecture, measure: Measure) -> tuple[dict[str, float], float]:
        """Measure an architecture against the limits, cheapest first, until one is broken.

        Returns:
            (measured values by name, violation): the violation is value / limit - 1 of the first
            limit broken, and 0 where all hold; then every objective is measured too.
        Raises:
            NotFinite: a quantity is NaN.
        """
        measured: dict[str, float] = {}
        for quantity, limit in self.limits.items():
            name = quantity_name(quantity)
            measured[name] = value = _number(name, measure(quantity, architecture))
            if value > limit:
                return measured, value / limit - 1.0
        for quantity in self.quantities:
            name = quantity_name(quantity)
            if name not in measured:
                measured[name] = _number(name, measure(quantity, architecture))
        return measured, 0.0

    def hold(self, architecture: Architecture, measure: Measure) -> bool:
        """Whether an architecture holds every limit; nothing else is measured.

        Raises:
            NotFinite: a quantity is NaN.
        """
        limits = self.limits.items()
        return all(_number(quantity_name(q), measure(q, architecture)) <= v for q, v in limits)

    def dearest(self, space: Space, measure: Measure, *, seed: int) -> Architecture:
        """Return an architecture that takes about the longest to train of those within the limits.

        It has the most MACs of many that are drawn; the largest where nothing is limited, where
        none of them is within, or where a limit is a user's function, which may take long.
        """
        largest, rng = space.largest(), derive(seed, "dearest")
        if not self.limits or any(map(callable, self.limits)):
            return largest
        drawn = [largest, *(space.canonical(space.sample(rng)) for _ in range(_DRAWN))]
        within = [point for point in drawn if self.hold(point, measure)]
        return max(within, key=lambda p: measure("macs", p), default=largest)

    def values(self, estimate: Estimate, measured: Mapping[str, float]) -> tuple[float, ...]:
        """Return what is maximised, signs applied."""
        return tuple(
            o.sign
            * (estimate.score if o.quantity == "score" else measured[quantity_name(o.quantity)])
            for o in self.objectives
        )


def _number(name: str, value: float) -> float:
    number = float(value)
    if math.isnan(number):
        raise NotFinite(
            f"{name} was measured as NaN; a limit or objective needs a number: mend the function"
        )
    return number


def _objective(given: Quantity) -> _Objective:
    if isinstance(given, str) and given.startswith("-"):
        return _Objective(given[1:], -1.0)
    return _Objective(given, +1.0)
