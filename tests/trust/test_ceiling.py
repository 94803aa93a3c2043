"""Against every split of the seeds, and a simulation that keeps the assumptions."""

from __future__ import annotations

from itertools import permutations, product

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


@pytest.mark.parametrize("nums", [(2, 2, 2, 2), (3, 3, 3), (3, 2, 2, 3)])
def test_between_is_the_mean_over_every_split_of_the_seeds(nums):
    rng = derive(0, "splits", nums)
    values = [rng.normal(size=num) for num in nums]
    taus = [
        stats.kendalltau(*zip(*split))[0]
        for split in product(*(list(permutations(seeds, 2)) for seeds in values))
    ]
    found = noise_ceiling(named(values), resamples=100)
    assert found.between.value == pytest.approx(np.mean(taus), abs=1e-12)
    assert found.num == len(nums)


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
