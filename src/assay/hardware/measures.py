"""Figures of an architecture that need no training, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from assay.architecture import Architecture
from assay.errors import InvalidSetting, nearest
from assay.hardware.calls import PathCalls, Unit
from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.space.space import Space

__all__ = ["COSTS", "Measures"]

Quantity: TypeAlias = str | Callable[..., float]

COSTS = ("macs", "params", "model_bytes", "memory_bytes", "latency_ms")
"""The names there are, cheapest first."""


class Measures:
    """Answers "macs", "params", "model_bytes", "memory_bytes", "latency_ms" and users' functions.

    - `macs`: multiply-accumulates of one forward at the target's batch.
    - `params`: parameters of the network.
    - `model_bytes`: bytes of its parameters and buffers.
    - `memory_bytes`: `model_bytes` plus the largest inputs and outputs of any one layer.
    - `latency_ms`: by the latency table; without one, the built network is measured whole.

    Args:
        space: The space.
        device: Where the network will run.
        example: Inputs at the device's batch.
        table: A latency table of this space and device.
    """

    def __init__(
        self, space: Space, device: Device, example: Any, table: LatencyTable | None = None
    ) -> None:
        self._space = space
        self._device = device
        self._example = example
        self._table = table
        self._calls = table.calls if table is not None else PathCalls(space, example)
        self._last: tuple[Architecture, tuple[Unit, ...]] | None = None

    def __call__(self, quantity: Any, architecture: Architecture, /) -> float:
        """Return a quantity of an architecture.

        Raises:
            InvalidSetting: an unknown name.
        """
        if callable(quantity):
            return float(quantity(self._space.build(architecture)))
        if quantity == "latency_ms":
            if self._table is None:
                network = self._space.build(architecture)
                return self._device.latency(network, self._example).median_ms
            return self._table.of_units(self._units(architecture))
        self.check_name(quantity)
        counts = [unit.counts for unit in self._units(architecture)]
        if quantity == "macs":
            return float(sum(c.macs for c in counts))
        if quantity == "params":
            return float(sum(c.params for c in counts))
        weights = sum(c.weight_bytes for c in counts)
        peak = max((c.peak_bytes for c in counts), default=0)
        return float(weights + (peak if quantity == "memory_bytes" else 0))

    def _units(self, architecture: Architecture) -> tuple[Unit, ...]:
        if self._last is None or self._last[0] != architecture:
            self._last = (architecture, self._calls.of(architecture))
        return self._last[1]

    @staticmethod
    def check_name(name: str) -> None:
        """Refuse a name that does not exist.

        Raises:
            InvalidSetting: with the nearest names.
        """
        if name not in COSTS:
            raise InvalidSetting(f"unknown quantity {name!r}; {nearest(name, COSTS)}")

    @staticmethod
    def order(quantities: list[Any]) -> list[Any]:
        """Return quantities cheapest first; a user's functions, which build the network, last."""
        return sorted(quantities, key=lambda q: COSTS.index(q) if q in COSTS else len(COSTS))
