"""What lies between the units of a network, fitted to a few networks measured whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Fit", "fit_whole"]

_NOISE = 0.01  # relative, of what this form leaves unexplained of a network's latency


@dataclass(frozen=True)
class Fit:
    """What turns measurements of units into the latency of a network; see
    `assay.hardware.table.LatencyTable`.

    Attributes:
        scale: Factor of the units' own milliseconds.
        unit_ms: Milliseconds more (mostly fewer: below 0) for each unit.
        weight_byte_ms: Milliseconds more for each byte of the units' weights.
        network_ms: Milliseconds more for the whole.
    """

    scale: float
    unit_ms: float
    weight_byte_ms: float
    network_ms: float


def fit_whole(
    features: Sequence[Sequence[float]], measured_ms: Sequence[float], empty_ms: float
) -> Fit:
    """Fit what lies between units to whole networks, by regularised relative least squares.

    It starts from what is so without any network: units as measured, the price of a call taken
    back for each and added once, weights free. Each number gives way as far as networks ask for
    it, so that few networks cannot turn the table over.

    Args:
        features: Of each network, in the order of `Fit`: sum of its units' milliseconds, number of
            units, bytes of their weights, 1.
        measured_ms: Of each network, whole.
        empty_ms: Of a network that hands its input on: the price of a call.
    """
    start = np.array([1.0, -empty_ms, 0.0, empty_ms])
    give = np.array([0.1, max(0.5 * empty_ms, 1e-6), 1e-8, max(empty_ms, 1e-6)])
    y = np.maximum(np.asarray(measured_ms, dtype=float), 1e-9)
    rows = np.asarray(features, dtype=float).reshape(-1, 4) / (_NOISE * y[:, None])
    left = np.vstack([rows * give, np.eye(4)])  # of the steps from the start, in units of `give`
    right = np.concatenate([1 / _NOISE - rows @ start, np.zeros(4)])
    steps, *_ = np.linalg.lstsq(left, right, rcond=None)
    return Fit(*(float(v) for v in start + give * steps))
