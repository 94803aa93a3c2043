"""Multiply-accumulates of paths and mixes, and of what estimators book for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.contracts import Context, History, Proposal
from assay.cost import Budget
from assay.estimators.inherit import Inherit
from assay.estimators.macs import PassMacs
from assay.estimators.one_shot import OneShot
from assay.estimators.zero_cost import ZeroCost
from assay.executors.inline import Inline
from assay.hardware.count import count
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.testing import tiny_context, tiny_task
from assay.train.recipe import Recipe

A, B = 6 * 4, 6 * 9 + 9 * 4
HEAD = 4 * 3


class Both:
    """Paths of one mix: both options of the one choice, in equal parts."""

    def passes(self, space, step, *, rng):
        return [{"0": {"a": 0.5, "b": 0.5}}]


def context() -> Context:
    def model() -> nn.Module:
        large = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))
        return nn.Sequential(OneOf(a=nn.Linear(6, 4), b=large), nn.Linear(4, 3))

    space = Space(model)
    recipe = Recipe(batch_size=16, epochs=1)
    return Context(space, tiny_task(), recipe, Inline(), "cpu", 0, History(space))


def test_a_path_is_its_network_and_a_mix_all_that_runs():
    ctx = context()
    macs = PassMacs(ctx.space, ctx.task.example(1))
    small, large = ctx.space.all()
    for point in (small, large):
        assert macs(point) == count(ctx.space.build(point), ctx.task.example(1)).macs
        assert macs({label: {option: 1.0} for label, option in point.items()}) == macs(point)
    assert (macs(small), macs(large)) == (A + HEAD, B + HEAD)
    assert macs({"0": {"a": 0.3, "b": 0.7}}) == A + B + HEAD
    assert macs.mean([small, large]) == (A + B) / 2 + HEAD
    assert macs.mean([]) == 0


def test_a_mix_counts_all_that_a_path_does():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = OneOf(small=nn.LSTM(6, 4), large=nn.LSTM(6, 4, num_layers=2))
            self.wide = nn.Linear(4, Width(4, 8))

        def forward(self, x):
            y = self.wide(self.rnn(x)[0])
            return y @ y.mT

    space = Space(Reads)
    macs = PassMacs(space, torch.zeros(5, 1, 6))
    for point in space.all():
        assert macs({label: {option: 1.0} for label, option in point.items()}) == macs(point) > 0


def test_counting_a_mix_changes_nothing():
    ctx = context()
    ctx.space.model.train()
    before = {k: v.clone() for k, v in ctx.space.model.state_dict().items()}
    PassMacs(ctx.space, ctx.task.example(1))({"0": {"a": 0.5, "b": 0.5}})
    assert all(torch.equal(v, before[k]) for k, v in ctx.space.model.state_dict().items())
    assert all(module.training for module in ctx.space.model.modules())
    assert ctx.space.model[0].mix is None


def test_a_supernet_of_mixes_books_all_that_runs():
    ctx, estimator = context(), OneShot(paths=Both(), states=1)
    costs = list(estimator.prepare(ctx, Budget(steps=4)))
    assert sum(c.macs for c in costs) == 3 * (A + B + HEAD) * 4 * 16
    points = list(ctx.space.all())
    for point, e in zip(points, estimator.estimate(ctx, [Proposal(a) for a in points])):
        each = count(ctx.space.build(point), ctx.task.example(1)).macs
        assert e.cost.macs == each * e.cost.samples > 0


def test_ancestors_book_their_training():
    ctx, estimator = context(), Inherit(ancestors=1, tune_steps=2)
    spent = sum(c.macs for c in estimator.prepare(ctx, Budget(steps=5)))
    each = count(ctx.space.build(estimator._points[0]), ctx.task.example(1)).macs
    assert spent == 3 * each * 5 * 16


@pytest.mark.parametrize(
    ("signals", "forwards", "backwards"),
    [
        (("params",), 0, 0),
        (("macs",), 0, 0),
        (("synflow",), 1, 1),
        (("snip",), 16, 16),
        (("snip", "grad_norm", "zico", "jacob_cov"), 16, 32),
        (("grasp",), 16, 48),
    ],
)
def test_signals_book_the_passes_that_they_take(signals, forwards, backwards):
    ctx = tiny_context()
    point = ctx.space.largest()
    estimator = ZeroCost(signals, reference=4, batch=16)
    if len(signals) > 1:
        list(estimator.prepare(ctx, Budget()))
    (found,) = estimator.estimate(ctx, [Proposal(point)])
    each = count(ctx.space.build(point), ctx.task.example(1)).macs
    assert found.cost.samples == forwards
    assert found.cost.macs == each * (forwards + 2 * backwards)
