"""Cheaper trainings: rungs go on to the same bits, and each proxy does what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from assay import OneOf, Space, Width
from assay.contracts import Proposal
from assay.cost import derive
from assay.errors import InvalidSetting, UnsupportedLayer
from assay.estimators import low_fidelity
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.scratch import Scratch
from assay.estimators.training import Training
from assay.executors.inline import Inline
from assay.testing import tiny_context, tiny_task
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.zoo.mobile import Stage, mobile


def context(epochs=4):
    return tiny_context(recipe=Recipe(batch_size=16, epochs=epochs))


def point(ctx, seed=0):
    return ctx.space.canonical(ctx.space.sample(derive(seed, "point")))


@pytest.mark.parametrize("score", ["loss", "metric", "training"])
def test_a_rung_goes_on_to_the_bits_of_a_training_that_never_stopped(score):
    ctx = context()
    climbing, straight = (LowFidelity(share=1.0, score=score) for _ in range(2))
    a = point(ctx)
    first, second, third = (
        climbing.estimate(ctx, [Proposal(a, fidelity)])[0] for fidelity in (0.25, 0.5, 1.0)
    )
    whole = straight.estimate(ctx, [Proposal(a)])[0]
    assert third.score == whole.score
    assert dict(third.metrics) == dict(whole.metrics)
    # Each rung pays for its own steps only, and to be judged on validation where it is.
    judged = 0 if score == "training" else len(ctx.task.valid)
    paid = first.cost.samples + second.cost.samples + third.cost.samples
    assert paid == whole.cost.samples + 2 * judged
    assert ("proxy_loss" in whole.metrics) == (score != "training")
    assert second.cost.samples == first.cost.samples


def test_a_fit_is_of_the_same_points_whatever_was_trained_below():
    ctx, a = context(), point(context())
    climbing, straight = (LowFidelity(share=1.0, score="fit", points=4) for _ in range(2))
    climbing.estimate(ctx, [Proposal(a, 0.5)])
    third, whole = (e.estimate(ctx, [Proposal(a)])[0] for e in (climbing, straight))
    assert third.score == whole.score
    assert third.cost.samples == whole.cost.samples


def test_a_lower_rung_asked_for_again_is_trained_from_the_start():
    ctx = context()
    climbing, fresh = LowFidelity(share=1.0), LowFidelity(share=1.0)
    a = point(ctx)
    climbing.estimate(ctx, [Proposal(a, 0.5)])
    again = climbing.estimate(ctx, [Proposal(a, 0.25)])[0]
    assert again.score == fresh.estimate(ctx, [Proposal(a, 0.25)])[0].score


def test_states_that_do_not_fit_are_let_go_the_oldest_first(monkeypatch):
    ctx = context()
    climbing, straight = LowFidelity(share=1.0), LowFidelity(share=1.0)
    proposals = [Proposal(point(ctx, seed), 0.5) for seed in range(4)]
    climbing.estimate(ctx, proposals)
    points = [p.architecture for p in proposals]
    assert list(climbing._states) == points
    sizes = [low_fidelity._num_bytes(trained.state) for _, trained in climbing._states.values()]
    num_weights = sum(p.numel() for p in ctx.space.build(points[0]).parameters())
    assert 3 * 4 * num_weights <= sizes[0] <= 3 * 4 * num_weights + 500  # beside norms' own
    monkeypatch.setattr(low_fidelity, "_KEPT_BYTES", sum(sizes[2:]) + sizes[0])
    climbing.estimate(ctx, [Proposal(points[0], 0.75)])
    assert list(climbing._states) == [points[2], points[3], points[0]]
    for at, a in enumerate(points[1:3]):  # what was let go of is trained anew, to the same bits
        once = climbing.estimate(ctx, [Proposal(a)])[0]
        assert once.score == straight.estimate(ctx, [Proposal(a)])[0].score
        assert once.cost.samples == (28 - 14 * at) * 16 + len(ctx.task.valid)


def test_steps_and_samples_are_those_of_the_shares():
    ctx = context()
    whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(16)
    cheap = LowFidelity(share=0.5, data=0.5)
    estimate = cheap.estimate(ctx, [Proposal(point(ctx))])[0]
    assert cheap.steps_each(ctx) == round(0.5 * whole)
    assert estimate.made_from["steps"] == round(0.5 * whole)
    assert estimate.cost.samples == round(0.5 * whole) * 16 + len(ctx.task.valid)


def test_the_training_loss_is_the_mean_over_the_window():
    ctx = context()
    a = point(ctx)
    losses = LowFidelity(share=1.0)._job(ctx, a, 1.0)().losses
    assert len(losses) == 28
    for window, last in ((1.0, 28), (0.5, 14), (0.1, 3), (0.001, 1)):
        told = LowFidelity(share=1.0, score="training", window=window)
        estimate = told.estimate(ctx, [Proposal(a)])[0]
        assert estimate.score == pytest.approx(-np.mean(losses[-last:]))


def images():
    drawn = derive(0, "images").integers(0, 256, size=(90, 1, 8, 8), dtype=np.uint8)
    return Task.from_arrays(drawn, np.repeat(np.arange(3), 30))


def test_fewer_channels_of_a_ready_space_and_a_lower_resolution():
    rng, task = derive(0, "points"), images()
    stages = (Stage((8, 12), (1, 2)),)
    space = mobile(input_shape=(1, 8, 8), num_classes=3, stages=stages, kernels=(3,), head=16)
    ctx = tiny_context()
    ctx = type(ctx)(space, task, Recipe(batch_size=16, epochs=1), Inline(), "cpu", 0, ctx.history)
    seen = []
    cheap = LowFidelity(share=1.0, resolution=0.5, variant={"head": 8})
    job = cheap._job(ctx, space.canonical(space.sample(rng)), 1.0)
    job.network.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
    job()
    assert set(seen) == {(1, 4, 4)}
    assert job.network.classifier.in_features == 8
    with pytest.raises(InvalidSetting, match=r"variant.*no_such"):
        LowFidelity(variant={"no_such": 1}).estimate(ctx, [Proposal(space.sample(rng))])


def test_fewer_channels_of_any_space_also_where_the_width_is_a_choice():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            width = Width(8, 16)
            self.stem = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU())
            self.body = OneOf(conv=nn.Conv2d(width, width, 3, padding=1), skip=nn.Identity())
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            return self.head(self.body(self.stem(x)).mean((2, 3)))

    ctx = replace(context(), space=Space(Net), task=images())
    cheap, whole = LowFidelity(share=1.0, channels=0.5), LowFidelity(share=1.0)
    for architecture in ctx.space.all():
        job, usual = (e._job(ctx, architecture, 1.0) for e in (cheap, whole))
        assert 2 * job.network.head.in_features == usual.network.head.in_features
    thin, usual = (e.estimate(ctx, [Proposal(architecture)])[0] for e in (cheap, whole))
    assert math.isfinite(thin.score)
    assert (thin.cost.samples, thin.cost.macs < usual.cost.macs) == (usual.cost.samples, True)
    assert cheap.training_step_seconds(ctx) > 0
    assert not replace(cheap, score="metric", schedule="cosine", ema=0.0).trains_whole(ctx)


def test_channels_that_cannot_be_fewer_are_refused_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1, 8, 8))
            self.body = OneOf(two=nn.Linear(64, 3), one=nn.Linear(64, 3, bias=False))

        def forward(self, x):
            return self.body((x + self.place).flatten(1))

    ctx = replace(context(), space=Space(Net), task=images())
    with pytest.raises(UnsupportedLayer, match="'the network itself' cannot have fewer channels"):
        LowFidelity(channels=0.5).estimate(ctx, [Proposal(point(ctx))])


def test_a_space_of_ones_own_has_no_variant():
    ctx = context()
    with pytest.raises(InvalidSetting, match="only ready spaces"):
        LowFidelity(variant={"cells": 1}).estimate(ctx, [Proposal(point(ctx))])


def test_scratch_states_mean_and_spread_over_seeds():
    ctx = context()
    estimate = Scratch(seeds=3).estimate(ctx, [Proposal(point(ctx))])[0]
    scores = estimate.made_from["scores"]
    assert len(scores) == 3
    assert estimate.score == pytest.approx(np.mean(scores))
    assert estimate.metrics["scratch_spread"] == pytest.approx(np.std(scores, ddof=1))
    one = Scratch().estimate(ctx, [Proposal(point(ctx))])[0]
    assert one.score == scores[0]
    assert "scratch_spread" not in one.metrics


def test_global_state_is_left_alone():
    ctx = context()
    before = torch.get_rng_state()
    LowFidelity(share=0.2).estimate(ctx, [Proposal(point(ctx))])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("options", [{"share": 0}, {"data": 2.0}, {"score": "fit", "points": 3}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InvalidSetting, match="estimator"):
        LowFidelity(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "acuracy"}, r"score='acuracy'; there are: fit, loss, metric, training"),
        ({"score": "los"}, r"score='los'; did you mean 'loss'"),
        ({"schedule": "cosin"}, r"schedule='cosin'; did you mean 'cosine'"),
        ({"samples": -1}, r"samples=-1 must be 0 or more"),
        ({"steps": -1}, r"steps=-1 must be 0 or more"),
        ({"proxy": "digits"}, r"proxy='digits' is no Task"),
        ({"resolution": 2.0}, r"resolution=2\.0 must be from 0 to 1"),
        ({"ema": 1.0}, r"ema=1\.0 from 0 to less than 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(options, said):
    with pytest.raises(InvalidSetting, match=r"estimator\." + said):
        LowFidelity(**options)


@pytest.mark.parametrize(
    ("options", "fidelity", "steps"), [({"steps": 3}, 1.0, 3), ({"share": 1.0}, 0.08, 2)]
)
def test_a_fit_of_too_few_steps_is_refused_before_they_are_paid_for(
    monkeypatch, options, fidelity, steps
):
    ctx = context()
    monkeypatch.setattr(Training, "__call__", lambda self: pytest.fail("was begun"))
    with pytest.raises(InvalidSetting, match=rf"of {steps} steps is too short .* estimator\.steps"):
        LowFidelity(score="fit", points=4, **options).estimate(
            ctx, [Proposal(point(ctx), fidelity)]
        )


def test_a_curve_that_cannot_be_fitted_fails_alone(monkeypatch):
    """A validation loss may be NaN where no training loss and no weight was."""
    ctx = context()
    a, b = (point(ctx, seed) for seed in (0, 1))
    judged, judge = [], Training._judge

    def lost_once(training, trainer):
        judged.append(judge(training, trainer))
        return {**judged[-1], "loss": math.nan} if len(judged) == 2 else judged[-1]

    monkeypatch.setattr(Training, "_judge", lost_once)
    lost, good = LowFidelity(share=1.0, score="fit", points=4).estimate(
        ctx, [Proposal(a), Proposal(b)]
    )
    assert "its losses are" in lost.failure
    assert good.failure == ""
    assert lost.cost.samples == good.cost.samples == 28 * 16 + 4 * len(ctx.task.valid)
    assert lost.made_from["steps"] == 28


@pytest.mark.parametrize(
    ("steps", "setting", "calls"), [(4, None, 0), (40, None, 40), (4, True, 4), (40, False, 0)]
)
def test_what_is_seen_five_times_or_less_is_not_augmented(steps, setting, calls):
    ctx, seen = context(), []

    def augment(inputs, generator):
        seen.append(len(inputs))
        return inputs

    ctx.task.augment = augment
    assert len(ctx.task.train) == 120  # 16 a step: 38 steps see each of them five times
    LowFidelity(steps=steps, augment=setting).estimate(ctx, [Proposal(point(ctx))])
    assert len(seen) == calls


def test_it_trains_a_whole_network_only_where_it_does_all_that_the_recipe_does():
    ctx = context()
    ctx = replace(ctx, recipe=ctx.recipe.with_(schedule="cosine", ema=0.0))
    whole = {
        "share": 1.0, "score": "metric", "schedule": "cosine", "ema": 0.0, "samples": 0,
        "augment": True,
    }  # fmt: skip
    assert LowFidelity(**whole).trains_whole(ctx)
    assert LowFidelity(**{**whole, "samples": len(ctx.task.valid)}).trains_whole(ctx)
    for other in (
        {"share": 0.9}, {"score": "loss"}, {"schedule": "constant"}, {"ema": 0.5}, {"samples": 5},
        {"data": 0.5},
    ):  # fmt: skip
        assert not LowFidelity(**{**whole, **other}).trains_whole(ctx), other
    assert not LowFidelity(share=1.0).trains_whole(ctx)
    assert Scratch().trains_whole(ctx)
    assert not Scratch(score="loss").trains_whole(ctx)


@pytest.mark.parametrize(("steps", "score"), [(3, "training"), (4, "training"), (5, "loss")])
def test_by_default_training_losses_count_while_no_sample_is_seen_again(steps, score):
    ctx = tiny_context(recipe=Recipe(batch_size=len(tiny_task().train) // 4))
    a = ctx.space.largest(ctx.task.example(1))
    (told,) = LowFidelity(steps=steps).estimate(ctx, [Proposal(a)])
    (same,) = LowFidelity(steps=steps, score=score).estimate(ctx, [Proposal(a)])
    assert told.score == same.score
    assert told.made_from == same.made_from
    assert told.made_from["score"] == score
    (half,) = LowFidelity(steps=steps, data=0.5).estimate(ctx, [Proposal(a)])
    assert half.made_from["score"] == "loss"


@pytest.mark.parametrize(("batch", "score"), [(32, "loss"), (4, "training")])
def test_a_loader_has_its_own_batch_size_and_samples_are_seen_again_by_that(batch, score):
    ctx = tiny_context(recipe=Recipe(batch_size=16))
    samples = [(x, y) for x, y in zip(*next(ctx.task.train.batches(64)))]
    loaders = (DataLoader(samples, batch) for _ in range(2))  # 64 samples; 3 steps of 32 see 96
    ctx = replace(ctx, task=Task(*loaders, loss=nn.functional.cross_entropy))
    (told,) = LowFidelity(steps=3).estimate(ctx, [Proposal(ctx.space.largest())])
    assert told.made_from["score"] == score


def test_inputs_that_are_no_images_have_no_resolution():
    ctx = context()
    with pytest.raises(InvalidSetting, match=r"resolution=0\.5 needs images .*; leave it out"):
        LowFidelity(resolution=0.5).estimate(ctx, [Proposal(point(ctx))])
