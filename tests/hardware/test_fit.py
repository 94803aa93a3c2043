from __future__ import annotations

import numpy as np
import pytest

from assay.hardware.fit import Fit, fit_whole

EMPTY_MS = 0.005


def networks(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    own = rng.uniform(0.05, 0.3, n)
    return np.stack([own, rng.integers(3, 12, n), 1e6 * rng.uniform(0.1, 1, n), np.ones(n)], 1)


def values(fit: Fit) -> np.ndarray:
    return np.array([fit.scale, fit.unit_ms, fit.weight_byte_ms, fit.network_ms])


def test_without_networks_it_takes_back_the_price_of_each_call():
    assert fit_whole([], [], EMPTY_MS) == Fit(1.0, -EMPTY_MS, 0.0, EMPTY_MS)


def test_what_is_so_without_networks_stays_so_with_them():
    start, features = fit_whole([], [], EMPTY_MS), networks(10)
    assert values(fit_whole(features, features @ values(start), EMPTY_MS)) == pytest.approx(
        values(start), rel=1e-9, abs=1e-15
    )


def test_a_law_of_its_form_is_found():
    law, features = Fit(1.04, -0.004, 8e-9, 0.01), networks(40)
    found = fit_whole(features, features @ values(law), EMPTY_MS)
    predicted, true = networks(40) @ values(found), networks(40) @ values(law)
    assert np.abs(predicted / true - 1).max() <= 2e-3
    assert found.scale == pytest.approx(law.scale, abs=0.02)


def test_the_more_networks_the_nearer_to_the_law():
    law = np.array([1.1, -0.008, 1e-8, 0.02])
    errors = []
    for n in (1, 4, 16):
        features = networks(16)[:n]
        found = values(fit_whole(features, features @ law, EMPTY_MS))
        errors.append(np.abs(networks(16) @ found / (networks(16) @ law) - 1).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 3e-3


def test_noise_cannot_turn_the_table_over():
    rng, features = np.random.default_rng(1), networks(12)
    start = values(fit_whole([], [], EMPTY_MS))
    wild = features @ start * rng.lognormal(0.0, 0.7, 12)
    assert 0.7 <= fit_whole(features, wild, EMPTY_MS).scale <= 1.3


def test_a_runtime_that_asks_no_price_for_a_call():
    features = networks(10) * [1, 1, 0, 1]
    found = fit_whole(features, features[:, 0], 0.0)
    assert values(found) == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-9)
