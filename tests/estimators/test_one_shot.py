from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from assay.architecture import Architecture
from assay.contracts import Context, History, Proposal, Trial
from assay.cost import Budget, derive
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.executors.inline import Inline
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.train import loop
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.paths import Uniform
from assay.weights.supernet import Supernet
from assay.zoo.cell import cell
from tests.space.spaces import Chain


def context(space: Space, **recipe: float) -> Context:
    images = derive(0, "data").integers(0, 256, (100, 8, 8), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(100) % 10, layout="NHW")
    settled = Recipe(batch_size=16).with_(**recipe)
    return Context(space, task, settled, Inline(), "cpu", 0, History(space))


def test_scores_and_metrics_have_their_names_and_their_cost() -> None:
    ctx = context(Space(Chain))
    rng = np.random.default_rng(0)
    proposals = [Proposal(ctx.space.sample(rng)) for _ in range(6)]
    by_loss, by_metric = OneShot(score="loss"), OneShot(score="metric")
    for estimator in (by_loss, by_metric):
        assert sum(c.samples for c in estimator.prepare(ctx, Budget(steps=4))) == 4 * 16
    for one, other in zip(by_loss.estimate(ctx, proposals), by_metric.estimate(ctx, proposals)):
        assert one.score == -one.metrics["supernet_loss"]
        assert other.score == other.metrics["supernet_accuracy"]
        assert one.metrics == other.metrics
        assert one.cost.wall_s > 0
        assert one.made_from == {"estimator": "one-shot", "score": "loss", "shared": True}
    assert by_loss.estimate(ctx, []) == []


def test_agreement_is_with_the_largest_network_and_wants_classes() -> None:
    ctx = context(Space(Chain))
    rng = np.random.default_rng(0)
    largest = ctx.space.largest(ctx.task.example(1))
    points = [largest, *(ctx.space.sample(rng) for _ in range(5))]
    estimator = OneShot(score="agreement")
    list(estimator.prepare(ctx, Budget(steps=4)))
    found = estimator.estimate(ctx, [Proposal(point) for point in points])
    assert all(one.score == one.metrics["supernet_agreement"] < 0 for one in found)
    assert found[0].score == max(one.score for one in found)
    again = estimator.estimate(ctx, [Proposal(point) for point in points[3:]])
    assert [e.score for e in again] == pytest.approx([e.score for e in found[3:]], abs=1e-5)
    guiding = [e.cost.samples for e in found], [e.cost.samples for e in again]
    passes = estimator.states * sum(len(y) for _, y in ctx.task.valid.batches(8, limit=512))
    assert guiding == ([round(passes + passes / 6)] * 6, [passes] * 3)  # it predicts once
    assert found[3].cost.macs > again[0].cost.macs > 0

    squared = Task(ctx.task.train, ctx.task.valid, loss=lambda o, t: (o.sum(1) - t).square().mean())
    other = replace(ctx, task=squared)
    with pytest.raises(InvalidSetting, match=r"score='agreement'.*use 'loss' or 'metric'"):
        next(iter(OneShot(score="agreement").prepare(other, Budget(steps=4))))


def test_scores_are_by_agreement_where_the_largest_network_has_something_to_say() -> None:
    class Uniformly(Uniform):
        """Paths of one's own."""

    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = OneOf(relu=nn.ReLU(), tanh=nn.Tanh())
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(x.flatten(1)))

    sizes, alike = context(Space(Chain)), context(Space(Alike))
    squared = Task(sizes.task.train, sizes.task.valid, loss=lambda o, t: o.square().mean())
    for ctx, settings, score in (
        (sizes, {}, "agreement"),
        (sizes, {"paths": "fair"}, "agreement"),
        (sizes, {"paths": Uniformly()}, "loss"),
        (sizes, {"score": "loss"}, "loss"),
        (alike, {}, "loss"),
        (alike, {"score": "agreement"}, "agreement"),
        (replace(sizes, task=squared), {}, "loss"),
    ):
        estimator = OneShot(**settings)
        list(estimator.prepare(ctx, Budget(steps=2)))
        (told,) = estimator.estimate(ctx, [Proposal(ctx.space.sample(np.random.default_rng(0)))])
        assert told.made_from["score"] == score
        figure = told.metrics[f"supernet_{score}"]
        assert told.score == (figure if score == "agreement" else -figure)


