from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from assay.contracts import Context, History, Proposal
from assay.cost import Budget, derive
from assay.errors import AssayError, InvalidSetting, InvalidSpace, InvalidStudy
from assay.estimators.hypernet import Hypernet
from assay.estimators.one_shot import OneShot
from assay.executors.inline import Inline
from assay.testing import EstimatorContract
from assay.testing.tiny import tiny_context, tiny_task
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.zoo.memory_bank import memory_bank


def proposals(ctx: Context, num: int = 4) -> list[Proposal]:
    rng = derive(0, "proposals")
    return [Proposal(ctx.space.sample(rng)) for _ in range(num)]


def banks() -> Context:
    """Tiny images of noise, and memory banks to classify them."""
    rng = derive(0, "noise")
    task = Task.from_arrays(rng.integers(0, 256, (90, 4, 4), dtype="uint8"),
                            rng.permutation(90) % 3, layout="NHW")  # fmt: skip
    space = memory_bank(input_shape=(1, 4, 4), num_classes=3, widths=(4,), depth=(1, 2), banks=2)
    return Context(space, task, Recipe(batch_size=16), Inline(), "cpu", 0, History(space))


class TestSmashOnMemoryBanks(EstimatorContract):
    estimator = staticmethod(lambda: Hypernet(generator="smash", hidden=4))

    def context(self):
        return banks()


def test_scores_and_metrics_have_their_names_and_their_cost():
    ctx, other = tiny_context(), tiny_context()
    by_loss, by_metric = Hypernet(hidden=8), Hypernet(hidden=8, score="metric")
    assert sum(c.samples for c in by_loss.prepare(ctx, Budget(steps=4))) == 4 * 16
    list(by_metric.prepare(other, Budget(steps=4)))
    for one, two in zip(
        by_loss.estimate(ctx, proposals(ctx)), by_metric.estimate(other, proposals(other))
    ):
        assert one.score == -one.metrics["hypernet_loss"]
        assert two.score == two.metrics["hypernet_accuracy"]
        assert one.metrics == two.metrics
        assert one.cost.samples == len(ctx.task.valid)
        assert one.made_from == {"estimator": "hypernet", "generator": "mlp", "hidden": 8}
    assert by_loss.estimate(ctx, []) == []


def test_cost_counts_the_network_and_the_generator():
    """Two products for each tile: hidden x hidden and hidden x 256; and one for the code."""
    macs, ctx = {}, tiny_context()
    point = ctx.space.complete({"body": 1, "body.0": "wide"}, lambda choice: max(choice.options))
    for hidden in (4, 8):
        estimator = Hypernet(hidden=hidden)
        (cost,) = estimator.prepare(ctx, Budget(steps=1))
        assert cost.macs > 0
        macs[hidden] = estimator.estimate(ctx, [Proposal(point)])[0].cost.macs
    tiles, code = 3, len(ctx.space.encode(point))  # of 8 x 8, 8 x 8 and 8 x 3 weights
    generating = {h: tiles * h * (h + 256) + code * h for h in macs}
    assert macs[8] - macs[4] == generating[8] - generating[4]
    assert macs[8] - generating[8] == len(ctx.task.valid) * (6 * 8 + 8 * 8 + 8 * 8 + 8 * 3)


@pytest.mark.parametrize("generator", ["mlp", "smash"])
def test_a_state_alone_is_enough_to_score(generator):
    first, second = banks(), banks()
    trained, loaded = (Hypernet(generator=generator, hidden=4) for _ in range(2))
    list(trained.prepare(first, Budget(steps=3)))
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v
             for k, v in trained.state_dict().items()}  # fmt: skip
    loaded.load_state_dict(state)
    assert loaded.state_dict() == state
    scores = [e.score for e in trained.estimate(first, proposals(first))]
    assert [e.score for e in loaded.estimate(second, proposals(second))] == scores
    assert len(set(scores)) == len(scores)


def test_training_lowers_the_loss_and_more_so_with_a_larger_hypernetwork():
    means = {}
    for hidden, steps in ((16, 1), (1, 200), (16, 200)):
        ctx, estimator = tiny_context(), Hypernet(hidden=hidden, lr=1e-2)
        list(estimator.prepare(ctx, Budget(steps=steps)))
        scores = [e.score for e in estimator.estimate(ctx, proposals(ctx, 20))]
        means[hidden, steps] = sum(scores) / len(scores)
    assert means[16, 200] > means[1, 200] > means[16, 1]
    assert means[16, 200] > -0.8 * math.log(3)


