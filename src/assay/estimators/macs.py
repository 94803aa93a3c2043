"""Multiply-accumulates of the passes that estimators take through a supernet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Mix
from assay.hardware.count import count
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.space.space import Space

__all__ = ["PassMacs"]


class PassMacs:
    """Counts the MACs of one sample's forward on a path or a mix.

    A path is counted from the space, without running it; a mix, of which several options run, as
    torch carries it out once.

    Args:
        space: The space; after a mix was counted, nothing is selected in its model.
        example: Input `[1, ...]`, on the model's device.
    """

    def __init__(self, space: Space, example: Any) -> None:
        self._space = space
        self._example = example
        self._measures = Measures(space, Device(), example)
        self._mixes: dict[tuple[Any, ...], float] = {}

    def __call__(self, path: Architecture | Mix) -> float:
        """Return the MACs of one path or mix."""
        if isinstance(path, Architecture):
            return self._measures("macs", path)
        active = tuple((label, tuple(options)) for label, options in path.items())
        if active not in self._mixes:
            self._mixes[active] = self._run(path)
        return self._mixes[active]

    def _run(self, mix: Mix) -> float:
        self._space.select(mix)
        try:
            return float(count(self._space.model, self._example).macs)
        finally:
            self._space.select(None)

    def mean(self, paths: Iterable[Architecture | Mix]) -> float:
        """Return the mean over some paths and mixes, 0 of none."""
        counted = [self(path) for path in paths]
        return sum(counted) / max(1, len(counted))
