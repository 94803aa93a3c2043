"""What a learning curve that was cut short says about its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from assay.errors import InvalidSetting, NotFinite

__all__ = ["FEWEST_POINTS", "extrapolate"]

FEWEST_POINTS = 4
"""From fewer points the three numbers of a power law cannot be fitted."""


def extrapolate(curve: Sequence[tuple[int, float]], end: int) -> float:
    """Return the loss at step `end` of the power law fitted to a curve.

    loss(t) = a + b t^-c with b at least 0 and c in [0.01, 3], by least squares with a robust loss;
    a is at least 0, too, unless one of the losses is less. Beside the last value, not in its place:
    asked which of two is better, the last value often tells more (Ning et al. 2021,
    arXiv:2008.03064).

    Source: Domhan et al. 2015, "Speeding up automatic hyperparameter optimization of deep neural
    networks by extrapolation of learning curves", IJCAI, from whose family it takes pow3; differs:
    one curve and no posterior.

    Args:
        curve: (step, loss), steps rising.
        end: Step to look ahead to.
    Raises:
        InvalidSetting: fewer points than four, from which three numbers cannot be fitted.
        NotFinite: a loss of the curve is NaN or infinite.
    """
    if len(curve) < FEWEST_POINTS:
        raise InvalidSetting(
            f"a learning curve of {len(curve)} points cannot be fitted; give {FEWEST_POINTS} or "
            "more"
        )
    steps, losses = (np.asarray(column, dtype=float) for column in zip(*curve))
    if not np.isfinite(losses).all():
        raise NotFinite(
            f"a learning curve cannot be fitted, its losses are {losses.tolist()}; lower recipe.lr"
        )
    time, last = steps / steps[-1], losses[-1]
    spread = max(float(losses[0] - last), 1e-6)
    least = 0.0 if losses.min() >= 0 else -np.inf

    def residuals(p: Any) -> Any:
        return p[0] + p[1] * time ** -p[2] - losses

    fit = least_squares(
        residuals, (max(last - spread, least), spread, 0.5),
        bounds=((least, 0.0, 0.01), (np.inf, np.inf, 3.0)), loss="soft_l1", f_scale=0.1,
    )  # fmt: skip
    a, b, c = fit.x
    return float(a + b * (end / steps[-1]) ** -c)
