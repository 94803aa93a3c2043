"""What is expected of a limited quantity, shown beside what is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from assay.architecture import Architecture
from assay.cost import derive
from assay.hardware.measures import quantity_name

__all__ = ["Measure", "Tightest"]

Measure: TypeAlias = Callable[[Any, Architecture], float]
"""Tells a quantity of an architecture."""

_DRAWN = 16


class Tightest:
    """The limited quantity that is furthest over its limit at first, and what is expected of it.

    That is its mean over 16 draws, from the same random numbers each time: so what changes from one
    time to another is what is known, not chance.

    Args:
        measure: Tells a quantity of an architecture.
        limits: Quantity -> largest value allowed, of at least one.
        draw: Draws what would be proposed now.
        seed: Names the random numbers.
    """

    def __init__(
        self,
        measure: Measure,
        limits: Mapping[Any, float],
        draw: Callable[[np.random.Generator], Architecture],
        seed: int,
    ) -> None:
        self._measure = measure
        self._draw = draw
        self._seed = seed
        self._quantity = max(limits, key=lambda q: self._mean(q) / limits[q])
        self._limit = limits[self._quantity]

    def figures(self) -> dict[str, Any]:
        """Return quantity, expected and target as a `Learning` has them."""
        return {
            "quantity": quantity_name(self._quantity),
            "expected": self._mean(self._quantity),
            "target": self._limit,
        }

    def _mean(self, quantity: Any) -> float:
        rng = derive(self._seed, "expected")
        drawn = [self._draw(rng) for _ in range(_DRAWN)]
        return sum(self._measure(quantity, point) for point in drawn) / _DRAWN
