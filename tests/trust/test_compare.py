"""Differences are paired, corrected, and real no oftener than they may be by chance."""

from __future__ import annotations

import numpy as np
import pytest

from assay.cost import derive
from assay.trust.bootstrap import judge
from assay.trust.compare import compare, holm


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.01], [0.02, 0.02]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),  # never below a smaller one
        ([0.9, 0.6], [1.0, 1.0]),
    ],
)
def test_holms_table(ps, corrected):
    assert holm(ps) == pytest.approx(corrected)


def noisy(rng, truth, *, own, shared=0.0):
    common = shared * rng.normal(size=len(truth))
    return {name: truth + common + own * rng.normal(size=len(truth)) for name in "ab"}


@pytest.mark.parametrize("num", [8, 30])
def test_equal_estimators_are_rarely_told_apart(num):
    found, trials = 0, 120
    for trial in range(trials):
        rng = derive(trial, "equal", num)
        truth = rng.normal(size=num)
        judged = judge(truth, noisy(rng, truth, own=0.7, shared=0.5), seed=trial, resamples=100)
        found += compare(judged, [("a", "b")])[0].real
    assert found / trials <= 0.05


def test_a_clear_difference_is_real_and_its_interval_says_so():
    rng = derive(0, "clear")
    truth = rng.normal(size=60)
    scores = {"good": truth + 0.2 * rng.normal(size=60), "poor": truth + 2 * rng.normal(size=60)}
    judged = judge(truth, scores)
    gap, back = compare(judged, [("good", "poor"), ("poor", "good")])
    taus = [judged[name].figures["tau"].value for name in scores]
    assert gap.tau.value == pytest.approx(taus[0] - taus[1])
    assert gap.real
    assert gap.tau.low > 0
    assert (back.tau.low, back.tau.high) == pytest.approx((-gap.tau.high, -gap.tau.low))
    assert back.p == pytest.approx(gap.p)


def test_what_is_hard_for_both_falls_out_of_their_difference():
    truth = derive(0, "shared").normal(size=50)
    widths = {}
    for shared in (0.0, 1.0):
        rng = derive(1, "shared")
        own = 1.0 if shared == 0 else 0.1
        judged = judge(truth, noisy(rng, truth, own=own, shared=shared))
        tau = compare(judged, [("a", "b")])[0].tau
        single = judged["a"].figures["tau"]
        widths[shared] = (tau.high - tau.low) / (single.high - single.low)
    assert widths[1.0] < 0.5 < 1.0 < widths[0.0]


def test_the_interval_excludes_0_exactly_where_p_is_below_5_percent():
    seen = set()
    for trial in range(20):
        rng = derive(trial, "coherent")
        truth = rng.normal(size=20)
        scores = {"a": truth + 0.5 * rng.normal(size=20), "b": truth + 1.2 * rng.normal(size=20)}
        gap = compare(judge(truth, scores, resamples=100), [("a", "b")])[0]
        assert gap.tau.excludes(0.0) == (gap.p < 0.05) == gap.real
        seen.add(gap.real)
    assert seen == {True, False}


def test_more_comparisons_make_each_harder():
    rng = derive(0, "many")
    truth = rng.normal(size=25)
    scores = {str(i): truth + (0.4 + i / 5) * rng.normal(size=25) for i in range(6)}
    judged = judge(truth, scores, resamples=100)
    pairs = [("0", str(i)) for i in range(1, 6)]
    together = compare(judged, pairs)
    for pair, gap in zip(pairs, together):
        alone = compare(judged, [pair])[0]
        assert (alone.tau, alone.p, alone.p_holm) == (gap.tau, gap.p, gap.p)
        assert gap.p_holm >= alone.p_holm
    assert [gap.p_holm for gap in together] == holm([gap.p for gap in together])


def test_no_difference_is_made_of_a_sample_that_cannot_tell():
    truth = np.arange(6.0)
    judged = judge(truth, {"a": truth, "b": 2 * truth, "c": -truth}, resamples=100)
    alike, opposite = compare(judged, [("a", "b"), ("a", "c")])
    assert (alike.tau.value, alike.tau.reason) == (0.0, "they rank alike")
    assert (opposite.tau.value, opposite.p, opposite.real) == (2.0, None, False)
    assert "hides its doubt" in opposite.tau.reason
    one = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # a third of the resamples lack the only other
    judged = judge(one, {"a": truth, "b": np.array([0.0, 1, 2, 5, 4, 3])}, resamples=100)
    assert "a tenth of the resamples" in compare(judged, [("a", "b")])[0].tau.reason
    few = judge(truth[:4], {"a": truth[:4], "b": np.array([0.0, 2.0, 1.0, 3.0])}, resamples=100)
    assert "4 architectures are too few" in compare(few, [("a", "b")])[0].tau.reason