class Drifting(nn.Module):
    """Has a state that sharing cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + self.calls % 7)


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.op = OneOf(a=nn.Identity(), b=nn.ReLU())
        self.drift = Drifting()
        self.last = OneOf(a=nn.Linear(64, 10), b=nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drift(self.op(self.flat(x))))


def test_a_model_with_hidden_state_is_scored_path_by_path_and_says_so() -> None:
    ctx = context(Space(Hidden))
    estimator = OneShot()
    list(estimator.prepare(ctx, Budget(steps=1)))
    found = estimator.estimate(ctx, [Proposal(a) for a in ctx.space.all()])
    assert all(e.made_from["shared"] is False for e in found)
    assert all("differs by" in e.made_from["unshared_because"] for e in found)

    # One that takes up the search knows it from the history, also of a single path.
    for number, (point, estimate) in enumerate(zip(ctx.space.all(), found)):
        ctx.history.append(Trial(number, point, "scored", estimate))
    resumed = OneShot()
    resumed.load_state_dict(estimator.state_dict())
    (again,) = resumed.estimate(ctx, [Proposal(ctx.space.smallest())])
    assert again.made_from == found[0].made_from


def test_a_path_whose_loss_is_nan_says_nothing_against_sharing() -> None:
    class Breaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Identity(), b=Nan())
            self.last = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.op(x))

    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("nan")

    ctx = context(Space(Breaking))
    estimator = OneShot(paths=Firsts())
    list(estimator.prepare(ctx, Budget(steps=1)))
    points = [Architecture({"op": op}) for op in "ab"]
    found = estimator.estimate(ctx, [Proposal(point) for point in points])
    assert np.isfinite(found[0].score)
    assert np.isnan(found[1].score)
    made_from = {"estimator": "one-shot", "score": "loss", "shared": True}
    assert all(e.made_from == made_from for e in found)


class Firsts:
    """Trains the first option of everything alone."""

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> list[Architecture]:
        return [space.complete({}, lambda choice: choice.options[0])]


X, Y = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)), torch.arange(600) % 2


def normed(train, valid) -> Context:
    space = Space(
        nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), OneOf(a=nn.Tanh(), b=nn.ReLU()), nn.Linear(4, 2)
        )
    )
    task = Task(train, valid)
    return Context(space, task, Recipe(batch_size=16), Inline(), "cpu", 0, History(space))


def loader(num: int, size: int) -> DataLoader:
    return DataLoader(TensorDataset(X[:num], Y[:num]), batch_size=size)


@pytest.mark.parametrize(
    ("valid", "sizes"),
    [
        ((X[:257], Y[:257]), [129, 128]),
        (loader(97, 32), [97]),
        (loader(259, 86), [130, 129]),
        (loader(5, 1), [5]),
    ],
    ids=["arrays", "loader", "loader, over two batches", "loader, one by one"],
)
def test_no_scoring_batch_is_too_small_for_its_norms(valid, sizes) -> None:
    ctx, estimator = normed((X, Y), valid), OneShot()
    list(estimator.prepare(ctx, Budget(steps=1)))
    points = list(ctx.space.all())
    found = estimator.estimate(ctx, [Proposal(point) for point in points])
    assert [len(targets) for _, targets in estimator._data(ctx)[0]] == sizes
    # What is booked is what was judged, by both states of the training.
    assert [e.cost.samples for e in found] == [sum(sizes) * len(estimator._kept)] * len(points)


@pytest.mark.parametrize(
    ("train", "sizes"),
    [
        ((X, Y), [100]),
        ((X[:80], Y[:80]), [80]),
        (DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True), [52, 52]),
        (DataLoader(TensorDataset(X[:33], Y[:33]), batch_size=16), [33]),
    ],
    ids=["arrays", "few", "loader", "loader, last of one"],
)
def test_norms_are_measured_on_as_many_samples_as_asked_for(train, sizes) -> None:
    ctx, estimator = normed(train, (X, Y)), OneShot(norms="recalibrate", calibration=100, batch=100)
    list(estimator.prepare(ctx, Budget(steps=1)))
    estimator.estimate(ctx, [Proposal(point) for point in ctx.space.all()])
    assert [len(targets) for _, targets in estimator._data(ctx)[1]] == sizes


@pytest.mark.parametrize(
    ("figures", "noise", "shares"),
    [
        ({"loss": 1.0}, 5e-6, True),
        ({"loss": 1.0}, 5e-5, False),
        ({"loss": 1.0, "mae": 1e4}, 1e-2, True),
    ],
)
def test_sharing_holds_where_a_path_scored_by_itself_differs_by_less_than_1e_5(
    figures, noise, shares
) -> None:
    ctx, estimator = normed((X, Y), (X, Y)), OneShot()
    list(estimator.prepare(ctx, Budget(steps=1)))
    last = list(figures)[-1]

    def scores(ctx, points, *, shared):
        return [figures | {last: figures[last] + noise * shared} for _ in points]

    estimator._scores = scores  # type: ignore[method-assign]
    found = estimator.estimate(ctx, [Proposal(point) for point in ctx.space.all()])
    assert all(e.made_from["shared"] is shares for e in found)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InvalidSetting, match="did you mean 'fair'"):
        OneShot(paths="fare")
    with pytest.raises(InvalidSetting, match=r"estimator\.samples=0"):
        OneShot(samples=0)
    with pytest.raises(InvalidSetting, match=r"estimator\.rate=0"):
        OneShot(rate=0.0)
    for words, message in (
        ({"norms": "batches"}, "estimator.norms='batches'; did you mean 'batch'"),
        ({"score": "x"}, "estimator.score='x'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"ema": 1.0}, r"estimator\.ema=1.0"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            OneShot(**words)


class Turns:
    """Paths that learn at every fourth step, and whose steps take seconds that are known."""

    every = 4

    def __init__(self, plain_s: float, turn_s: float) -> None:
        self.now_s, self.plain_s, self.turn_s = 0.0, plain_s, turn_s

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> list[Architecture]:
        return [space.sample(rng)]

    def learn(self, supernet: Supernet, task: Task, step: int) -> None:
        self.now_s += self.plain_s + self.turn_s * (step % self.every == 0)


@pytest.mark.parametrize("plain_s", [0.01, 0.2, 1.0])
def test_the_turns_of_paths_that_learn_have_their_share_of_a_step(monkeypatch, plain_s) -> None:
    paths = Turns(plain_s, turn_s=2 * plain_s)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: paths.now_s))
    told_s = OneShot(paths=paths).step_seconds(context(Space(Chain)))
    assert told_s == pytest.approx(1.5 * plain_s)


def test_a_state_alone_is_enough_to_score() -> None:
    first, second = context(Space(Chain)), context(Space(Chain))
    trained, loaded = OneShot(), OneShot()
    list(trained.prepare(first, Budget(steps=3)))
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v
             for k, v in trained.state_dict().items()}  # fmt: skip
    loaded.load_state_dict(state)
    proposals = [Proposal(first.space.smallest())]
    assert trained.estimate(first, proposals)[0].score == pytest.approx(
        loaded.estimate(second, proposals)[0].score, abs=1e-6
    )


def test_an_estimator_that_is_used_again_knows_nothing_of_the_search_before() -> None:
    images = derive(1, "data").integers(0, 256, (120, 8, 8), dtype=np.uint8)
    first = context(Space(Hidden))  # which is not shared
    second = replace(
        context(Space(Chain)), task=Task.from_arrays(images, np.arange(120) % 10, layout="NHW")
    )
    used, fresh = OneShot(), OneShot()
    list(used.prepare(first, Budget(steps=1)))
    used.estimate(first, [Proposal(point) for point in first.space.all()])
    proposals = [Proposal(second.space.smallest()), Proposal(second.space.largest())]
    costs, found = [], []
    for estimator in (used, fresh):
        costs.append(sum(cost.macs for cost in estimator.prepare(second, Budget(steps=2))))
        found.append(estimator.estimate(second, proposals))
    assert costs[0] == costs[1]
    for one, other in zip(*found):
        assert (one.score, one.made_from) == (other.score, other.made_from)
        assert one.cost.macs == other.cost.macs


def test_a_score_is_the_mean_over_states_of_the_second_half() -> None:
    def scores(states: int, steps: int) -> list[float]:
        ctx = context(Space(Chain), warmup=0.0)  # so that a shorter training is the beginning
        estimator = OneShot(states=states, ema=0.0)
        list(estimator.prepare(ctx, Budget(steps=steps)))
        proposals = [Proposal(ctx.space.smallest()), Proposal(ctx.space.largest())]
        return [e.score for e in estimator.estimate(ctx, proposals)]

    expected = np.mean([scores(1, 6), scores(1, 8)], axis=0)
    np.testing.assert_allclose(scores(2, 8), expected, rtol=1e-5)


def test_the_supernet_is_a_cheap_variant_where_the_space_names_one() -> None:
    images = derive(0, "data").integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(100) % 10, layout="NCHW")
    space = cell(channels=4, cells=2)
    ctx = Context(space, task, Recipe(batch_size=16), Inline(), "cpu", 0, History(space))
    own = [p.detach().clone() for p in space.model.parameters()]
    cheap, whole = OneShot(), OneShot(variant={}, resolution=1.0)
    assert not cheap.shares_weights(ctx)
    assert whole.shares_weights(ctx)
    list(cheap.prepare(ctx, Budget(steps=2)))
    assert all(torch.equal(a, b) for a, b in zip(own, space.model.parameters()))
    assert np.isfinite(cheap.estimate(ctx, [Proposal(space.smallest())])[0].score)
