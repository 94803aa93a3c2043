"""Regressions from features of architectures to scores, with an uncertainty that is calibrated."""

from __future__ import annotations

import functools
import warnings
from typing import Any, Protocol, TypeAlias

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from threadpoolctl import ThreadpoolController

from assay.cost import derive

__all__ = ["SURROGATES", "GaussianProcess", "Surrogate", "Trees", "tamed"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_FOLDS = 5


class Surrogate(Protocol):
    """What is fitted once to a few scores and then asked for many."""

    def fit(self, features: Array, scores: Array) -> None:
        """Learn from features `[n, d]` and scores `[n]`."""
        ...

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation `[m]` of the score at features `[m, d]`."""
        ...

    def held_out(self) -> Array:
        """Return for each score fitted the mean `[n]` predicted without it."""
        ...


def tamed(scores: Array) -> Array:
    """Return scores with what lies beyond 3 robust deviations of the median drawn in to there.

    One network that diverged must not set the scale for all the others.
    """
    middle = np.median(scores)
    spread = 1.4826 * np.median(np.abs(scores - middle))
    return np.clip(scores, middle - 3 * spread, middle + 3 * spread) if spread > 0 else scores


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def _on_one_thread() -> Any:
    """Within, linear algebra has one thread: for some hundred rows more are waiting alone.

    Where other processes train meanwhile, threads that wait for each other take their cores.
    """
    return _pools().limit(limits=1, user_api="blas")


class GaussianProcess:
    """A Gaussian process with a Matern 5/2 kernel and noise, all scales by marginal likelihood.

    Source: Rasmussen, Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2, 5.4.1
    and 5.4.2 (equations 5.12: leave-one-out without refitting); differs: deviations are multiplied
    by the root mean square of the standardised leave-one-out residuals, which makes them right on
    average where the model is not.

    Args:
        seed: Of the optimiser's restarts.
    """

    def __init__(self, seed: int = 0) -> None:
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(1.0, (5e-2, 5e1), nu=2.5)
        kernel += WhiteKernel(0.1, (1e-3, 1e1))
        self._model = GaussianProcessRegressor(
            kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed
        )
        self._held_out: Array = np.empty(0)
        self._factor = 1.0

    def fit(self, features: Array, scores: Array) -> None:
        """See `Surrogate`; a scale at the edge of its range is as good as one beyond it."""
        scores = tamed(scores)
        with warnings.catch_warnings(), _on_one_thread():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(features, scores)
            mean, deviation = self._leave_one_out(features, scores)
        self._held_out = mean
        standardised = (scores - mean) / np.maximum(deviation, 1e-12)
        self._factor = float(np.sqrt(np.mean(np.square(standardised)))) or 1.0

    def _leave_one_out(self, features: Array, scores: Array) -> tuple[Array, Array]:
        location, scale = scores.mean(), scores.std() or 1.0
        y = (scores - location) / scale
        inverse = np.linalg.inv(self._model.kernel_(features))
        variance = 1.0 / np.diag(inverse)
        return location + scale * (y - inverse @ y * variance), scale * np.sqrt(variance)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """See `Surrogate`."""
        with _on_one_thread():
            mean, deviation = self._model.predict(features, return_std=True)
        return mean, self._factor * deviation

    def held_out(self) -> Array:
        """See `Surrogate`."""
        return self._held_out


class Trees:
    """Gradient-boosted trees over bootstrap samples; the members' spread is the uncertainty.

    Source: Friedman 2001, "Greedy Function Approximation: A Gradient Boosting Machine"; differs:
    an ensemble over bootstrap samples, its spread scaled so that held-out residuals have the size
    it tells.

    Args:
        seed: Of bootstrap samples and folds.
        members: Models in the ensemble.
    """

    def __init__(self, seed: int = 0, members: int = 10) -> None:
        self._seed = seed
        self._num = members
        self._members: list[Any] = []
        self._held_out: Array = np.empty(0)
        self._noise = 0.0

    def fit(self, features: Array, scores: Array) -> None:
        """See `Surrogate`."""
        scores = tamed(scores)
        held_out, variance = np.empty_like(scores), np.empty_like(scores)
        folds = KFold(min(_FOLDS, len(scores)), shuffle=True, random_state=self._seed)
        for kept, out in folds.split(features):
            members = self._ensemble(features[kept], scores[kept])
            held_out[out], variance[out] = _moments(members, features[out])
        self._held_out = held_out
        # What the members' spread leaves unexplained of the held-out error is noise to them all.
        self._noise = max(0.0, float(np.mean(np.square(scores - held_out) - variance)))
        self._members = self._ensemble(features, scores)

    def _ensemble(self, features: Array, scores: Array) -> list[Any]:
        rng = derive(self._seed, "bootstrap", len(scores))
        members = []
        for i in range(self._num):
            drawn = rng.integers(len(scores), size=len(scores))
            model = GradientBoostingRegressor(
                n_estimators=100, max_depth=3, learning_rate=0.08, subsample=0.8,
                max_features=0.5, random_state=i,
            )  # fmt: skip
            members.append(model.fit(features[drawn], scores[drawn]))
        return members

    def predict(self, features: Array) -> tuple[Array, Array]:
        """See `Surrogate`."""
        mean, variance = _moments(self._members, features)
        return mean, np.sqrt(variance + self._noise)

    def held_out(self) -> Array:
        """See `Surrogate`."""
        return self._held_out


def _moments(members: list[Any], features: Array) -> tuple[Array, Array]:
    told = np.stack([model.predict(features) for model in members])
    return told.mean(0), told.var(0)


SURROGATES = {"gp": GaussianProcess, "trees": Trees}
"""Name -> class."""
