"""What a regression is told about an architecture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from assay.architecture import Architecture
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.space.space import Space

__all__ = ["Features", "Scaler", "farthest_first"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

Blocks: TypeAlias = tuple[Array, ...]
"""Groups of features of one architecture; each group weighs alike, however many are in it."""


class Features:
    """Describes architectures: encoding, counts of operations, size, and what the space adds.

    Args:
        space: The space.
        example: Input `[1, ...]` on which MACs are counted.
    """

    def __init__(self, space: Space, example: Any) -> None:
        self._space = space
        self._measures = Measures(space, Device(), example)
        self._groups = sorted({c.options for c in space.choices.values()}, key=repr)
        self._known: dict[Architecture, Blocks] = {}

    def __call__(self, architecture: Architecture) -> Blocks:
        """Return the blocks of a canonical architecture; each is worked out once."""
        if architecture not in self._known:
            self._known[architecture] = self._blocks(architecture)
        return self._known[architecture]

    def _blocks(self, architecture: Architecture) -> Blocks:
        size = [math.log1p(self._measures(name, architecture)) for name in ("macs", "params")]
        blocks = [self._space.encode(architecture), self._counts(architecture), np.array(size)]
        if self._space.features is not None:
            blocks.append(np.asarray(self._space.features(architecture), float))
        return tuple(blocks)

    def _counts(self, architecture: Architecture) -> Array:
        """Return how often each option is taken, of all choices with equal options together."""
        choices = self._space.choices
        taken = Counter((choices[label].options, o) for label, o in architecture.items())
        return np.array([float(taken[group, o]) for group in self._groups for o in group])


class Scaler:
    """Brings blocks of features to one scale: each column standard, each block of weight one.

    Args:
        rows: Blocks of the architectures whose mean and deviation are meant.
    """

    def __init__(self, rows: Sequence[Blocks]) -> None:
        stacked = [np.stack(block) for block in zip(*rows)]
        self._means = [block.mean(0) for block in stacked]
        self._scales = [
            np.where(block.std(0) > 1e-9, block.std(0), np.inf) * math.sqrt(block.shape[1])
            for block in stacked
        ]

    def __call__(self, rows: Sequence[Blocks]) -> Array:
        """Return `[rows, columns of all blocks]`; a column that did not vary says nothing."""
        return np.stack([self._row(row) for row in rows])

    def _row(self, row: Blocks) -> Array:
        parts = zip(row, self._means, self._scales)
        return np.concatenate([(block - mean) / scale for block, mean, scale in parts])


def farthest_first(rows: Array, num: int, *, start: int) -> list[int]:
    """Return the indices of up to `num` rows, each next one farthest from all before it.

    Args:
        rows: `[n, d]`; distances are Euclidean.
        num: How many.
        start: Index of the first.
    """
    chosen, nearest = [start], np.full(len(rows), np.inf)
    while len(chosen) < min(num, len(rows)):
        nearest = np.minimum(nearest, np.linalg.norm(rows - rows[chosen[-1]], axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen
