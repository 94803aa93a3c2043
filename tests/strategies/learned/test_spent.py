"""What architecture steps cost, sample by sample and MAC by MAC."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.contracts import Context
from assay.cost import Budget, Cost
from assay.estimators.macs import PassMacs
from assay.estimators.one_shot import OneShot
from assay.space.choices import Depth, OneOf
from assay.space.space import Space
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.proxyless import Proxyless
from assay.strategies.learned.spent import Spent
from assay.weights.supernet import Supernet
from tests.strategies.learned.toys import context, of_operations

ENDS = 4 * 8 + 8 * 2
EACH = 8 * 8
STEPS, BATCH, WEIGHTS = 3, 20, 32  # steps, and samples of an architecture and of a weight step


def of_three() -> nn.Module:
    """One choice of three layers of as many MACs, so that every draw costs the same."""
    options = OneOf({name: nn.Linear(8, 8) for name in "abc"}, label="op")
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), options, nn.Linear(8, 2))


def prepared(strategy) -> Cost:
    ctx, total = context(of_three), Cost()
    for cost in OneShot(paths=strategy.paths, rate=1.0, states=1).prepare(ctx, Budget(steps=STEPS)):
        total += cost
    return total


@pytest.mark.parametrize(
    ("strategy", "passes", "forward", "backward", "trained"),
    [
        # of the second option a forward alone: it computes without a graph
        (Proxyless(quantity=""), 1, ENDS + 2 * EACH, ENDS + EACH, ENDS + EACH),
        (Proxyless(quantity="", rule="reinforce"), 4, ENDS + EACH, 0, ENDS + EACH),
        (ENAS(paths_each=5), 5, ENDS + EACH, 0, ENDS + EACH),
        (DARTS(), 1, ENDS + 3 * EACH, ENDS + 3 * EACH, ENDS + 3 * EACH),
        (DARTS(second_order=True), 4, ENDS + 3 * EACH, ENDS + 3 * EACH, ENDS + 3 * EACH),
        (DARTS(relax="gumbel"), 1, ENDS + EACH, ENDS + EACH, ENDS + EACH),
    ],
    ids=["gates", "rewards", "enas", "first order", "second order", "gumbel"],
)  # fmt: skip
def test_a_search_books_the_passes_that_it_learns_from(
    strategy, passes, forward, backward, trained
):
    own = strategy.paths.settings
    own.warmup, own.every, own.batch = 0.0, 1, BATCH
    total = prepared(strategy)
    assert total.samples == STEPS * (WEIGHTS + passes * BATCH)
    learned = passes * BATCH * (forward + 2 * backward)
    assert total.macs == STEPS * (WEIGHTS * 3 * trained + learned)


def test_the_warm_up_and_steps_between_learn_from_nothing():
    own = {"batch": BATCH, "quantity": ""}
    assert prepared(Proxyless(warmup=0.9, **own)).samples == STEPS * WEIGHTS
    assert prepared(Proxyless(warmup=0.0, every=2, **own)).samples == STEPS * WEIGHTS + 2 * BATCH


def test_a_search_that_is_taken_up_books_as_much_as_one_that_never_stopped():
    def estimator() -> OneShot:
        paths = DARTS(relax="gumbel", lr=1.0, warmup=0.0, every=1, batch=BATCH).paths
        return OneShot(paths=paths, rate=1.0, states=1)

    def booked(costs) -> int:
        return sum(cost.macs for cost in costs)

    budget = Budget(steps=16)
    whole, first, second = estimator(), estimator(), estimator()
    macs = booked(whole.prepare(context(of_operations), budget))
    begun = first.prepare(context(of_operations), budget)
    macs_before = booked([next(begun), next(begun)])
    second.load_state_dict(first.state_dict())
    macs_after = booked(second.prepare(context(of_operations), budget))
    assert macs_before + macs_after == macs


def of_a_depth() -> nn.Module:
    more = Depth(nn.Linear(4, 4), nn.Linear(4, 4), label="more")
    return nn.Sequential(nn.Flatten(), more, nn.Linear(4, 2))


def test_where_no_operation_has_a_gate_nothing_runs_backward():
    ctx = context(of_a_depth)
    paths = Proxyless(quantity="", warmup=0.0, batch=BATCH).paths
    paths.begin(ctx, ctx.space, 10)
    supernet = Supernet(ctx.space, paths=paths)
    supernet.reset()
    paths.learn(supernet, ctx.task, 0)
    depth = ctx.space.selected["more"]
    cost = paths.spent(PassMacs(ctx.space, ctx.task.example(1)))
    assert cost == Cost(samples=BATCH, macs=BATCH * (16 * next(iter(depth)) + 8))
    assert paths.spent(PassMacs(ctx.space, ctx.task.example(1))) == Cost()


def booked(ctx: Context, spent: Spent, depths: list[int], samples: int) -> Cost:
    macs = {1: 24.0, 2: 40.0}
    with spent.booking(ctx.space), torch.no_grad():
        for depth in depths:
            ctx.space.select(Architecture({"more": depth}))
            ctx.space.model(torch.zeros(samples, 4))
    return spent.take(lambda path: macs[path["more"]])


def test_the_first_passes_are_counted_and_later_ones_taken_for_as_costly():
    ctx, spent = context(of_a_depth), Spent()
    assert booked(ctx, spent, [1] * 6, 10) == Cost(samples=60, macs=60 * 24)
    assert booked(ctx, spent, [2] * 3, 30) == Cost(samples=90, macs=60 * 40 + 30 * 32)
    assert booked(ctx, spent, [1] * 7, 1) == Cost(samples=7, macs=7 * 32)
    assert booked(ctx, spent, [], 1) == Cost()


def test_what_is_built_of_the_model_meanwhile_is_not_booked():
    ctx, spent = context(of_a_depth), Spent()
    with spent.booking(ctx.space):
        network = Space(ctx.space.model).build(Architecture({"more": 1}))
        network(torch.zeros(3, 4))
    ctx.space.model(torch.zeros(3, 4))
    assert spent.take(lambda _: 1.0) == Cost()
