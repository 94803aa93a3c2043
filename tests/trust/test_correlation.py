"""Against scipy, closed forms, and every way to break a tie."""

from __future__ import annotations

from itertools import combinations, groupby, permutations, product

import numpy as np
import pytest
from scipy import stats

from assay.cost import derive
from assay.errors import NotFinite
from assay.trust.correlation import (
    STATISTICS,
    Pair,
    kendall,
    point,
    precision,
    regret,
    spearman,
    top_half,
)

FAILED = -np.inf


def ones(num):
    return np.ones((1, num))


def tied(rng, num, levels):
    return rng.integers(0, levels, num).astype(float)


def orders(values):
    """Every way to put indices best first, ties broken."""
    best_first = sorted(range(len(values)), key=lambda i: -values[i])
    groups = [list(g) for _, g in groupby(best_first, key=lambda i: values[i])]
    for parts in product(*map(permutations, groups)):
        yield [i for part in parts for i in part]


# --- one sample -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [2, 3, 8, 50])
@pytest.mark.parametrize("levels", [3, 1000])
def test_tau_and_rho_are_scipys(num, levels):
    rng = derive(0, "correlation", num, levels)
    for _ in range(20):
        truth, scores = tied(rng, num, levels), tied(rng, num, levels)
        if np.ptp(truth) == 0 or np.ptp(scores) == 0:
            continue
        tau, rho = stats.kendalltau(truth, scores)[0], stats.spearmanr(truth, scores)[0]
        assert point("tau", truth, scores).value == pytest.approx(tau, abs=1e-12)
        assert point("rho", truth, scores).value == pytest.approx(rho, abs=1e-12)


@pytest.mark.parametrize("num", [9, 10, 31])
def test_the_top_half_is_the_better_half_with_its_ties(num):
    rng = derive(0, "top half", num)
    for _ in range(20):
        truth, scores = tied(rng, num, 12), tied(rng, num, 12)
        border = sorted(truth, reverse=True)[(num + 1) // 2 - 1]
        best = truth >= border
        expected = stats.kendalltau(truth[best], scores[best])[0]
        assert point("tau_top", truth, scores).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num", [7, 12])
def test_precision_is_the_mean_over_every_way_to_break_ties(num):
    rng = derive(0, "precision", num)
    tenth = -(-num // 10)
    for _ in range(10):
        truth, scores = tied(rng, num, 6), tied(rng, num, 6)
        truth[:3], scores[2:5] = truth.max(), scores.max()  # ties at both borders
        tops = [[set(o[:tenth]) for o in orders(v)] for v in (truth, scores)]
        if len(tops[0]) * len(tops[1]) > 200_000:
            continue
        expected = np.mean([len(a & b) / tenth for a, b in product(*tops)])
        assert point("precision_10", truth, scores).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("picks", [1, 2, 3, 5])
def test_regret_is_the_mean_over_every_way_to_break_ties(picks):
    rng = derive(0, "regret", picks)
    for _ in range(20):
        truth, scores = rng.integers(0, 40, 7) / 4, tied(rng, 7, 3)
        lost = [truth.max() - max(truth[i] for i in order[:picks]) for order in orders(scores)]
        found = regret(Pair.of(truth, scores), ones(7), picks=picks)
        assert found[0] == pytest.approx(np.mean(lost), abs=1e-12)


def test_five_picks_of_three_are_all():
    assert point("regret_5", [1, 2, 3], [3, 2, 1]).value == 0.0


def test_a_perfect_and_a_reversed_order():
    truth = np.arange(40) / 2
    assert [point(n, truth, np.exp(truth)).value for n in STATISTICS] == [1, 1, 1, 1, 0, 0]
    reverse = [point(n, truth, -truth).value for n in STATISTICS]
    assert reverse == pytest.approx([-1, -1, -1, 0, 19.5, 17.5], abs=1e-12)


def test_equal_scores_pick_at_random():
    truth, same = np.array([1.0, 2.0, 4.0, 9.0]), np.zeros(4)
    assert point("precision_10", truth, same).value == 1 / 4
    assert point("regret_1", truth, same).value == pytest.approx(9 - truth.mean())


def test_a_failure_ranks_last():
    truth, scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([5.0, FAILED, 3.0, FAILED, 1.0])
    last = np.where(np.isneginf(scores), -1e6, scores)
    for name in STATISTICS:
        assert point(name, truth, scores).value == point(name, truth, last).value
    assert point("tau", truth, scores).value == pytest.approx(
        stats.kendalltau(truth, [5, 0, 3, 0, 1])[0]
    )


@pytest.mark.parametrize(
    ("truth", "scores", "said", "names"),
    [
        ([], [], "0 truths cannot be ranked", list(STATISTICS)),
        ([1.0], [1.0], "1 truths cannot be ranked", list(STATISTICS)),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "all truths are equal", list(STATISTICS)),
        ([1.0, 2.0], [FAILED, FAILED], "it scored no architecture", list(STATISTICS)),
        ([1.0, 2.0], [7.0, 7.0], "all scores are equal", ["tau", "rho", "tau_top"]),
        ([1.0, 2.0, 2.0], [1.0, 2.0, 3.0], "all truths in the top half are equal", ["tau_top"]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 2.0], "all scores in the top half are equal", ["tau_top"]),
    ],
)
def test_what_is_undefined_says_why(truth, scores, said, names):
    for name in STATISTICS:
        figure = point(name, truth, scores)
        assert (said in figure.reason) == (name in names)
        assert (figure.value is None) == (name in names)


