"""Intervals cover what they should, are paired, and follow from the seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.trust.bootstrap import draw_weights, interval, judge, leave_one_out
from assay.trust.correlation import STATISTICS

NONE_LEFT_OUT = np.empty(0)


def normal_pair(rng, num, r):
    truth = rng.normal(size=num)
    return truth, r * truth + np.sqrt(1 - r**2) * rng.normal(size=num)


@pytest.mark.parametrize(("num", "r"), [(12, 0.6), (40, 0.8)])
def test_a_95_percent_interval_covers_the_truth_as_often(num, r):
    """Of a normal pair tau is 2/π asin(r) and rho is 6/π asin(r/2)."""
    true = {"tau": 2 / np.pi * np.arcsin(r), "rho": 6 / np.pi * np.arcsin(r / 2)}
    rng, trials = derive(0, "coverage", num, r), 200
    covered = dict.fromkeys(true, 0)
    for trial in range(trials):
        truth, scores = normal_pair(rng, num, r)
        figures = judge(truth, {"a": scores}, seed=trial, resamples=150)["a"].figures
        for name, value in true.items():
            covered[name] += not figures[name].excludes(value)
    assert all(0.91 <= hits / trials <= 0.98 for hits in covered.values()), covered


def test_the_interval_is_scipys_bca():
    sample = derive(0, "bca").exponential(size=25)
    told = stats.bootstrap(
        (sample,), np.mean, n_resamples=500, method="BCa", rng=derive(1, "bca"), vectorized=True
    )
    left_out = (sample.sum() - sample) / 24
    found = interval(float(sample.mean()), told.bootstrap_distribution, left_out, num=25)
    expected = told.confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_without_a_jackknife_it_is_the_percentile_interval_and_holds_the_value():
    resampled = np.arange(1001.0)
    found = interval(500.0, resampled, NONE_LEFT_OUT, num=9)
    assert (found.low, found.high) == pytest.approx((25, 975))
    assert interval(3.0, resampled, NONE_LEFT_OUT, num=9).low == 3.0


def test_it_says_why_there_is_no_interval():
    resampled = np.arange(100.0)
    few = np.where(resampled < 11, np.nan, resampled)
    cases = {
        "4 architectures are too few": (resampled, 4),
        "undefined on more than a tenth": (few, 9),
        "the sample hides its doubt": (np.full(100, 0.5), 9),
    }
    for said, (values, num) in cases.items():
        found = interval(0.5, values, NONE_LEFT_OUT, num=num)
        assert (found.value, found.low) == (0.5, None)
        assert said in found.reason


def test_all_estimators_see_the_same_resamples_and_the_seed_tells_which():
    truth, scores = normal_pair(derive(0, "paired"), 20, 0.7)
    judged = judge(truth, {"a": scores, "b": 5 * scores - 3, "c": -scores}, resamples=100)
    assert judged["a"].figures == judged["b"].figures
    np.testing.assert_array_equal(judged["a"].tau, judged["b"].tau)
    np.testing.assert_allclose(judged["a"].tau, -judged["c"].tau, atol=1e-12)
    again = judge(truth, {"a": scores}, resamples=100)["a"]
    other = judge(truth, {"a": scores}, seed=1, resamples=100)["a"]
    assert again.figures == judged["a"].figures
    assert other.figures["tau"] != judged["a"].figures["tau"]


def test_weights_are_resamples_then_the_sample_less_one_each():
    weights = draw_weights(7, seed=0, resamples=100)
    assert (weights.sum(1) == 7).all()
    plan = leave_one_out(weights)
    assert plan.shape == (108, 7)
    assert (plan[0] == 1).all()
    assert (plan[-7:].sum(1) == 6).all()


@pytest.mark.parametrize("num", [0, 1])
def test_too_few_truths_have_reasons(num):
    judged = judge(np.zeros(num), {"a": np.zeros(num)})["a"]
    assert {figure.value for figure in judged.figures.values()} == {None}
    assert list(judged.figures) == list(STATISTICS)
    assert len(judged.tau) == 0


def test_a_handful_of_resamples_is_refused():
    with pytest.raises(InvalidSetting, match="10 resamples tell no interval; take 100 or more"):
        judge(np.arange(9.0), {"a": np.arange(9.0)}, resamples=10)
