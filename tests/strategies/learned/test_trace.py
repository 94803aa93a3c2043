"""What is kept on the way: evenly spread, bounded, the same after an interruption."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import pytest
import torch

from assay.contracts import Estimate, History, Learning, Trial
from assay.cost import Budget, derive
from assay.errors import NotFinite, SpaceExhausted
from assay.estimators.one_shot import OneShot
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.proxyless import Gates, Proxyless
from assay.strategies.learned.reinforce import Reinforce
from assay.strategies.learned.trace import Trace
from tests.strategies.learned.test_alphas import nested
from tests.strategies.learned.toys import context, of_two


def known(step: int) -> Learning:
    return Learning(step, {"a": [0.5, 0.5]}, 1.0)


def offered(trace: Trace, steps: range) -> list[int]:
    for step in steps:
        if trace.due(step):
            trace.keep(known(step))
    return [k.step for k in trace.kept]


@pytest.mark.parametrize("steps", [1, 79, 80, 81, 1000, 123_457])
def test_of_a_known_number_of_steps_at_most_eighty_are_kept(steps):
    kept = offered(Trace(steps), range(steps))
    assert len(kept) <= 80
    assert kept[0] == 0
    gaps = {b - a for a, b in itertools.pairwise(kept)}
    assert len(gaps) <= 1
    assert len(kept) >= min(steps, 40)


def test_of_an_unknown_number_too_and_an_interruption_changes_nothing():
    whole = Trace()
    kept = offered(whole, range(0, 4000, 8))
    assert 40 <= len(kept) <= 80
    first, second = Trace(), Trace()
    offered(first, range(0, 1600, 8))
    second.load(first.to_json())
    assert offered(second, range(1600, 4000, 8)) == kept
    assert second.to_json() == whole.to_json()


def test_what_is_known_now_comes_last_and_once():
    trace = Trace(4)
    offered(trace, range(4))
    assert [k.step for k in trace.up_to(known(3))] == [0, 1, 2, 3]
    assert [k.step for k in trace.up_to(known(4))] == [0, 1, 2, 3, 4]


def checked(trace, space) -> None:
    steps = [k.step for k in trace]
    assert steps == sorted(set(steps))
    for k in trace:
        assert 0 <= k.entropy <= 1 + 1e-9
        for label, p in k.probabilities.items():
            assert len(p) == len(space.choices[label].options)
            assert sum(p) == pytest.approx(1.0, abs=1e-3)


def macs(quantity, architecture) -> float:
    cost = {"see": 0.0, "blind": 0.0, "costly": 640.0}
    return 48.0 + sum(cost.get(o, 0.0) for o in architecture.values() if isinstance(o, str))


def trained(strategy, ctx, steps: int = 24):
    estimator = OneShot(paths=strategy.paths, rate=1.0, states=1)
    list(estimator.prepare(ctx, Budget(steps=steps)))
    return estimator


@pytest.mark.parametrize("make", [Proxyless, DARTS, ENAS])
def test_who_learns_with_a_supernet_tells_from_the_first_step_to_the_last(make):
    ctx = context(of_two)
    strategy = make(warmup=0.25, every=1)
    assert strategy.learned(ctx.history) == []
    trained(strategy, ctx)
    trace = strategy.learned(ctx.history)
    checked(trace, ctx.space)
    assert [k.step for k in trace] == list(range(25))
    assert all(k.entropy == trace[0].entropy == pytest.approx(1.0, abs=0.01) for k in trace[:7])
    assert trace[-1].entropy < trace[0].entropy
    known = strategy.paths.over(ctx.space)
    assert trace[-1].probabilities == known.table()
    assert trace[-1].entropy == pytest.approx(known.entropy_share())
    assert strategy.advice.keys() >= {"collapsed", "idle"}


def test_with_a_quantity_in_the_loop_its_expectation_and_target_are_told():
    ctx = context(of_two)
    strategy = Proxyless(quantity="macs", warmup=0.0, every=1, lr=0.05)
    strategy.in_the_loop(macs, {"macs": 400.0})
    trained(strategy, ctx)
    first, last = strategy.learned(ctx.history)[0], strategy.learned(ctx.history)[-1]
    assert first.expected == pytest.approx(48 + 2 * 640 / 3, rel=1e-6)
    assert (first.quantity, first.target, first.reward) == ("macs", 400.0, None)
    assert last.reward == -strategy.paths._baseline  # minus the moving average of the loss
    p = [last.probabilities[label][2] for label in ("one", "two")]
    assert last.expected == pytest.approx(48 + 640 * sum(p), abs=0.2)


def of_words(module) -> float:
    """A quantity of a user's own, which nobody asks for a figure to show."""
    raise AssertionError


