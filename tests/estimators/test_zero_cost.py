from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from assay.contracts import Context, Estimate, History, Proposal
from assay.cost import Budget, derive
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.ranks import Ranks
from assay.estimators.zero_cost import ZeroCost
from assay.executors.inline import Inline
from assay.signals import SIZES, measure
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.testing import tiny_context, tiny_task
from assay.train.recipe import Recipe
from assay.train.task import Task


def proposals(ctx: Context, num: int = 5) -> list[Proposal]:
    rng = derive(5, "zero-cost")
    return [Proposal(ctx.space.sample(rng)) for _ in range(num)]


def scored(estimator: ZeroCost, ctx: Context, num: int = 5) -> list[Estimate]:
    for _ in estimator.prepare(ctx, Budget()):
        pass
    return estimator.estimate(ctx, proposals(ctx, num))


def context(*options: nn.Module) -> Context:
    """Return a context of a space whose one block is one of some options."""
    names = {f"o{i}": option for i, option in enumerate(options)}

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), OneOf(**copy.deepcopy(names)), nn.Linear(4, 3))

    space = Space(model)
    return Context(space, tiny_task(), Recipe(), Inline(), "cpu", 0, History(space))


def test_the_score_is_the_sum_of_log_ranks_in_the_reference_sample() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("params", "snip"), reference=12, batch=16)
    estimates = scored(estimator, ctx)
    rows = [values for _, values, _ in estimator.state_dict()["reference"]]
    assert len(rows) == 12
    for e in estimates:
        ranks = [
            Ranks(np.array([row[name] for row in rows]))(np.array(e.metrics[name]))
            for name in ("params", "snip")
        ]
        assert e.score == pytest.approx(sum(map(math.log, ranks)))


def test_a_single_signal_is_the_score_and_needs_no_sample() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("synflow",), batch=16)
    assert estimator.step_seconds(ctx) == 0.0
    assert list(estimator.prepare(ctx, Budget(steps=9))) == []
    for e in estimator.estimate(ctx, proposals(ctx)):
        assert e.score == e.metrics["synflow"]
        assert e.made_from == {"estimator": "zero-cost", "signals": ["synflow"], "undefined": {}}


def test_signals_are_those_of_fresh_networks_on_one_training_batch() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("snip",), batch=16)
    batch = next(ctx.task.train.train_batches(16, seed=ctx.seed))
    seed = int(derive(ctx.seed, "zero-cost", "weights").integers(2**31))
    for proposal, e in zip(proposals(ctx), estimator.estimate(ctx, proposals(ctx))):
        network = ctx.space.fresh(ctx.space.canonical(proposal.architecture), seed)
        assert dict(e.metrics) == measure(network, ["snip"], batch=batch, task=ctx.task, seed=seed)
        assert e.cost.samples == 16


def test_sizes_are_those_of_fresh_networks_and_draw_no_weights() -> None:
    made: list[nn.Module] = []

    def factory() -> nn.Module:
        wide = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 4))
        made.append(nn.Sequential(nn.Linear(6, 4), OneOf(a=nn.Tanh(), b=wide), nn.Linear(4, 3)))
        return made[-1]

    space, names = Space(factory), sorted(SIZES)
    ctx = Context(space, tiny_task(), Recipe(), Inline(), "cpu", 0, History(space))
    batch = next(ctx.task.train.train_batches(8, seed=ctx.seed))
    want = [
        measure(space.fresh(a, 1), names, batch=batch, task=ctx.task) for a in space.all()
    ]  # fmt: skip
    made.clear()
    estimator = ZeroCost(tuple(names), reference=2, batch=8)
    list(estimator.prepare(ctx, Budget()))
    found = estimator.estimate(ctx, [Proposal(a) for a in space.all()])
    assert [dict(e.metrics) for e in found] == want
    assert want[0] != want[1]
    assert made == []


