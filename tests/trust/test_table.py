"""A row for each estimator, the same figures as the statistics give, and JSON that holds them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from assay.cost import derive
from assay.errors import InvalidSetting, NotFinite
from assay.trust.correlation import STATISTICS, point
from assay.trust.table import Price, Table

NUM = 30
COSTS = {
    "params": Price(0.0, 0.0),
    "macs": Price(0.0, 0.001),
    "fused": Price(60.0, 0.5),
    "one-shot": Price(600.0, 0.1),
}


def sample(seed=0, num=NUM):
    """Truths of two seeds each; scores that are less and less noisy."""
    rng = derive(seed, "table")
    worth = rng.normal(size=num)
    truths = {f"a{i}": [w + 0.1 * rng.normal() for _ in "12"] for i, w in enumerate(worth)}
    noises = {"params": 3.0, "macs": 2.0, "one-shot": 1.5, "fused": 0.2}
    scores = {
        name: {key: float(w + noise * rng.normal()) for key, w in zip(truths, worth)}
        for name, noise in noises.items()
    }
    return truths, scores


def made(**settings):
    return Table.make(*sample(), COSTS, **{"resamples": 100, **settings})


def row(table, name):
    return next(row for row in table.rows if row.estimator == name)


def test_a_row_says_what_the_statistics_say_of_the_mean_truth():
    truths, scores = sample()
    table = made(claims={"fused": "as good as training"}, train_s=90.0)
    truth = [sum(values) / 2 for values in truths.values()]
    for name, given in scores.items():
        for figure in STATISTICS:
            told = getattr(row(table, name), figure)
            expected = point(figure, truth, list(given.values())).value
            assert told.value == pytest.approx(expected, abs=1e-12)
            if told.low is not None:  # a regret of 0 may be 0 on every resample
                assert told.low <= told.value <= told.high
    fused = row(table, "fused")
    assert fused.thousand_s == 560.0
    assert fused.speedup == pytest.approx(1000 * 90 / 560)
    assert fused.claim == "as good as training"
    kinds = {**COSTS, "one-shot": Price(600.0, 0.1, "fused"), "fused": Price(60.0, 0.5, "")}
    claims = {"fused": "as good as training"}
    named = Table.make(truths, scores, kinds, claims=claims, resamples=100)
    assert {r.estimator: r.claim for r in named.rows if r.claim} == {"one-shot": claims["fused"]}
    assert row(table, "params").speedup is None  # it took no time
    assert made().rows[0].speedup is None  # nothing was trained
    assert [r.baseline for r in table.rows] == [
        r.estimator in {"params", "macs"} for r in table.rows
    ]


def test_rows_fall_by_tau_and_every_two_are_compared():
    table = made()
    taus = [r.tau.value for r in table.rows]
    assert taus == sorted(taus, reverse=True)
    assert table.rows[0].estimator == "fused"
    assert len(table.pairs) == 6
    assert all(gap.tau.value >= 0 for gap in table.pairs)
    bar = next(r.estimator for r in table.rows if r.baseline)
    assert {(gap.one, gap.other) for gap in table.against_baseline} == {
        ("fused", bar),
        ("one-shot", bar),
    }
    assert table.ceiling.num == NUM


def test_with_one_seed_there_is_no_ceiling():
    truths, scores = sample()
    single = {key: values[:1] for key, values in truths.items()}
    assert Table.make(single, scores, COSTS, resamples=100).ceiling is None


def test_failures_rank_last_and_are_counted():
    truths, scores = sample()
    best = max(truths, key=lambda key: sum(truths[key]))
    before = row(Table.make(truths, scores, COSTS, resamples=100), "fused")
    scores["fused"][best] = None
    after = row(Table.make(truths, scores, COSTS, resamples=100), "fused")
    assert (before.num_failed, after.num_failed) == (0, 1)
    assert after.tau.value < before.tau.value
    assert after.regret_1.value > 0


def test_one_that_scores_nothing_comes_last_with_its_reason():
    truths, scores = sample()
    scores["fused"] = dict.fromkeys(truths)
    table = Table.make(truths, scores, COSTS, resamples=100)
    assert table.rows[-1].estimator == "fused"
    assert table.rows[-1].num_failed == NUM
    assert {getattr(table.rows[-1], f).reason for f in STATISTICS} == {"it scored no architecture"}
    assert all("fused" not in (gap.one, gap.other) for gap in table.pairs)


@pytest.mark.parametrize(("num", "reason"), [(0, "0 truths"), (1, "1 truths"), (5, "all truths")])
def test_a_sample_that_ranks_nothing_says_so_in_every_cell(num, reason):
    truths = {f"a{i}": [0.5] for i in range(num)}
    scores = {name: {key: float(i) for i, key in enumerate(truths)} for name in COSTS}
    table = Table.make(truths, scores, COSTS, resamples=100)
    assert (table.pairs, table.against_baseline, table.cheapest()) == ((), (), None)
    assert all(reason in getattr(r, f).reason for r in table.rows for f in STATISTICS)
    assert Table.from_json(table.to_json()) == table


def test_json_holds_the_table_and_no_nan():
    table = made(train_s=10.0)
    text = table.to_json()
    assert Table.from_json(text) == table
    told = json.loads(text, parse_constant=pytest.fail)
    assert set(told["rows"][0]["tau"]) == {"value", "low", "high", "reason"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": 1}', '{"num": 1, "rows": [{"tau": {"value": NaN}}]}', "[1"]
)
def test_other_json_is_refused(text):
    with pytest.raises(InvalidSetting, match=r"no table of an audit .* Table\.to_json"):
        Table.from_json(text)


def test_the_same_seed_gives_the_same_table():
    assert made() == made()
    assert made(seed=1) != made()


def test_the_cheapest_is_sought_among_those_that_may_be_as_good_as_the_best():
    table = made()
    apart = {g.other for g in table.pairs if g.one == "fused" and g.tau.excludes(0.0)}
    assert apart == {"params", "macs", "one-shot"}
    assert table.cheapest() == table.best() == row(table, "fused")
    rest = [r for r in table.rows if r.estimator in {"params", "macs"}]
    assert table.best(559.0) == rest[0]  # what is left
    assert table.cheapest(559.0) in rest
    closer = tuple(
        replace(g, tau=replace(g.tau, low=-0.1)) if g.other == "macs" else g for g in table.pairs
    )
    assert replace(table, pairs=closer).cheapest().estimator == "macs"
    assert table.best(-1.0) is table.cheapest(-1.0) is None
    # Of two that take no time the one that ranks better, though the other takes less of it.
    free = tuple(
        replace(
            r, prepare_s=0.0, each_s={"params": 1e-6, "macs": 2e-6}[r.estimator],
            tau=replace(r.tau, low=0.1),
        )
        for r in rest
    )  # fmt: skip
    assert replace(table, rows=free, pairs=()).cheapest() == free[0]
    assert replace(table, rows=free[::-1], pairs=()).cheapest() == free[1]


def test_what_may_rank_by_chance_is_no_stand_in_for_what_does_not():
    table = made()
    near = tuple(replace(g, tau=replace(g.tau, low=-0.1)) for g in table.pairs)
    assert replace(table, pairs=near).cheapest().estimator in {"params", "macs"}
    rows = tuple(
        replace(r, tau=replace(r.tau, low=-0.1)) if r.estimator in {"params", "macs"} else r
        for r in table.rows
    )
    assert replace(table, pairs=near, rows=rows).cheapest().ranks
    # Where none is shown to rank, the cheapest is, as ever, the cheapest.
    rows = tuple(replace(r, tau=replace(r.tau, low=-0.1)) for r in table.rows)
    assert replace(table, pairs=near, rows=rows).cheapest().estimator in {"params", "macs"}


def test_one_that_scores_hardly_any_is_no_stand_in_for_the_best():
    worth = derive(0, "hardly any").normal(size=40)
    truths = {f"a{i}": [w] for i, w in enumerate(worth)}
    scores = {
        "macs": {key: float(i < 2) for i, key in enumerate(truths)},  # nearly all are tied
        "good": {key: w + 0.1 * i % 1 for i, (key, (w,)) in enumerate(truths.items())},
        "free": {key: float(i) if i < 2 else None for i, key in enumerate(truths)},
    }
    scores["twin"] = {key: 2 * score for key, score in scores["good"].items()}
    costs = {"macs": Price(0, 0), "free": Price(0, 0), "good": Price(60, 1), "twin": Price(9, 1)}
    table = Table.make(truths, scores, costs, baselines=["macs"], resamples=100)
    assert table.cheapest().estimator == "twin"  # which ranks like the best
    rows = tuple(r for r in table.rows if r.estimator != "twin")
    assert replace(table, rows=rows).cheapest().estimator == "good"
    # Nothing is told of any: none is shown to be worse.
    few = {key: truths[key] for key in list(truths)[:4]}
    assert Table.make(few, scores, costs, baselines=["macs"]).cheapest().thousand_s == 0.0


def given(**changes):
    truths, scores = sample(num=6)
    return {"truths": truths, "scores": scores, "costs": dict(COSTS), **changes}


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda g: g["truths"].update(a0=[]), InvalidSetting, "'a0' has no truth; leave it out"),
        (lambda g: g["truths"].update(a0=[math.nan]), NotFinite, "leave out what diverged"),
        (lambda g: g["scores"].pop("macs"), InvalidSetting, "no scores of the baseline 'macs'"),
        (lambda g: g["costs"].pop("fused"), InvalidSetting, "'fused' has scores but no costs"),
        (
            lambda g: g["scores"]["fused"].pop("a2"),
            InvalidSetting,
            "says nothing of 'a2'; give None",
        ),
        (
            lambda g: g["scores"]["fused"].update(a2=math.nan),
            NotFinite,
            "'fused' scores 'a2' nan; give None if it failed",
        ),
    ],
)
def test_what_is_wrong_is_named(spoil, error, said):
    parts = given()
    spoil(parts)
    with pytest.raises(error, match=said):
        Table.make(**parts)


def test_scores_of_architectures_without_a_truth_are_passed_over():
    parts = given()
    more = {name: {**scores, "z": 99.0} for name, scores in parts["scores"].items()}
    assert Table.make(**{**parts, "scores": more}) == Table.make(**parts)


def test_numpy_numbers_are_as_good_as_any():
    parts = given()
    truths = {key: np.array(values) for key, values in parts["truths"].items()}
    assert Table.make(**{**parts, "truths": truths}) == Table.make(**parts)


def test_means_that_are_equal_are_ties_whatever_their_seeds():
    pairs = {"a": [0.9825, 0.9895], "b": [0.986, 0.986], "c": [0.1, 0.2], "d": [0.15, 0.15]}
    scores = {"macs": {"a": 1.0, "b": 2.0, "c": 0.0, "d": 3.0}}
    table = Table.make(pairs, scores, {"macs": Price(0.0, 0.0)}, baselines=("macs",))
    # a ties with b, c with d: of the four pairs left two agree and two do not.
    assert table.rows[0].tau.value == 0.0
    assert table.rows[0].regret_5.value == 0.0