def test_darts_tells_what_is_expected_of_a_limit_and_how_its_loss_goes():
    ctx = context(of_two)
    strategy = DARTS(warmup=0.0, lr=0.05, exclude=("costly",))
    strategy.in_the_loop(macs, {"macs": 40.0, of_words: 1.0})
    trained(strategy, ctx)
    first, last = strategy.learned(ctx.history)[0], strategy.learned(ctx.history)[-1]
    assert (first.quantity, first.expected, first.target, first.reward) == ("macs", 48, 40, None)
    assert last.reward == -strategy.paths._average
    assert 0.2 < -last.reward < 1.5  # an average of cross entropies
    free = DARTS(warmup=0.0)
    free.in_the_loop(macs, {of_words: 1.0})
    trained(free, ctx, steps=1)
    assert free.learned(ctx.history)[-1].expected is None


def test_a_target_that_nothing_meets_is_refused_before_a_step_is_taken():
    ctx = context(of_two)
    strategy = Proxyless(quantity="macs", target=40.0)
    strategy.in_the_loop(macs, {})
    with pytest.raises(
        SpaceExhausted, match=r"macs = 40: the space has min 48, .*strategy\.target"
    ):
        trained(strategy, ctx)
    strategy = Proxyless(quantity="macs")
    strategy.in_the_loop(macs, {"macs": 47.0})
    with pytest.raises(SpaceExhausted, match=r"raise the limit"):
        trained(strategy, ctx)
    assert strategy.learned(ctx.history)[-1].step == 0
    strategy.in_the_loop(macs, {"macs": 48.0})
    trained(strategy, ctx, steps=2)


def test_logits_that_are_not_finite_are_refused_by_name(monkeypatch):
    def overflow(self, supernet, task, inputs, targets, step):
        self.known.logits["two"][0] = torch.nan

    monkeypatch.setattr(Gates, "_move", overflow)
    with pytest.raises(NotFinite, match=r"of two is not finite .*weight step 0.*strategy\.lr"):
        trained(Proxyless(warmup=0.0, every=1), context(of_two))


def test_why_darts_stopped_is_told():
    ctx = context(of_two)
    strategy = DARTS(warmup=0.0, most_skips=1)
    trained(strategy, ctx, steps=1)
    strategy.paths.stopped = "enough"
    assert strategy.learned(ctx.history)[-1].stopped == "enough"


def told(history: History, n: int) -> None:
    """Let n draws of a search be scored: the first choice's option "a" is worth more."""
    rng = derive(5, len(history))
    for _ in range(n):
        point = history.space.sample(rng)
        score = float(point["first"] == "a")
        number = len(history)
        history.append(Trial(number, point, "scored", Estimate(score), objectives=(score,)))


def test_a_controller_tells_after_each_batch_and_a_fresh_one_tells_the_same():
    space = nested()
    history, strategy = History(space), Reinforce(batch=4, lr=0.05)
    assert strategy.learned(history) == []
    told(history, 3)
    assert strategy.learned(history) == []
    for _ in range(5):
        told(history, 4)
        strategy.ask(history, 1, rng=derive(0, "ask"))
    trace = strategy.learned(history)
    checked(trace, space)
    assert [k.step for k in trace] == [4, 8, 12, 16, 20]
    scores = [t.objectives[0] for t in history]
    average = sum(scores[:4]) / 4
    for i in range(4, 20, 4):
        average += 0.1 * (sum(scores[i : i + 4]) / 4 - average)
    assert trace[-1].reward == pytest.approx(average)
    fresh = Reinforce(batch=4, lr=0.05).learned(history)
    assert [asdict(k) for k in fresh] == [asdict(k) for k in trace]


def test_a_controller_tells_what_is_expected_of_a_limit():
    history, strategy = History(nested()), Reinforce(batch=4)
    strategy.in_the_loop(lambda quantity, a: 2.0 + (a["first"] == "a"), {"macs": 2.5, of_words: 1})
    told(history, 8)
    now = strategy.learned(history)[-1]
    learned, rng = strategy._taught(history), derive(0, "expected")
    drawn = [history.space.canonical(learned.controller.sample(rng)) for _ in range(16)]
    mean = sum(2.0 + (a["first"] == "a") for a in drawn) / 16
    assert (now.quantity, now.expected, now.target) == ("macs", mean, 2.5)
    assert 2 < mean < 3


def test_what_a_controller_would_take_is_the_mean_on_the_way_to_the_last_batch():
    history, strategy = History(nested()), Reinforce(batch=4)
    told(history, 4)
    (now,) = strategy.learned(history)
    controller = strategy._taught(history).controller
    ways = [controller.taken_in(t.architecture) for t in history]
    mean = sum(float(way["first"][0]) for way in ways) / 4
    assert now.probabilities["first"][0] == pytest.approx(mean, abs=1e-4)
    for trial, way in zip(history, ways):
        log_prob = sum(
            math.log(float(p[history.space.choices[k].options.index(trial.architecture[k])]))
            for k, p in way.items()
        )
        assert log_prob == pytest.approx(
            float(controller.log_prob(trial.architecture).detach()), abs=1e-5
        )
