"""Trainings on an executor: how many there are at once, and what each books."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch import nn

from assay.contracts import Estimate, History, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting
from assay.estimators.each import Diverged
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.sample import asked
from assay.estimators.scratch import Scratch
from assay.estimators.training import Stretch, Training, run_each
from assay.executors.inline import Inline
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.testing import tiny_context
from assay.train.recipe import Recipe


def points(ctx, num):
    rng = derive(7, "points")
    return [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num)]


class Ahead(Inline):
    """Says that three jobs run at once."""

    @property
    def at_once(self):
        return 3


@pytest.mark.parametrize(("executor", "most"), [(Inline(), 1), (Ahead(), 4)])
def test_work_is_made_when_there_is_room_for_it(executor, most):
    class Work:
        def __init__(self, number):
            self.number = number

        def __call__(self):
            return self.number

    made, alive = [], []

    def make(number):
        work = Work(number)
        made.append(weakref.ref(work))
        alive.append(sum(there() is not None for there in made))
        return work

    ctx = tiny_context()
    object.__setattr__(ctx, "executor", executor)
    ended = [(i, job.result()) for i, job in run_each(ctx, range(10, 20), make)]
    assert ended == [(i, 10 + i) for i in range(10)]
    assert max(alive) == most


def test_who_stops_listening_takes_back_what_waits():
    ctx, ran = tiny_context(), []

    def make(number):
        def work():
            ran.append(number)
            raise InvalidSetting(f"number {number}")

        return work

    class Noting(Ahead):
        def cancel(self, job):
            super().cancel(job)
            taken_back.append(job)

    taken_back = []
    object.__setattr__(ctx, "executor", Noting())
    jobs = run_each(ctx, range(9), make)
    assert str(next(jobs)[1].error) == "number 0"
    jobs.close()
    assert ran == [0]
    assert [job.cancelled for job in taken_back] == [True] * 3


@pytest.mark.parametrize("executor", [Inline(), Ahead()])
def test_what_cannot_be_made_has_failed_and_takes_no_other_with_it(executor):
    def make(number):
        if number % 3 == 1:
            raise InvalidSetting(f"number {number}")
        return lambda: number

    ctx = tiny_context()
    object.__setattr__(ctx, "executor", executor)
    ended = dict(run_each(ctx, range(7), make))
    assert {i: str(job.error) for i, job in ended.items() if job.error} == {
        1: "number 1", 4: "number 4",
    }  # fmt: skip
    assert [ended[i].result() for i in (0, 2, 3, 5, 6)] == [0, 2, 3, 5, 6]


def test_a_batch_of_trainings_has_one_network_at_a_time(monkeypatch):
    ctx, made, alive = tiny_context(), [], []
    fresh = type(ctx.space).fresh

    def counted(*given):
        network = fresh(*given)
        made.append(weakref.ref(network))
        alive.append(sum(there() is not None for there in made))
        return network

    monkeypatch.setattr(type(ctx.space), "fresh", counted)
    Scratch(seeds=2).estimate(ctx, [Proposal(a) for a in points(ctx, 3)])
    assert alive == [1] * 6


def test_a_stretch_keeps_its_steps_when_costs_are_added():
    two = Stretch(1.0, 64, 640, "cpu", 2)
    assert two + Cost(0.5, 10) == Stretch(1.5, 74, 640, "cpu", 2)
    assert two + two == Stretch(2.0, 128, 1280, "cpu", 4)
    assert Cost() + two == Cost(1.0, 64, 640, "cpu")


# --- what diverges --------------------------------------------------------------------------------


class Explodes(nn.Module):
    def forward(self, x):
        return x * math.inf


def network():
    options = {f"op{i}": nn.Linear(6, 6) for i in range(22)}
    return nn.Sequential(OneOf(bad=Explodes(), worse=Explodes(), **options), nn.Linear(6, 3))


ESTIMATORS = {
    "scratch": Scratch,
    "low-fidelity": lambda: LowFidelity(share=1.0),
    "inherit": lambda: Inherit(ancestors=1, tune_steps=7),
}


@pytest.fixture
def begun(monkeypatch):
    """The networks whose training was begun, in order."""
    found, train = [], Training.__call__

    def counted(training):
        found.append(training.network)
        return train(training)

    monkeypatch.setattr(Training, "__call__", counted)
    return found


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_diverges_takes_no_other_with_it_and_is_booked(begun, name):
    """Two of 24: each is trained once; the two stop in their first step."""
    ctx = tiny_context(history=History(Space(network, example=torch.zeros(2, 6))))
    estimator, every = ESTIMATORS[name](), list(ctx.space.all())
    list(estimator.prepare(ctx, Budget(steps=2)))
    told = asked(ctx, estimator, every)
    assert len(begun) == len(told) == 24
    lost = {a["0"]: said for a, said in zip(every, told) if isinstance(said, Diverged)}
    assert lost.keys() == {"bad", "worse"}
    assert all("not finite: [nan" in str(e) and "at step 0;" in str(e) for e in lost.values())
    assert len(ctx.task.train) // 16 == 7
    samples = {said.cost.samples for said in told if isinstance(said, Estimate)}
    judged = 0 if name == "low-fidelity" else len(ctx.task.valid)  # or by its training losses
    assert samples == {7 * 16 + judged}
    assert {said.cost.samples for said in lost.values()} == {16}
    assert {said.cost.macs for said in lost.values()} == {3 * 16 * 6 * 3}  # the last layer's


def test_it_is_counted_up_to_the_step_that_shows_it():
    ctx = tiny_context(recipe=Recipe(batch_size=16, epochs=2))
    net, steps = nn.Linear(6, 3), []
    net.register_forward_pre_hook(lambda module, args: steps.append(1) if module.training else None)
    net.register_forward_hook(lambda _, args, out: out * math.nan if len(steps) == 6 else None)
    trained = Training(net, ctx.task, ctx.recipe, 14, 12, points=3, samples=10)()
    assert "at step 5" in trained.diverged
    assert trained.curve == [(4, trained.curve[0][1])]
    assert len(trained.losses) == 5
    assert (trained.cost.samples, trained.cost.macs) == (6 * 16 + 10, (3 * 6 * 16 + 10) * 18)
    assert all(math.isnan(trained.figures[name]) for name in ("loss", "accuracy"))


def test_a_network_is_judged_in_batches_that_fit_where_its_steps_do():
    ctx, seen = tiny_context(), []

    def noted(output, targets):
        seen.append(len(targets))
        return output.mean()

    ctx.task.metrics["noted"] = noted
    Training(nn.Linear(6, 3), ctx.task, Recipe(batch_size=2), 1, 1)()
    assert sum(seen) == len(ctx.task.valid) > 8
    assert max(seen) <= 8


def test_a_step_is_timed_on_those_that_can_be_trained(monkeypatch):
    ctx, fresh, tried = tiny_context(), Space.fresh, []

    def some(space, architecture, seed):
        tried.append(architecture)
        if len(tried) in broken:
            raise RuntimeError(f"no memory for number {len(tried)}")
        return fresh(space, architecture, seed)

    monkeypatch.setattr(Space, "fresh", some)
    broken = {1, 3, 4}
    assert 0 < Scratch().training_step_seconds(ctx) < math.inf
    assert len(tried) == 8
    tried.clear()
    broken = set(range(1, 9))
    with pytest.raises(RuntimeError, match=r"no memory for number 1$"):
        Scratch().training_step_seconds(ctx)
