from __future__ import annotations

import numpy as np
import pytest

from assay.contracts import History
from assay.errors import InvalidSetting
from assay.strategies.smash import Smash
from tests.strategies.history import (
    BLOCKS,
    OPTIONS,
    chain,
    distance,
    failed,
    infeasible,
    point,
    scored,
)

FEW = {"random": 6, "around": 4}
RANDOM = [scored(i, float(i == 3)) for i in range(6)]
AROUND = [*RANDOM, *(scored(i, 5.0 + i) for i in range(6, 10))]


def ask(trials, n=1, seed=0, **settings):
    history = History(chain(), trials)
    return Smash(**(FEW | settings)).ask(history, n, rng=np.random.default_rng(seed))


def parents(trials, **settings):
    return {p.parent for p in ask(trials, 30, **settings)}


def test_it_begins_at_random():
    assert parents(RANDOM[:5]) == {None}
    assert parents([*RANDOM[:5], infeasible(5, 0.1), failed(6)]) == {None}  # neither counts


def test_then_it_stays_around_the_best_random_one_even_when_a_better_one_is_found():
    assert parents(RANDOM) == {3}
    assert parents(AROUND[:9]) == {3}


def test_then_it_climbs_from_the_best_so_far():
    assert parents(AROUND) == {9}
    assert parents([*AROUND, scored(10, 1.0)]) == {9}  # not better: not accepted
    assert parents([*AROUND, scored(10, 99.0)]) == {10}
    assert parents([*AROUND, scored(10, 14.0)]) == {9}  # equal: the older stays


def test_decisions_change_as_often_as_the_rate_says():
    """A redrawn decision changes with (m - 1) / m; when none did, exactly one is made to."""
    n, rate = 4000, 0.3
    changed = [distance(p.architecture, point(3)) for p in ask(RANDOM, n, rate=rate)]
    p = rate * (OPTIONS - 1) / OPTIONS
    mean = BLOCKS * p + (1 - p) ** BLOCKS
    assert min(changed) == 1
    assert np.mean(changed) == pytest.approx(mean, abs=4 * np.std(changed) / n**0.5)


@pytest.mark.parametrize("settings", [{"random": 0}, {"around": -1}, {"rate": 0.0}, {"rate": 1.5}])
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=next(iter(settings))):
        Smash(**settings)