# --- weights --------------------------------------------------------------------------------------


def test_pairs_are_made_of_different_architectures():
    """Tau-b over all pairs of copies, those of one and the same architecture left out."""
    rng = derive(0, "weights")
    truth, scores, weights = tied(rng, 8, 5), tied(rng, 8, 5), rng.integers(0, 4, (6, 8)) * 1.0
    taus = kendall(Pair.of(truth, scores), weights)
    for w, tau in zip(weights, taus):
        copies = [i for i, n in enumerate(w) for _ in range(int(n))]
        pairs = [(i, j) for i, j in combinations(copies, 2) if i != j]
        a = np.array([np.sign(truth[i] - truth[j]) for i, j in pairs])
        b = np.array([np.sign(scores[i] - scores[j]) for i, j in pairs])
        assert tau == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


def test_rho_of_weights_is_that_of_mid_ranks():
    rng = derive(1, "weights")
    truth, scores, weights = rng.normal(size=9), tied(rng, 9, 5), rng.integers(0, 4, (6, 9))
    for w, rho in zip(weights, spearman(Pair.of(truth, scores), weights * 1.0)):
        expected = stats.spearmanr(np.repeat(truth, w), np.repeat(scores, w))[0]
        assert rho == pytest.approx(expected, abs=1e-12)


def test_copies_do_not_tie():
    """A perfect order is perfect in every resample, and its copies are found together."""
    rng = derive(2, "weights")
    truth = rng.normal(size=24)
    weights = rng.multinomial(24, np.full(24, 1 / 24), size=200) * 1.0
    pair = Pair.of(truth, 3 * truth)
    for statistic in (kendall, spearman, top_half, precision):
        np.testing.assert_allclose(statistic(pair, weights), 1.0, atol=1e-12)
    for picks in (1, 5):
        np.testing.assert_allclose(regret(pair, weights, picks=picks), 0.0, atol=1e-12)


def test_precision_counts_copies_where_nothing_ties():
    rng = derive(3, "weights")
    truth, scores = rng.permutation(12) * 1.0, rng.permutation(12) * 1.0
    weights = rng.multinomial(24, np.full(12, 1 / 12), size=50)
    for w, found in zip(weights, precision(Pair.of(truth, scores), weights * 1.0)):
        tops = []
        for values in (truth, scores):
            copies = [(i, c) for i in np.argsort(-values) for c in range(w[i])]
            tops.append(set(copies[:3]))
        assert found == pytest.approx(len(tops[0] & tops[1]) / 3, abs=1e-12)


@pytest.mark.parametrize("picks", [1, 3])
def test_regret_counts_each_architecture_once(picks):
    rng = derive(4, "weights")
    truth, scores, weights = tied(rng, 9, 6), tied(rng, 9, 4), rng.integers(0, 3, (20, 9))
    found = regret(Pair.of(truth, scores), weights * 1.0, picks=picks)
    for w, lost in zip(weights, found):
        there = w > 0
        alone = Pair.of(truth[there], scores[there])
        expected = regret(alone, ones(there.sum()), picks=picks)[0]
        assert lost == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("truth", "scores", "message"), [
    ([1.0, np.nan], [1.0, 2.0], "truths must be finite"),
    ([1.0, -np.inf], [1.0, 2.0], "truths must be finite"),
    ([1.0, 2.0], [np.nan, 1.0], "put -inf where there is none"),
    ([1.0, 2.0], [np.inf, 1.0], "put -inf where there is none"),
])  # fmt: skip
def test_what_has_no_rank_is_refused(truth, scores, message):
    with pytest.raises(NotFinite, match=message):
        Pair.of(truth, scores)


def test_a_resample_without_two_truths_is_nan():
    weights = np.array([[3.0, 0.0, 0.0]])
    pair = Pair.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert all(np.isnan(statistic(pair, weights)).all() for statistic in STATISTICS.values())
