"""The suites can fail: each finds the faults that it is there to find."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from assay.contracts import Estimate, Proposal
from assay.cost import Cost, derive
from assay.executors.inline import Inline
from assay.hardware.device import Latency
from assay.study.store import Study
from assay.testing import (
    DeviceContract,
    EstimatorContract,
    ExecutorContract,
    FakeDevice,
    FakeEstimator,
    PathsContract,
    StrategyContract,
    StudyContract,
)

ASKS = "test_it_asks_for_as_many_points_of_the_space_as_it_is_told"
BROKEN = (AssertionError, RuntimeError, ValueError, pytest.fail.Exception)


def found(suite, attribute, plug, test, *args):
    """Whether a test of a suite fails on a plug-in."""
    broken = type("Broken", (suite,), {attribute: staticmethod(plug)})()
    try:
        getattr(broken, test)(*args)
    except BROKEN:
        return True
    return False


def drawn(history, n, rng):
    return [Proposal(history.space.sample(rng)) for _ in range(n)]


class AsksForTooFew:
    def ask(self, history, n, *, rng):
        return drawn(history, n - 1, rng)


class DrawsByItself:
    def ask(self, history, n, *, rng):
        return drawn(history, n, derive(random.random()))


class Counts:
    count = 0

    def ask(self, history, n, *, rng):
        self.count += 1
        rng.random(self.count)
        return drawn(history, n, rng)


class TrustsTheLength:
    best, read = 0.0, 0

    def ask(self, history, n, *, rng):
        self.best = max([self.best, *(len(t.objectives) * t.number for t in history[self.read :])])
        self.read = len(history)
        rng.random(int(self.best))
        return drawn(history, n, rng)


class MissesWhatWasRunning:
    history, num, read = None, 0, 0

    def ask(self, history, n, *, rng):
        if history is not self.history:
            self.history, self.num, self.read = history, 0, 0
        self.num += sum(t.state == "scored" for t in history[self.read :])
        self.read = len(history)
        rng.random(self.num)
        return drawn(history, n, rng)


class IgnoresTheGenerator:
    def ask(self, history, n, *, rng):
        return drawn(history, n, derive(0))


@pytest.mark.parametrize(
    ("strategy", "test", "args"),
    [
        (AsksForTooFew, ASKS, ("nothing", 2)),
        (AsksForTooFew, "test_it_takes_any_number_of_objectives", (3,)),
        (DrawsByItself, "test_asking_changes_nothing", ("many trials",)),
        (Counts, "test_a_fresh_one_asks_the_same", ("many trials",)),
        (TrustsTheLength, "test_it_takes_nothing_from_another_history", ()),
        (MissesWhatWasRunning, "test_a_batch_that_ends_is_taken_in_as_if_it_had_been_there", ()),
        (IgnoresTheGenerator, "test_its_draws_come_from_the_generator_it_is_given", ()),
    ],
)  # fmt: skip
def test_a_broken_strategy_is_found(strategy, test, args):
    assert found(StrategyContract, "strategy", strategy, test, *args)


class StartsAgain(FakeEstimator):
    def __init__(self):
        super().__init__(lambda a: self.steps + len(a))

    def load_state_dict(self, state):
        pass


class SavesHalf(FakeEstimator):
    """Scores by what it has prepared itself, which its state does not hold."""

    def __init__(self):
        self.own = 0
        super().__init__(lambda a: self.own)

    def prepare(self, ctx, budget):
        for cost in super().prepare(ctx, budget):
            self.own += 1
            yield cost


class TimesForGood(FakeEstimator):
    def __init__(self):
        super().__init__(len)

    def step_seconds(self, ctx):
        self.steps = 99
        return 0.0


class MixesUpItsBatch(FakeEstimator):
    def __init__(self):
        super().__init__(hash)

    def estimate(self, ctx, proposals):
        return sorted(super().estimate(ctx, proposals), key=lambda e: e.score)


class Wears(FakeEstimator):
    def __init__(self):
        super().__init__(lambda a: len(self.estimated))


class CostsNothing(FakeEstimator):
    def __init__(self):
        super().__init__(len)

    def estimate(self, ctx, proposals):
        return [Estimate(1.0, made_from={"estimator": "free"}) for _ in proposals]


class GivesMoneyBack(FakeEstimator):
    def __init__(self):
        super().__init__(len)

    def prepare(self, ctx, budget):
        yield Cost(-1.0)


@pytest.mark.parametrize(
    ("estimator", "test", "args"),
    [
        (StartsAgain, "test_what_is_prepared_is_not_prepared_again", ()),
        (SavesHalf, "test_interrupted_and_continued_is_uninterrupted", (2,)),
        (TimesForGood, "test_a_step_is_timed_and_timing_changes_nothing", ()),
        (MixesUpItsBatch, "test_a_batch_is_scored_in_its_order", ()),
        (Wears, "test_scoring_changes_no_score", ()),
        (CostsNothing, "test_an_estimate_says_what_it_cost_and_rests_on", ()),
        (GivesMoneyBack, "test_preparing_books_what_it_costs", ()),
    ],
)
def test_a_broken_estimator_is_found(estimator, test, args, tmp_path):
    needed = (*args, tmp_path) if args else ()
    assert found(EstimatorContract, "estimator", estimator, test, *needed)


class LetsErrorsOut(Inline):
    def gather(self, jobs):
        for job in jobs:
            job.value, job.done = job.work(), True
            yield job


class Cancels(Inline):
    def cancel(self, job):
        job.cancelled = True


class StopsEarly(Inline):
    def gather(self, jobs):
        yield from super().gather(jobs[:1])


@pytest.mark.parametrize(
    ("executor", "test"),
    [
        (LetsErrorsOut, "test_an_error_is_its_own_jobs_and_no_others"),
        (Cancels, "test_a_job_that_has_ended_stays_as_it_is"),
        (StopsEarly, "test_every_job_is_yielded_once_with_its_value"),
    ],
)
def test_a_broken_executor_is_found(executor, test):
    assert found(ExecutorContract, "executor", executor, test)


def paths(function):
    return lambda: SimpleNamespace(passes=function)


class CountsSteps:
    count = 0

    def passes(self, space, step, *, rng):
        self.count += 1
        rng.random(self.count)
        return [space.sample(rng)]


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        (paths(lambda space, step, rng: []), "test_each_pass_is_a_path_or_a_mix_of_the_space"),
        (
            paths(lambda space, step, rng: [{"body.0": {"none": 1.0}}]),
            "test_each_pass_is_a_path_or_a_mix_of_the_space",
        ),
        (CountsSteps, "test_a_step_is_a_function_of_its_number_and_generator"),
        (
            paths(lambda space, step, rng: [space.sample(derive(random.random()))]),
            "test_its_draws_come_from_the_generator_it_is_given",
        ),
    ],
)
def test_broken_paths_are_found(policy, test):
    assert found(PathsContract, "paths", policy, test)


class HidesHowItMeasured(FakeDevice):
    def __init__(self):
        super().__init__(lambda module: 1.0)

    def latency(self, module, example):
        return Latency(1.0, 0.5, 3, {})


class Trains(FakeDevice):
    def __init__(self):
        super().__init__(lambda module: 1.0)

    def latency(self, module, example):
        module(example.new_ones(2, 6))  # in train mode: the norms' statistics move
        return super().latency(module, example)


@pytest.mark.parametrize(
    ("device", "test"),
    [
        (HidesHowItMeasured, "test_a_latency_is_a_median_and_a_decile_of_enough_runs"),
        (Trains, "test_measuring_leaves_the_weights_and_the_thread_count"),
    ],
)
def test_a_broken_device_is_found(device, test):
    assert found(DeviceContract, "device", device, test)


class WritesByHalves(Study):
    def record_all(self, new, costs=None, **more):
        super().record_all(new, **more)
        for step, cost in (costs or {}).items():
            self.book(step, cost)


class PlansAnew(Study):
    def plan(self, name, counts):
        self._save_phase(name, counts="{}")
        return super().plan(name, counts)


class LosesTwice(Study):
    def end_session(self):
        pass


@pytest.mark.parametrize(
    ("study", "test"),
    [
        (WritesByHalves, "test_what_cannot_be_written_whole_is_not_written"),
        (PlansAnew, "test_counts_are_planned_once"),
        (LosesTwice, "test_a_run_that_ends_is_told_from_one_that_does_not"),
    ],
)
def test_a_broken_store_is_found(study, test):
    with study.open(None, identity={}) as opened:
        opened.begin_session({"assay": "1"})
        assert found(StudyContract, "opened", study, test, opened)


@pytest.mark.parametrize(
    ("suite", "attribute"),
    [
        (StrategyContract, "strategy"),
        (EstimatorContract, "estimator"),
        (ExecutorContract, "executor"),
        (PathsContract, "paths"),
        (DeviceContract, "device"),
    ],
)
def test_a_suite_that_tests_nothing_says_so(suite, attribute):
    said = f"{suite.__name__} tests nothing; set {attribute} = a class, a function"
    with pytest.raises(NotImplementedError, match=said):
        suite().new()


def test_a_plug_in_may_be_named():
    named = type("Named", (ExecutorContract,), {"executor": "assay.executors.inline:Inline"})
    assert named().new() == Inline()
