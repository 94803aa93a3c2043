"""Rungs and brackets: who is trained, for how long, and who goes on."""

from __future__ import annotations

import math

import pytest
from torch import nn

from assay.contracts import Estimate, History, Trial
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.halving import ASHA, Halving, Hyperband, brackets
from assay.testing import tiny_space


def worth(architecture):
    """A value that depends on the architecture alone."""
    return float(derive(5, architecture.to_json()).normal())


def climb(strategy, asks, *, n=25, worth=worth, failing=lambda number: False, space=None):
    """Ask, score everything at once, and ask again; return the history."""
    history = History(space or tiny_space())
    for i in range(asks):
        for p in strategy.ask(history, n, rng=derive(0, "ask", i)):
            point = history.space.canonical(p.architecture)
            if history.seen(point, p.fidelity) is None:
                number = len(history)
                value = worth(point)
                more = {"parent": p.parent, "fidelity": p.fidelity}
                if failing(number):
                    history.append(Trial(number, point, "failed", error="made to fail", **more))
                else:
                    scored = Estimate(value)
                    history.append(
                        Trial(number, point, "scored", scored, objectives=(value,), **more)
                    )
    return history


def rungs(history):
    """Return fidelity -> trials."""
    found = {}
    for trial in history:
        found.setdefault(trial.fidelity, []).append(trial)
    return found


@pytest.mark.parametrize(("eta", "depth"), [(2, 3), (3, 1), (3, 4), (4, 2)])
def test_brackets_are_those_of_the_paper(eta, depth):
    made = brackets(eta, depth)
    assert len(made) == depth + 1
    for s, bracket in zip(range(depth, -1, -1), made):
        n = math.ceil((depth + 1) / (s + 1) * eta**s)
        assert bracket == [(math.floor(n * eta**-i), eta ** (i - s)) for i in range(s + 1)]
        assert bracket[-1][1] == 1.0


def test_the_brackets_of_81_and_3_are_the_ones_printed_in_the_paper():
    # Table 1: R = 81, eta = 3, where bracket s gives r_i = 81 x share to each of n_i.
    expected = {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }
    made = dict(zip(range(4, -1, -1), brackets(3, 4)))
    for s, rows in expected.items():
        assert [(n, round(81 * share)) for n, share in made[s]] == rows


def test_each_rung_takes_the_best_third_of_the_one_below():
    history = climb(Halving(num=27, eta=3, depth=3), asks=5)
    found = rungs(history)
    assert [len(found[3.0**-k]) for k in (3, 2, 1, 0)] == [27, 9, 3, 1]
    for k in (3, 2, 1):
        below = sorted(found[3.0**-k], key=lambda t: -t.objectives[0])
        best = {t.architecture for t in below[: len(below) // 3]}
        assert {t.architecture for t in found[3.0 ** (1 - k)]} == best
        for trial in found[3.0 ** (1 - k)]:
            assert history[trial.parent].architecture == trial.architecture


def test_a_rung_that_runs_is_waited_for():
    strategy = Halving(num=4, eta=2, depth=1)
    history = History(tiny_space())
    for i, p in enumerate(strategy.ask(history, 25, rng=derive(0))):
        history.append(Trial(i, history.space.canonical(p.architecture), fidelity=p.fidelity))
    assert len(history) == 4
    assert strategy.ask(history, 25, rng=derive(1)) == []


def test_a_bracket_that_is_done_is_followed_by_another():
    history = climb(Halving(num=4, eta=2, depth=1), asks=4)
    found = rungs(history)
    assert len(found[0.5]) == 8
    assert len(found[1.0]) == 4


def small(num):
    """A space of so many distinct networks."""
    return Space(nn.Sequential(OneOf(**{f"op{i}": nn.Linear(2, 2 + i) for i in range(num)})))


@pytest.mark.parametrize(("num", "climbed"), [(13, [13, 4, 1, 1]), (2, [2, 1, 1, 1])])
def test_a_space_smaller_than_a_rung_is_climbed_with_what_there_is(num, climbed):
    history = climb(Halving(num=27, eta=3, depth=3), asks=9, space=small(num))
    assert [len(rungs(history)[3.0**-k]) for k in (3, 2, 1, 0)] == climbed
    best = max(history.space.all(), key=worth)
    assert history.seen(best, 1.0) is not None
    assert Halving(num=27).ask(history, 25, rng=derive(1)) == []


def test_a_small_space_has_every_bracket_of_hyperband():
    """Bracket by bracket until each was begun at every share, or had gone on to it."""
    history = climb(Hyperband(eta=3, depth=1), asks=40, space=small(10))
    assert len(rungs(history)[1 / 3]) == len(rungs(history)[1.0]) == 10
    assert Hyperband(eta=3, depth=1).ask(history, 25, rng=derive(1)) == []


@pytest.mark.parametrize("strategy", [Halving(8, 2, 3), Hyperband(3, 2)])
def test_what_it_trains_is_told_by_its_rungs(strategy):
    history = climb(strategy, asks=8, n=30)
    num = sum(n for n, _ in strategy.rungs)
    assert sum(t.fidelity for t in history[:num]) == pytest.approx(
        sum(n * share for n, share in strategy.rungs)
    )
    assert {t.fidelity for t in history} == {share for _, share in strategy.rungs}


def test_failed_ones_are_not_promoted():
    history = climb(Halving(num=8, eta=2, depth=1), asks=2, failing=lambda number: number < 6)
    assert {t.architecture for t in rungs(history)[1.0]} == {t.architecture for t in history[6:8]}


def test_hyperband_climbs_its_brackets_in_turn():
    history = climb(Hyperband(eta=3, depth=2), asks=12, n=30)
    expected = [len(r) for r in brackets(3, 2)]
    assert expected == [3, 2, 1]
    first = [(t.fidelity, t.parent is None) for t in history]
    sizes = [n for bracket in brackets(3, 2) for n, _ in bracket]
    assert [first[0][0], first[9][0], first[12][0], first[13][0]] == [1 / 9, 1 / 3, 1.0, 1 / 3]
    assert sizes == [9, 3, 1, 5, 1, 3]


def test_asha_promotes_as_soon_as_one_is_among_the_best_third():
    history = climb(ASHA(eta=3, depth=2), asks=30, n=1)
    found = rungs(history)
    for i, trial in enumerate(history):
        if trial.parent is not None:
            below = [t for t in history[:i] if t.fidelity == pytest.approx(trial.fidelity / 3)]
            best = sorted(below, key=lambda t: -t.objectives[0])[: len(below) // 3]
            assert trial.architecture in {t.architecture for t in best}
    assert len(found[1 / 3]) >= len(found[1 / 9]) // 3 - 1
    assert len(found[1.0]) >= 1


@pytest.mark.parametrize(
    "make",
    [lambda: Halving(num=8, eta=3, depth=2), lambda: Halving(eta=1), lambda: ASHA(depth=0)],
)
def test_what_cannot_be_climbed_is_refused(make):
    with pytest.raises(InvalidSetting, match="eta"):
        make()
