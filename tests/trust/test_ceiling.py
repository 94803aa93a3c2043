"""Against every two seeds, and a simulation that keeps the assumptions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.trust.ceiling import noise_ceiling


def named(values):
    return {f"a{i}": list(row) for i, row in enumerate(values)}


def simulated(rng, num, num_seeds, noise):
    true = rng.normal(size=num)
    return true, true[:, None] + noise * rng.normal(size=(num, num_seeds))


@pytest.mark.parametrize("num_seeds", [2, 3, 4])
def test_between_is_the_mean_over_every_two_seeds(num_seeds):
    values = derive(0, "splits", num_seeds).normal(size=(5, num_seeds))
    taus = [stats.kendalltau(*two)[0] for two in combinations(values.T, 2)]
    found = noise_ceiling(named(values), resamples=100)
    assert found.between.value == pytest.approx(np.mean(taus), abs=1e-12)
    assert found.num == 5


def test_a_pair_is_held_by_the_seeds_that_both_have():
    values = [[0.1, 0.7, 0.5], [0.4, 0.8], [0.3, 0.9, 0.0]]
    found = noise_ceiling(named(values), resamples=100)
    # Of the first and the second both seeds agree, of these and the third they do not, or in part.
    assert found.between.value == pytest.approx((1 - 1 - 1 / 3) / 3, abs=1e-12)


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_what_a_seed_adds_to_all_is_no_noise(num_seeds):
    _, values = simulated(derive(0, "shifted"), 12, num_seeds, 0.3)
    plain = noise_ceiling(named(values), resamples=100)
    shifted = noise_ceiling(named(values + 3.0 * np.arange(num_seeds)), resamples=100)
    assert shifted == plain


def test_tied_seeds_count_neither_above_nor_below():
    found = noise_ceiling({"a": [1, 1], "b": [1, 1], "c": [0, 0]}, resamples=100)
    assert found.between.value == 1.0
    same = noise_ceiling({"a": [1, 1], "b": [1, 1]}, resamples=100)
    assert same.between.reason == same.mean.reason == "all truths are equal"


@pytest.mark.parametrize(("num_seeds", "noise"), [(2, 0.5), (3, 1.0)])
def test_in_a_normal_model_the_ceiling_is_the_tau_of_the_true_means(num_seeds, noise):
    true, values = simulated(derive(0, "ceiling", noise), 500, num_seeds, noise)
    found = noise_ceiling(named(values), resamples=100)
    r = 1 / (1 + noise**2)
    assert found.between.value == pytest.approx(2 / np.pi * np.arcsin(r), abs=0.03)
    reached = stats.kendalltau(true, values.mean(1))[0]
    assert found.mean.value == pytest.approx(reached, abs=0.03)
    assert found.num_seeds == num_seeds


def test_the_interval_of_the_ceiling_covers_it():
    noise, trials, covered = 0.6, 200, 0
    r = 2 / (2 + noise**2)  # reliability of the mean of two
    for trial in range(trials):
        _, values = simulated(derive(trial, "ceiling covers"), 24, 2, noise)
        ceiling = noise_ceiling(named(values), seed=trial, resamples=200)
        covered += not ceiling.mean.excludes(2 / np.pi * np.arcsin(np.sqrt(r)))
    assert 0.91 <= covered / trials <= 0.98


def test_without_noise_there_is_no_ceiling_and_without_signal_nothing_above_it():
    clean = noise_ceiling(named([[i, i] for i in range(6)]), resamples=100)
    assert (clean.between.value, clean.mean.value) == (1.0, 1.0)
    opposite = noise_ceiling({"a": [0.0, 9.0], "b": [5.0, 4.0]}, resamples=100)
    assert opposite.between.value == -1.0
    assert opposite.mean.value == 0.0


def test_those_with_one_seed_count_in_the_number_of_seeds_only():
    _, values = simulated(derive(0, "single"), 10, 2, 0.5)
    some = named(values)
    more = {**some, "z": [0.3]}
    assert noise_ceiling(more).between == noise_ceiling(some).between
    assert noise_ceiling(more).num_seeds == pytest.approx(11 / 6)
    assert noise_ceiling(more).mean.value < noise_ceiling(some).mean.value


@pytest.mark.parametrize("truths", [{}, {"a": [1.0], "b": [2.0]}, {"a": [1.0, 2.0], "b": [2.0]}])
def test_one_seed_is_refused(truths):
    with pytest.raises(InvalidSetting, match="give --seeds 2"):
        noise_ceiling(truths)