def test_macs_and_parameters_are_told_by_the_space_where_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.dot(x.flatten(), x.flatten()) * x  # of which the space counts nothing

    wide = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 4))
    ctx, names = context(nn.Identity(), nn.Linear(4, 4), wide), ("macs", "params")
    batch = next(ctx.task.train.train_batches(8, seed=ctx.seed))
    points = list(ctx.space.all())
    want = [measure(ctx.space.build(a), names, batch=batch, task=ctx.task) for a in points]
    odd = context(nn.Identity(), Product())
    with monkeypatch.context() as patch:
        patch.setattr(Space, "build", None)
        estimator = ZeroCost(names, reference=3, batch=8)
        list(estimator.prepare(ctx, Budget()))
        found = estimator.estimate(ctx, [Proposal(a) for a in points])
        assert [dict(e.metrics) for e in found] == want
        assert len({e.score for e in found}) == 3
    with pytest.raises(InvalidSetting, match="no formula"):
        ZeroCost(("macs",), batch=8).estimate(odd, [Proposal(a) for a in odd.space.all()])


def test_the_reference_sample_is_distinct_and_bounded_by_space_and_budget() -> None:
    small, ctx = context(nn.Identity(), nn.ReLU(), nn.Tanh()), tiny_context()
    estimator = ZeroCost(("params", "snip"), reference=10, batch=8)
    assert sum(c.samples for c in estimator.prepare(small, Budget())) == 3 * 8
    other = ZeroCost(("params", "snip"), reference=10, batch=8)
    assert sum(c.samples for c in other.prepare(ctx, Budget(steps=4))) == 4 * 8
    assert sum(c.samples for c in other.prepare(ctx, Budget(steps=12))) == 6 * 8
    points = [text for text, _, _ in other.state_dict()["reference"]]
    assert len(set(points)) == 10


def test_what_no_network_of_the_sample_has_is_left_out_and_said() -> None:
    ctx = context(nn.Identity(), nn.Sigmoid(), nn.Tanh())
    with_it = scored(ZeroCost(("naswot", "params", "snip"), batch=8), ctx)
    without = scored(ZeroCost(("params", "snip"), batch=8), ctx)
    assert [e.score for e in with_it] == [e.score for e in without]
    for e in with_it:
        assert "has no ReLU" in e.made_from["left_out"]["naswot"]
        assert e.made_from["signals"] == ["params", "snip"]
        assert e.made_from["undefined"] == {}


def test_what_the_networks_code_fails_at_is_left_out_and_said() -> None:
    class Single(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, torch.ones(4, 4))  # in float32 whatever the input is

    ctx = context(Single(), nn.Sequential(Single(), nn.Tanh()))
    for e in scored(ZeroCost(("synflow", "params", "snip"), batch=8), ctx):
        assert "cannot run this network (RuntimeError: " in e.made_from["left_out"]["synflow"]
        assert e.made_from["signals"] == ["params", "snip"]


def test_what_one_network_has_not_is_its_lowest() -> None:
    ctx = context(nn.Identity(), nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 4)))
    estimator = ZeroCost(("naswot", "params"), reference=2, batch=8)
    list(estimator.prepare(ctx, Budget()))
    bare, relu = estimator.estimate(ctx, [Proposal(a) for a in ctx.space.all()])
    assert "has no ReLU" in bare.made_from["undefined"]["naswot"]
    assert set(bare.metrics) == {"params"}
    assert relu.made_from["undefined"] == {}
    assert bare.score == pytest.approx(2 * math.log(1 / 3))
    assert relu.score == pytest.approx(2 * math.log(2 / 3))


def test_where_nothing_can_be_measured_it_is_refused() -> None:
    ctx = context(nn.Identity(), nn.Tanh())
    with pytest.raises(InvalidSetting, match=r"no signal is defined .* has no ReLU"):
        scored(ZeroCost(("naswot", "progressivity"), batch=8), context(nn.Identity(), nn.Tanh()))
    with pytest.raises(InvalidSetting, match="has no ReLU"):
        ZeroCost(("naswot",), batch=8).estimate(ctx, proposals(ctx, 1))
    relu = context(nn.ReLU(), nn.Tanh())
    first = Proposal(next(relu.space.all()))
    with pytest.raises(NotFinite, match="logarithm of 0"):
        ZeroCost(("naswot",), batch=40).estimate(relu, [first])
    with pytest.raises(InvalidSetting, match="prepare it first"):
        ZeroCost(batch=8).estimate(ctx, proposals(ctx, 1))


