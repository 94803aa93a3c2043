from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from assay.contracts import History, Trial
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.strategies.evolution import Evolution
from tests.strategies.history import Counting, chain, distance, failed, infeasible, point, scored

FEW = {"population": 8, "sample": 3}


def ask(trials, n=1, seed=0, **settings):
    history = History(chain(), trials)
    return Evolution(**(FEW | settings)).ask(history, n, rng=np.random.default_rng(seed))


def test_a_child_is_its_parent_with_one_decision_changed():
    trials = [scored(i, float(i % 5)) for i in range(12)]
    for child in ask(trials, 200):
        assert distance(child.architecture, point(child.parent)) == 1
        assert child.fidelity == 1.0


def test_the_first_ones_are_random():
    trials = [scored(0, 1.0), scored(1, 2.0), *(infeasible(i, 0.1) for i in range(2, 7))]
    assert {p.parent for p in ask(trials, 20)} == {None}
    assert {p.parent for p in ask([*trials, scored(7, 0.0)], 20)} <= {0, 1, 7}


def test_the_sample_is_the_population_then_the_best_is_the_parent():
    trials = [scored(i, v) for i, v in enumerate([3.0, 9.0, 1.0, 9.0, 2.0])]
    assert {p.parent for p in ask(trials, 50, population=5, sample=5)} == {1}  # the older of two


def test_the_old_die_however_good():
    trials = [scored(0, 99.0), *(scored(i, float(i)) for i in range(1, 9))]
    parents = Counter(p.parent for p in ask(trials, 3000, sample=2))
    assert set(parents) == set(range(2, 9))  # 0 is dead, 1 never wins
    assert parents[8] > parents[7] > parents[5] > parents[2]


def test_parents_win_as_often_as_the_paper_says():
    """Of P members the r-th best wins a sample of S with chance C(P - r, S - 1) / C(P, S)."""
    from math import comb

    n, population, sample = 6000, 8, 3
    parents = Counter(p.parent for p in ask([scored(i, -float(i)) for i in range(8)], n))
    expected = [n * comb(population - r, sample - 1) / comb(population, sample)
                for r in range(1, population + 1)]  # fmt: skip
    assert set(parents) == {r for r in range(8) if expected[r]}
    chi2 = sum((parents[r] - e) ** 2 / e for r, e in enumerate(expected) if e)
    assert chi2 < 20.5  # 0.999 quantile with 5 degrees of freedom


def test_only_the_first_objective_counts():
    trials = [scored(0, 1.0, 99.0), scored(1, 2.0, -99.0), scored(2, 0.0, 0.0)]
    assert {p.parent for p in ask(trials, 20, population=3, sample=3)} == {1}


def test_failed_and_infeasible_ones_are_no_parents():
    trials = [failed(0), infeasible(1, 0.1), *(scored(i, 0.0) for i in range(2, 6)), failed(6)]
    assert {p.parent for p in ask(trials, 100, sample=2)} == {2, 3, 4}  # 5 loses every tie


def test_while_nothing_is_feasible_the_nearest_to_it_is_the_parent():
    trials = [infeasible(i, 0.1 + abs(i - 6)) for i in range(8)]
    assert {p.parent for p in ask(trials, 20, sample=8)} == {6}
    assert {p.parent for p in ask(trials[:7], 20, sample=7)} == {None}  # no whole population yet


def test_of_few_feasible_ones_each_is_a_parent():
    trials = [*(infeasible(i, 0.1) for i in range(8)), scored(8, 1.0), scored(9, 0.5)]
    assert {p.parent for p in ask(trials, 20)} == {8}


def test_when_everything_fails_it_draws_at_random():
    assert {p.parent for p in ask([failed(i) for i in range(30)], 5)} == {None}


def test_what_runs_is_not_a_parent_yet():
    trials = [*(scored(i, float(i)) for i in range(5)), Trial(5, point(5)), scored(6, 99.0)]
    assert {p.parent for p in ask(trials, 100)} <= set(range(5))


@pytest.mark.parametrize(
    "settings", [{"sample": 1}, {"population": 4, "sample": 5}, {"population": 0, "sample": 0}]
)
def test_a_sample_that_does_not_fit_is_refused(settings):
    with pytest.raises(InvalidSetting, match="the sample must be at least 2 and at most the"):
        Evolution(**settings)


def test_asking_looks_at_new_trials_only():
    history, evolution = Counting(chain()), Evolution()
    evolution.ask(history, 1, rng=derive(0))
    for start in range(0, 2000, 25):
        for i in range(start, start + 25):
            history.append(scored(i, float(i % 7)))
        history.looks = 0
        for attempt in range(4):
            evolution.ask(history, 25, rng=derive(start, attempt))
        assert history.looks == 25


def test_it_finds_the_best_of_a_million():
    """Climb to all nines, one digit at a time; random search would need some 700,000 trials."""
    space = chain()
    history, evolution = History(space), Evolution()
    while len(history) < 1500:
        rng = derive(0, "ask", len(history))
        for p in evolution.ask(history, 25, rng=rng):
            value = sum(int(str(o)[1:]) for o in p.architecture.values())
            history.append(
                Trial(len(history), p.architecture, "scored", scored(0, 0.0).estimate,
                      objectives=(float(value),))
            )  # fmt: skip
    assert max(t.objectives[0] for t in history) == 54.0
