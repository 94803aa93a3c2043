from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from assay.contracts import History, Trial
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.strategies.nsga2 import NSGA2, survivors
from assay.strategies.random import Random
from tests.strategies.history import (
    Counting,
    chain,
    distance,
    failed,
    infeasible,
    point,
    scored,
)  # fmt: skip

INF = math.inf


def ask(trials, n=1, seed=0, population=4, **settings):
    history = History(chain(), trials)
    strategy = NSGA2(population=population, **settings)
    return strategy.ask(history, n, rng=np.random.default_rng(seed))


# --- survival -------------------------------------------------------------------------------------


def ranked(trials, count):
    return [(m.trial.number, m.front, m.crowding) for m in survivors(trials, count)]


def test_the_better_front_survives_and_of_the_next_the_less_crowded():
    trials = [
        scored(0, 0.0, 9.0), scored(1, 5.0, 5.0), scored(2, 9.0, 0.0),  # the first front
        scored(3, 0.0, 8.0), scored(4, 4.0, 4.0), scored(5, 4.5, 3.0), scored(6, 8.0, 0.0),
    ]  # fmt: skip
    assert ranked(trials, 3) == [(0, 0, INF), (2, 0, INF), (1, 0, 2.0)]
    four = (4, 1, pytest.approx(4.5 / 8 + 5 / 8))
    assert ranked(trials, 6) == [
        (0, 0, INF), (2, 0, INF), (1, 0, 2.0), (3, 1, INF), (6, 1, INF), four,
    ]  # fmt: skip


def test_the_feasible_survive_and_then_those_that_violate_least():
    trials = [infeasible(0, 0.5), scored(1, -9.0, -9.0), infeasible(2, 0.1), infeasible(3, 0.5)]
    assert ranked(trials, 4) == [(1, 0, 0.0), (2, 1, 0.0), (0, 2, 0.0), (3, 2, 0.0)]
    assert ranked(trials, 3)[-1][0] == 0  # the older of two alike


def test_nothing_survives_of_nothing():
    assert survivors([], 4) == []
    assert ranked([infeasible(7, 0.5)], 4) == [(7, 0, 0.0)]


# --- asking ---------------------------------------------------------------------------------------


def test_the_first_generation_is_random():
    trials = [scored(i, float(i), 0.0) for i in range(3)]
    assert {p.parent for p in ask(trials, 20)} == {None}
    assert None not in {p.parent for p in ask([*trials, scored(3, 0.0, 0.0)], 20)}


def test_parents_are_the_survivors_of_whole_generations():
    first = [scored(i, float(i), 0.0) for i in range(4)]
    second = [scored(4, 9.0, 0.0), failed(5), infeasible(6, 0.1), scored(7, 2.5, 0.0)]
    assert {p.parent for p in ask([*first, *second[:3]], 300)} == {0, 1, 2, 3}
    assert {p.parent for p in ask([*first, *second], 300)} == {4, 3, 7, 2}


def test_a_generation_that_runs_is_waited_for():
    trials = [
        *(scored(i, float(i), 0.0) for i in range(6)),
        Trial(6, point(6)),
        scored(7, 9.0, 0.0),
    ]
    assert {p.parent for p in ask(trials, 300)} == {0, 1, 2, 3}


def test_tournaments_are_won_as_often_as_two_draws_allow():
    """Of 4 members in 4 fronts, the best wins a tournament of two with chance 1 - (3/4)^2 ..."""
    n = 6000
    trials = [scored(i, -float(i), -float(i)) for i in range(4)]
    parents = Counter(p.parent for p in ask(trials, n))
    expected = [n * ((4 - i) ** 2 - (3 - i) ** 2) / 16 for i in range(4)]
    chi2 = sum((parents[i] - e) ** 2 / e for i, e in enumerate(expected))
    assert chi2 < 16.3  # 0.999 quantile with 3 degrees of freedom


def test_in_one_front_the_less_crowded_wins():
    trials = [scored(0, 0.0, 9.0), scored(1, 4.0, 5.0), scored(2, 5.0, 4.0), scored(3, 9.0, 0.0)]
    parents = Counter(p.parent for p in ask(trials, 4000))
    assert parents[0] + parents[3] == pytest.approx(4000 * 0.75, rel=0.05)


def test_without_crossover_a_child_is_one_change_away():
    trials = [scored(i * 11111, 0.0, 0.0) for i in range(4)]
    trials = [Trial(i, t.architecture, "scored", t.estimate, objectives=t.objectives)
              for i, t in enumerate(trials)]  # fmt: skip
    for child in ask(trials, 100, crossover=0.0):
        assert distance(child.architecture, trials[child.parent].architecture) == 1


def test_without_mutation_a_child_has_nothing_of_its_own():
    parents = [point(111111), point(222222), point(333333), point(444444)]
    estimate = scored(0, 0.0).estimate
    trials = [Trial(i, a, "scored", estimate, objectives=(0.0, 0.0)) for i, a in enumerate(parents)]
    mixed = Counter()
    for child in ask(trials, 400, crossover=1.0, mutation=0.0):
        options = Counter(child.architecture.values())
        assert len(options) <= 2
        assert set(options) <= {"o1", "o2", "o3", "o4"}
        mixed[len(options)] += 1
    assert mixed[2] > mixed[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"population": 3}, "nsga2 with population=3 needs at least 4"),
        ({"crossover": 1.5}, "nsga2 with crossover=1.5 must be 0 to 1"),
        ({"mutation": -0.1}, "nsga2 with mutation=-0.1 must be 0 to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(InvalidSetting, match=said):
        NSGA2(**settings)


def test_asking_looks_at_one_generation_at_most():
    history, strategy = Counting(chain()), NSGA2(population=20)
    for start in range(0, 1000, 10):
        for i in range(start, start + 10):
            history.append(scored(i, float(i % 7), -float(i % 5)))
        history.looks = 0
        for attempt in range(4):
            strategy.ask(history, 10, rng=derive(start, attempt))
        assert history.looks <= 4 * 20


def exchange(architecture):
    """A sum against a sum of squares: best where all digits are alike, for each of 55 sums."""
    digits = [int(str(option)[1:]) for option in architecture.values()]
    return float(sum(digits)), -float(sum(d * d for d in digits))


def searched(strategy, num):
    """How many of the 55 best exchanges are found in so many trials."""
    history, estimate = History(chain()), scored(0, 0.0).estimate
    while len(history) < num:
        for p in strategy.ask(history, 50, rng=derive(0, "ask", len(history))):
            found = exchange(p.architecture)
            history.append(
                Trial(len(history), p.architecture, "scored", estimate, objectives=found)
            )
    best = {(float(s), -float((s % 6) * (s // 6 + 1) ** 2 + (6 - s % 6) * (s // 6) ** 2))
            for s in range(55)}  # fmt: skip
    return len(best & {t.objectives for t in history})


def test_it_finds_far_more_of_the_front_than_chance():
    assert searched(NSGA2(), 2000) >= 12
    assert searched(Random(), 2000) <= 4
