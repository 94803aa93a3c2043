"""Regressions whose uncertainty is what they say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from threadpoolctl import threadpool_info, threadpool_limits

from assay.cost import derive
from assay.estimators.surrogate import SURROGATES, GaussianProcess, tamed


def smooth(num, seed, noise=0.2, dims=4):
    """Return features `[num, dims]` and noisy values of a smooth function."""
    rng = derive(seed, "smooth")
    x = rng.normal(size=(num, dims)) / np.sqrt(dims)
    clean = np.sin(2 * x[:, 0]) + x[:, 1] - 0.5 * x[:, 2] ** 2
    return x, clean + noise * rng.normal(size=num)


@pytest.mark.parametrize("name", SURROGATES)
def test_intervals_cover_as_often_as_they_say(name):
    inside = []
    for seed in range(6):
        x, y = smooth(140, seed)
        model = SURROGATES[name](seed)
        model.fit(x[:60], y[:60])
        mean, deviation = model.predict(x[60:])
        inside.append(np.abs(y[60:] - mean) <= 1.6449 * deviation)
    assert 0.84 <= np.mean(inside) <= 0.96  # of 90 %, over 480 points


@pytest.mark.parametrize("name", SURROGATES)
def test_it_ranks_what_it_has_not_seen(name):
    x, y = smooth(200, 7, noise=0.1)
    model = SURROGATES[name]()
    model.fit(x[:100], y[:100])
    assert np.corrcoef(model.predict(x[100:])[0], y[100:])[0, 1] > 0.8
    assert np.corrcoef(model.held_out(), y[:100])[0, 1] > 0.8


def test_held_out_predictions_are_those_of_a_process_refitted_without_each():
    x, y = smooth(25, 3)
    model = GaussianProcess()
    model.fit(x, y)
    kernel = model._model.kernel_
    y = tamed(y)
    standard = (y - y.mean()) / y.std()
    for i in range(len(y)):
        rest = np.delete(np.arange(len(y)), i)
        # The noise is part of the kernel on the diagonal only.
        across = kernel(x[[i]], x[rest])
        told = across @ np.linalg.solve(kernel(x[rest]), standard[rest])
        assert model.held_out()[i] == pytest.approx(y.mean() + y.std() * told[0], abs=1e-6)


def test_one_value_far_away_is_drawn_in_and_the_rest_stay():
    values = np.array([0.1, 0.2, 0.3, 0.4, -1e6])
    drawn = tamed(values)
    np.testing.assert_array_equal(drawn[:4], values[:4])
    assert drawn[4] == pytest.approx(0.2 - 3 * 1.4826 * 0.1)
    np.testing.assert_array_equal(tamed(np.full(4, 2.0)), np.full(4, 2.0))


def test_linear_algebra_has_one_thread_and_gets_its_own_back(monkeypatch):
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen = []
    for name in ("fit", "predict"):
        usual = getattr(GaussianProcessRegressor, name)

        def watched(self, *args, _usual=usual, **kwargs):
            seen.append(threads())
            return _usual(self, *args, **kwargs)

        monkeypatch.setattr(GaussianProcessRegressor, name, watched)
    with threadpool_limits(2, user_api="blas"):
        process = GaussianProcess()
        process.fit(np.eye(6), np.arange(6.0))
        process.predict(np.eye(6))
        assert seen == [{1}, {1}]
        assert threads() == {2}
