"""Figures of an architecture that need no training, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from assay.architecture import Architecture
from assay.errors import InvalidSetting, nearest
from assay.hardware.calls import PathCalls
from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.space.space import Space

__all__ = ["COSTS", "Measures", "Quantity", "quantity_name"]

Quantity: TypeAlias = str | Callable[..., float]
"""A measured name such as "latency_ms", or a user's f(module) -> float; see `Measures`."""
COSTS = ("params", "model_bytes", "macs", "memory_bytes", "latency_ms")
"""The names there are, cheapest first."""


def quantity_name(quantity: Quantity) -> str:
    """Return the name a quantity is stored under.

    Of a function its own, of a `functools.partial` that of what it calls, of another object that
    can be called the name of its class.

    Raises:
        InvalidSetting: a lambda, which has no name, or what is no quantity.
    """
    if isinstance(quantity, str):
        return quantity
    if isinstance(quantity, partial):
        return quantity_name(quantity.func)
    if not callable(quantity):
        raise InvalidSetting(
            f"{quantity!r} is no quantity; give a name such as 'macs' or a function of a module"
        )
    name: str = getattr(quantity, "__name__", type(quantity).__name__)
    if name.startswith("<"):
        raise InvalidSetting(
            f"{quantity!r} has no name to keep its values under; write it as a function with def"
        )
    return name


class Measures:
    """Answers "macs", "params", "model_bytes", "memory_bytes", "latency_ms" and users' functions.

    Nothing is built for a name but `latency_ms` without a table: the same figures as of the built
    network are worked out from the space.

    - `macs`: multiply-accumulates of one sample, whatever the batch: the share of one in a forward
      at the device's. See `uncounted`.
    - `params`: parameters of the network, trained or frozen, shared ones once.
    - `model_bytes`: bytes of its parameters and buffers as they are saved, shared ones once.
    - `memory_bytes`: bytes of its parameters and all its buffers, and of the largest inputs and
      outputs that a single layer has at the example's batch. That is what a runtime holds that
      frees each activation after its only reader. What longer skip connections and the code
      between layers hold, and the runtime's own scratch space, is not in it.
    - `latency_ms`: by the latency table; without one, the built network is measured whole.
    - A user's function gets the built network on the CPU, in eval mode.

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

    def __call__(self, quantity: Any, architecture: Architecture, /) -> float:
        """Return a quantity of an architecture.

        Raises:
            InvalidSetting: an unknown name, or a user's function that returns no finite number.
            InvalidArchitecture: it is no point of the space.
        """
        if callable(quantity):
            return self._by_user(quantity, architecture)
        if quantity == "macs":
            return self._calls.counts(architecture).macs / self._device.batch
        if quantity == "params":
            return float(self._calls.sizes(architecture).params)
        if quantity == "model_bytes":
            return float(self._calls.sizes(architecture).saved_bytes)
        if quantity == "memory_bytes":
            counts = self._calls.counts(architecture)
            return float(counts.weight_bytes + counts.peak_bytes)
        self.check_name(quantity)
        if self._table is not None:
            return self._table.predict(architecture)
        network = self._space.build(architecture)
        return self._device.latency(network, self._example).median_ms

    def _by_user(self, function: Callable[..., float], architecture: Architecture) -> float:
        network = self._space.build(architecture).cpu().eval()  # as it is measured and handed out
        try:
            value = float(function(network))
            if not math.isfinite(value):
                raise ValueError(f"it returned {value}")
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise InvalidSetting(
                f"the function {quantity_name(function)!r} cannot measure "
                f"{architecture.to_json()} ({why}); it must take a module and return a finite float"
            ) from error
        return value

    def uncounted(self, architecture: Architecture) -> tuple[str, ...]:
        """Return what multiplies in an architecture's network and is not in its `macs`.

        Layers by their path in the model with choices, operations outside them by name and place;
        () where all is counted.
        """
        return self._calls.counts(architecture).uncounted

    @staticmethod
    def check_name(name: str, *, known: Sequence[str] = COSTS) -> None:
        """Refuse a name that does not exist.

        Raises:
            InvalidSetting: with the nearest names.
        """
        if name not in known:
            raise InvalidSetting(f"unknown quantity {name!r}; {nearest(name, known)}")

    @staticmethod
    def order(quantities: list[Any]) -> list[Any]:
        """Return quantities cheapest first; a user's functions, which build the network, last."""
        return sorted(quantities, key=lambda q: COSTS.index(q) if q in COSTS else len(COSTS))