def test_a_score_depends_on_no_other_and_the_history_is_not_read() -> None:
    ctx, estimator = tiny_context(), ZeroCost(reference=8, batch=16)
    together = [e.score for e in scored(estimator, ctx, 12)]
    alone = [e.score for p in proposals(ctx, 12) for e in estimator.estimate(ctx, [p])]
    assert together == alone
    assert estimator.estimate(ctx, []) == []


def test_killed_and_resumed_it_measures_only_what_is_missing() -> None:
    ctx = tiny_context()
    first, later = (ZeroCost(("params", "snip"), reference=20, batch=16) for _ in range(2))
    whole = ZeroCost(("params", "snip"), reference=20, batch=16)
    done = sum(c.samples for c in itertools.islice(first.prepare(ctx, Budget()), 1))
    later.load_state_dict(first.state_dict())
    left = sum(c.samples for c in later.prepare(ctx, Budget()))
    assert sum(c.samples for c in whole.prepare(ctx, Budget())) == done + left == 20 * 16
    assert later.state_dict() == whole.state_dict()


def test_torchs_generator_is_left_alone() -> None:
    ctx, before = tiny_context(), torch.get_rng_state()
    scored(ZeroCost(reference=2, batch=16), ctx)
    assert torch.equal(torch.get_rng_state(), before)


def test_quantiles_are_those_that_the_score_adds_up() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("params", "snip"), reference=12, batch=16)
    for e in scored(estimator, ctx):
        assert e.score == pytest.approx(sum(map(math.log, estimator.quantiles(e))))


def test_it_tells_what_it_takes() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("params", "snip"), reference=12, batch=16)
    single = ZeroCost(("snip",), batch=16)
    assert estimator.estimate_seconds(ctx) > 0
    assert single.estimate_seconds(ctx) > single.step_seconds(ctx) == 0
    estimator.step_seconds = lambda ctx: 0.5  # type: ignore[method-assign]
    assert estimator.reference_seconds(ctx) == 12 * 0.5


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InvalidSetting, match="did you mean 'naswot'"):
        ZeroCost(("naswott",))
    with pytest.raises(InvalidSetting, match="must name each signal once"):
        ZeroCost(())
    with pytest.raises(InvalidSetting, match="must name each signal once"):
        ZeroCost(("snip", "snip"))
    with pytest.raises(InvalidSetting, match=r"estimator\.reference=1 must be at least 2"):
        ZeroCost(reference=1)
    with pytest.raises(InvalidSetting, match=r"estimator\.batch=3 must be at least 4"):
        ZeroCost(batch=3)


@pytest.mark.parametrize(("batch", "found"), [(16, 16), (20, 20), (64, 40)])
def test_a_loader_of_small_batches_gives_as_many_samples_as_are_asked_for(batch, found) -> None:
    task = tiny_task()
    inputs, targets = next(task.train.batches(40))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=6)
    ctx = replace(tiny_context(), task=Task(loader, task.valid))
    together, classes = ZeroCost(batch=batch)._data(ctx)
    assert torch.equal(together, inputs[:found])
    assert torch.equal(classes, targets[:found])


def test_networks_beyond_all_of_the_sample_still_differ() -> None:
    ctx, estimator = tiny_context(), ZeroCost(("params", "macs"), reference=2)
    list(estimator.prepare(ctx, Budget()))
    points = list(dict.fromkeys(map(ctx.space.canonical, ctx.space.all())))
    told = estimator.estimate(ctx, [Proposal(a) for a in points])
    sizes = {tuple(e.metrics.values()): e.score for e in told}
    assert len(sizes) > 4
    assert len(set(sizes.values())) == len(sizes)