def test_the_ambient_generator_and_the_model_are_left_alone():
    ctx, estimator = tiny_context(), Hypernet(hidden=4)
    before = torch.get_rng_state()
    list(estimator.prepare(ctx, Budget(steps=2)))
    estimator.estimate(ctx, proposals(ctx))
    assert torch.equal(torch.get_rng_state(), before)
    assert ctx.space.shadowed == []
    assert all("weight" not in m.__dict__ for m in ctx.space.model.modules())
    network = ctx.space.build(proposals(ctx)[0].architecture)
    assert all(p.requires_grad for p in network.parameters())


def test_banks_only_have_smashs_code():
    with pytest.raises(InvalidSpace, match="use the generator 'mlp'"):
        list(Hypernet(generator="smash").prepare(tiny_context(), Budget(steps=1)))


def test_a_state_of_another_size_is_refused():
    ctx = tiny_context()
    small, large = Hypernet(hidden=4), Hypernet(hidden=8)
    list(small.prepare(ctx, Budget(steps=1)))
    large.load_state_dict(small.state_dict())
    with pytest.raises(InvalidStudy, match="is not generator='mlp' with hidden=8"):
        list(large.prepare(tiny_context(), Budget(steps=2)))


def test_settings_that_cannot_be():
    with pytest.raises(InvalidSetting, match="did you mean 'smash'"):
        Hypernet(generator="smahs")
    with pytest.raises(InvalidSetting, match=r"estimator\.hidden=0"):
        Hypernet(hidden=0)
    with pytest.raises(InvalidSetting, match=r"estimator\.score='acc'"):
        Hypernet(score="acc")
    for lr in (-1, 0.0, math.nan, 101.0):
        with pytest.raises(InvalidSetting, match=rf"estimator\.lr={lr} must be from 1e-08 to 100"):
            Hypernet(lr=lr)


def test_unprepared_it_estimates_nothing():
    ctx = tiny_context()
    with pytest.raises(AssayError, match="hypernet has no weights yet: call prepare, or load a"):
        Hypernet().estimate(ctx, proposals(ctx))


def test_another_that_trains_the_same_model_changes_nothing():
    ctx, own, other = tiny_context(), Hypernet(hidden=8), OneShot(states=1)
    points = proposals(ctx)
    for estimator in (own, other):
        list(estimator.prepare(ctx, Budget(steps=6)))
    alone, state = tiny_context(), dict(own.state_dict())
    same = Hypernet(hidden=8)
    list(same.prepare(alone, Budget(steps=6)))
    expected = [e.score for e in same.estimate(alone, points)]
    assert [e.score for e in own.estimate(ctx, points)] == expected
    other.estimate(ctx, points)
    assert [e.score for e in own.estimate(ctx, points)] == expected
    other.estimate(ctx, points)
    assert all(torch.equal(t, state[k]) for k, t in own.state_dict().items() if k[:6] == "module")


def test_it_goes_on_from_its_own_state_where_another_trains_in_between():
    ctx, own, other = tiny_context(), Hypernet(hidden=8), OneShot(states=1)
    mine, its = own.prepare(ctx, Budget(steps=6)), other.prepare(ctx, Budget(steps=6))
    for _ in mine:
        next(its, None)
    alone, same = tiny_context(), Hypernet(hidden=8)
    list(same.prepare(alone, Budget(steps=6)))
    points = proposals(ctx)
    expected = [e.score for e in same.estimate(alone, points)]
    assert [e.score for e in own.estimate(ctx, points)] == expected


def test_no_scoring_batch_has_a_single_sample():
    ctx = tiny_context()
    num = len(ctx.task.valid)
    batches = Hypernet(batch=num - 1)._data(ctx)
    assert [len(targets) for _, targets in batches] == [num - num // 2, num // 2]


def test_on_another_context_nothing_of_the_one_before_is_left():
    one = tiny_context()
    other = replace(one, task=tiny_task(90), space=tiny_context().space)
    again, fresh = Hypernet(hidden=8), Hypernet(hidden=8)
    list(again.prepare(one, Budget(steps=2)))
    again.estimate(one, proposals(one))
    for estimator in (again, fresh):
        list(estimator.prepare(other, Budget(steps=2)))
    told, wanted = (e.estimate(other, proposals(other)) for e in (again, fresh))
    assert [e.score for e in told] == [e.score for e in wanted]
    assert {e.cost.samples for e in told} == {len(other.task.valid)}
