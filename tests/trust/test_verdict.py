"""The words follow the intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.cost import derive
from assay.trust.ceiling import Ceiling
from assay.trust.compare import Difference
from assay.trust.gain import Gain
from assay.trust.interval import Interval
from assay.trust.table import Price, Row, Table
from assay.trust.verdict import verdict

NONE = Interval(reason="not asked here")


def row(name, tau, thousand_s, *, baseline=False, failed=0):
    told = tau if isinstance(tau, Interval) else Interval(tau, tau - 0.05, tau + 0.05)
    return Row(name, baseline, thousand_s, 0.0, failed, told, NONE, NONE, NONE, NONE, NONE)


def gap(one, other, value, reach, p_holm=None):
    real = abs(value) > reach and p_holm is None
    ends = Interval(value, value - reach, value + reach)
    return Difference(one, other, ends, 0.5, p_holm or (0.001 if real else 0.5), real)


MACS = row("macs", 0.60, 1, baseline=True)
ONE_SHOT = row("one-shot", 0.63, 1200)
FUSED = row("fused", 0.75, 480)
SCRATCH = row("scratch", 0.90, 90_000)
PAIRS = (
    gap("scratch", "fused", 0.15, 0.10),
    gap("scratch", "one-shot", 0.27, 0.10),
    gap("scratch", "macs", 0.30, 0.10),
    gap("fused", "one-shot", 0.12, 0.14),
    gap("fused", "macs", 0.15, 0.07),
    gap("one-shot", "macs", 0.03, 0.14),
)
TABLE = Table(40, (SCRATCH, FUSED, ONE_SHOT, MACS), PAIRS, (PAIRS[2], PAIRS[4], PAIRS[5]), None)


def test_a_budget_gets_an_estimator_and_each_is_held_against_the_baseline():
    assert verdict(TABLE) == [
        "Under 1 hour use fused (tau 0.75, 0.70 to 0.80; 1,000 architectures in 8 minutes); "
        "with more time use scratch (tau 0.90, 0.85 to 0.95; 1,000 architectures in 25 hours).",
        "Better than counting MACs here (difference in tau): scratch 0.30, 0.20 to 0.40; "
        "fused 0.15, 0.08 to 0.22.",
        "Not better than counting MACs here (difference in tau): one-shot 0.03, -0.11 to 0.17.",
    ]


def test_budgets_are_the_callers():
    first = verdict(TABLE, budgets_s=(0.5, 60, 480))[0]
    assert first.startswith("Under 0.5 seconds none scores 1,000 architectures; under 1 minute use")
    assert "; under 8 minutes use fused" in first


def test_a_cheaper_one_that_may_be_as_good_is_named_with_what_it_may_equal():
    near = tuple(gap(g.one, g.other, 0.1, 0.2) for g in PAIRS)
    first = verdict(replace(TABLE, pairs=near))[0]
    assert first == (
        "Whatever the budget use macs, the cheapest not shown to be worse than scratch "
        "(tau 0.60, 0.55 to 0.65; 1,000 architectures in 1 second)."
    )


def test_within_a_budget_only_what_is_shown_to_rank_is_advised():
    chance, against = row("macs", 0.02, 1, baseline=True), row("macs", -0.4, 1, baseline=True)
    for counting in (chance, against):
        said = verdict(replace(TABLE, rows=(SCRATCH, counting)))[0]
        assert said == (
            "Under 1 hour none is shown to beat chance; with more time use scratch "
            "(tau 0.90, 0.85 to 0.95; 1,000 architectures in 25 hours)."
        )
    said = verdict(replace(TABLE, rows=(SCRATCH, ONE_SHOT, chance)), budgets_s=(0.5, 600, 3600))[0]
    assert said.startswith(
        "Under 0.5 seconds none scores 1,000 architectures; under 10 minutes none is shown to beat "
        "chance; under 1 hour use one-shot (tau 0.63"
    )


def test_one_for_all_budgets_is_said_once():
    rows = (replace(FUSED, prepare_s=0.0), ONE_SHOT, MACS)
    pairs = tuple(g for g in PAIRS if g.one != "scratch")
    said = verdict(Table(40, rows, pairs, pairs[1:], None))
    assert said[0].startswith("Whatever the budget use fused (tau 0.75")


def test_what_correction_takes_away_is_not_called_better():
    doubtful = gap("one-shot", "macs", 0.15, 0.14, p_holm=0.07)
    said = verdict(replace(TABLE, against_baseline=(PAIRS[4], doubtful)))
    assert said[-1] == (
        "Not better than counting MACs here (difference in tau): one-shot 0.15, 0.01 to 0.29, "
        "which does not outlast Holm's correction (p 0.07)."
    )


def test_worse_is_called_worse_and_what_cannot_be_told_is_said():
    worse = gap("one-shot", "params", -0.3, 0.1)
    alike = Difference("zen", "depth", Interval(0.0, reason="they rank alike"), None, None, False)
    said = verdict(replace(TABLE, against_baseline=(worse, alike)))
    assert said[1:] == [
        "Worse than counting parameters here (difference in tau): one-shot -0.30, -0.40 to -0.20.",
        "Not to be told from depth here (difference in tau): zen 0.00, no interval: they rank "
        "alike.",
    ]


def test_where_trainings_are_not_shown_to_agree_none_is_advised():
    noise = Ceiling(40, 2.0, Interval(0.04, -0.19, 0.31), Interval(0.23, 0.0, 0.59))
    near = tuple(gap(g.one, g.other, 0.1, 0.2) for g in PAIRS)
    said = verdict(Table(40, TABLE.rows, near, near[3:], noise))
    assert said == [
        "No estimator can be advised: trainings of the same architectures are not shown to agree "
        "(tau 0.04, -0.19 to 0.31), so these truths are mostly noise; train them longer, over more "
        "seeds, or judge them on more validation samples.",
        "Two trainings of the same architectures agree at tau 0.04, -0.19 to 0.31; against truths "
        "of 2 seeds nothing can be expected above 0.23, 0.00 to 0.59.",
    ]
    # What differs in spite of the noise is told.
    assert verdict(replace(TABLE, ceiling=noise))[0].startswith("Under 1 hour use fused")


def test_where_nothing_can_be_told_refusals_are():
    lost = row("macs", Interval(reason="all truths are equal"), 1, baseline=True)
    said = verdict(Table(3, (lost,), (), (), None), refused={"hypernet": "it has no weights"})
    assert said == [
        "Nothing can be told: all truths are equal.",
        "hypernet refused: it has no weights.",
    ]


def test_noise_and_failures_are_said():
    ceiling = Ceiling(40, 2.0, Interval(0.8, 0.7, 0.9), Interval(0.871, 0.8, 0.9))
    failing = replace(ONE_SHOT, num_failed=3)
    lost = row("snip", Interval(reason="all scores are equal"), 2)
    rows = (SCRATCH, FUSED, failing, MACS, lost)
    assert verdict(replace(TABLE, rows=rows, ceiling=ceiling))[-3:] == [
        "Two trainings of the same architectures agree at tau 0.80, 0.70 to 0.90; against truths "
        "of 2 seeds nothing can be expected above 0.87, 0.80 to 0.90.",
        "one-shot failed on 3 of 40 architectures; they count against it.",
        "snip has no tau: all scores are equal.",
    ]


def test_a_tiny_sample_tells_nothing_apart():
    rng = derive(0, "tiny")
    worth = rng.normal(size=8)
    truths = {f"a{i}": [w] for i, w in enumerate(worth)}
    scores = {
        name: {key: float(w + noise * rng.normal()) for key, w in zip(truths, worth)}
        for name, noise in {"macs": 1.0, "one-shot": 0.8, "fused": 0.6}.items()
    }
    costs = {"macs": Price(0, 0.001), "one-shot": Price(300, 0.1), "fused": Price(200, 1.0)}
    said = verdict(Table.make(truths, scores, costs, baselines=["macs"]))
    assert said[0] == "8 architectures are too few to tell any of them apart."
    assert said[1].startswith("Whatever the budget use macs")
    assert len(said) == 2
    assert not any("etter" in sentence for sentence in said)


def test_what_ranks_alike_is_not_said_to_need_more_architectures():
    worth = derive(0, "alike").normal(size=30)
    truths = {f"a{i}": [w] for i, w in enumerate(worth)}
    macs = {key: float(i) for i, key in enumerate(truths)}
    scores = {"macs": macs, "zen": {key: 2 * value for key, value in macs.items()}}
    costs = dict.fromkeys(scores, Price(0, 0.001))
    said = verdict(Table.make(truths, scores, costs, baselines=["macs"], resamples=100))
    assert said[0] == "All of them rank these architectures alike."
    assert len(said) == 2


def test_no_estimator_is_advised_where_all_may_rank_by_chance():
    doubtful = (
        row("one-shot", Interval(0.2, -0.1, 0.5), 1200),
        row("macs", -0.1, 1, baseline=True),
    )
    pairs = (gap("one-shot", "macs", 0.3, 0.4),)
    said = verdict(Table(6, doubtful, pairs, pairs, None))
    assert said == [
        "6 architectures are too few to tell any of them apart.",
        "No estimator can be advised: none is shown to rank these architectures better than "
        "chance.",
    ]


def gain(by, value, more=0.0, *, real=False, trainings=4):
    ends = Interval(value, value - 0.002, value + 0.002)
    over = Interval(more, more - 0.0011, more + 0.0011) if by else NONE
    return Gain(by, trainings, 96.0, 10, 4, ends, over, 0.01 if by else None, real)


def test_what_a_search_gains_is_told_of_the_longest_time():
    short = [gain("", 0.008, trainings=2), gain("fused", 0.02, 0.012, real=True, trainings=2)]
    by_chance = "In the time of 4 trainings (1.6 minutes) training 4 random architectures and "
    by_chance += "keeping the best gains 0.012, 0.01 to 0.014 over a random one"
    longest = [gain("", 0.012), gain("fused", 0.013, 0.001), gain("macs", 0.012)]
    said = verdict(TABLE, gained=[*short, *longest])
    assert said[1] == f"{by_chance}; by no estimator more is shown to be gained."
    longest = [
        gain("", 0.012), gain("fused", 0.015, 0.003, real=True),
        gain("macs", 0.014, 0.002, real=True), gain("one-shot", 0.009, -0.003, real=True),
    ]  # fmt: skip
    assert verdict(TABLE, gained=longest)[1] == (
        f"{by_chance}; more is gained by fused (0.003, 0.0019 to 0.0041), by macs (0.002, 0.0009 "
        "to 0.0031); less is gained by one-shot (-0.003, -0.0041 to -0.0019)."
    )
    nothing = verdict(TABLE, gained=[gain("", 0.001)])[1]
    assert nothing.endswith("gains 0.001, -0.001 to 0.003 over a random one, which may be nothing.")


@pytest.mark.parametrize("num", [1, 4])
def test_no_tau_at_all(num):
    truths = {f"a{i}": [0.5] for i in range(num)}
    scores = {"macs": {key: float(i) for i, key in enumerate(truths)}}
    said = verdict(Table.make(truths, scores, {"macs": Price(0, 0)}, baselines=["macs"]))
    reason = "1 truths cannot be ranked; it takes 2" if num == 1 else "all truths are equal"
    assert said == [f"Nothing can be told: {reason}."]


def test_noise_is_seldom_called_better():
    """Of 60 audits in which four estimators are as good as the baseline, few call any better."""
    wrong = 0
    for trial in range(60):
        rng = derive(trial, "as good")
        worth = rng.normal(size=20)
        truths = {f"a{i}": [w] for i, w in enumerate(worth)}
        names = ["macs", "b", "c", "d", "e"]
        scores = {n: dict(zip(truths, (worth + rng.normal(size=20)).tolist())) for n in names}
        table = Table.make(
            truths, scores, dict.fromkeys(names, Price(1, 1)), baselines=["macs"], resamples=100
        )
        wrong += any(sentence.startswith("Better") for sentence in verdict(table))
    assert np.mean(wrong) / 60 <= 0.05
