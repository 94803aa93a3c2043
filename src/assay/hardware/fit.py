"""What lies between the units of a network, fitted to a few networks measured whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Fit", "fit_whole"]

_LEAST_NOISE = 0.01  # relative: this form explains no network better
_ROUNDS = 8  # of noise from the fit, fit from the noise; it settles in three or four


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
    it beyond their own noise, which is what they leave unexplained; so few networks, or noisy
    measurements, cannot turn the table over.

    Args:
        features: Of each network, in the order of `Fit`: sum of its units' milliseconds, number of
            units, bytes of their weights, 1.
        measured_ms: Of each network, whole.
        empty_ms: Of a network that hands its input on: the price of a call.
    """
    y = np.maximum(np.asarray(measured_ms, dtype=float), 1e-9)
    rows = np.asarray(features, dtype=float).reshape(-1, 4)
    usual_ms = float(np.median(y)) if len(y) else 0.0
    usual_units = max(1.0, float(np.median(rows[:, 1]))) if len(y) else 1.0
    start = np.array([1.0, -empty_ms, 0.0, empty_ms])
    # Sums and other code between units may cost as much as units do.
    give = np.array([0.1, empty_ms / 2 + 0.1 * usual_ms / usual_units, 1e-8, empty_ms + usual_ms])
    rows = rows / y[:, None]
    found, noise = start, _LEAST_NOISE
    for _ in range(_ROUNDS if len(y) else 0):
        left = np.vstack([rows * give / noise, np.eye(4)])  # of steps from the start, in `give`s
        right = np.concatenate([(1 - rows @ start) / noise, np.zeros(4)])
        steps, *_ = np.linalg.lstsq(left, right, rcond=None)
        found = start + give * steps
        noise = max(_LEAST_NOISE, float(np.sqrt(np.mean((rows @ found - 1) ** 2))))
    return Fit(*(float(v) for v in found))
