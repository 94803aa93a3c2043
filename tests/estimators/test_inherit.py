from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, History, Proposal, Trial
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, NotFinite, UnsupportedLayer
from assay.estimators.inherit import Inherit
from assay.estimators.one_shot import OneShot
from assay.estimators.training import Trained, Training
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.testing.tiny import TinyNet, tiny_context
from assay.train.task import Task
from assay.weights.morph import plan


def prepared(steps: int = 9, **settings) -> tuple[Inherit, Context]:
    estimator, ctx = Inherit(**{"ancestors": 2, "tune_steps": 3, **settings}), tiny_context()
    list(estimator.prepare(ctx, Budget(steps=steps)))
    return estimator, ctx


def points(ctx: Context, num: int) -> list[Architecture]:
    rng = derive(5, "points")
    return [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num)]


def with_trials(ctx: Context, trials: Iterable[tuple[Architecture, int | None, str]]) -> Context:
    history = History(ctx.space)
    for number, (point, parent, state) in enumerate(trials):
        estimate = Estimate(0.0) if state == "scored" else None
        history.append(Trial(number, point, state, estimate, parent=parent))
    return replace(ctx, history=history)


def test_the_ancestors_share_the_steps_and_lie_apart():
    estimator, ctx = prepared(steps=9, ancestors=2)
    state = estimator.state_dict()
    assert (state["ancestor.0.step"], state["ancestor.1.step"], state["steps"]) == (5, 4, 9)
    one, other = estimator._points
    rng = np.random.default_rng(0)
    gaps = [
        np.linalg.norm(ctx.space.encode(a) - ctx.space.encode(b))
        for a, b in ((ctx.space.sample(rng), ctx.space.sample(rng)) for _ in range(50))
    ]
    assert np.linalg.norm(ctx.space.encode(one) - ctx.space.encode(other)) > np.median(gaps)
    few, _ = prepared(steps=1, ancestors=3)
    assert few.state_dict()["steps"] == 1
    assert len(few._points) == 1


def test_a_child_comes_from_the_ancestor_with_the_fewest_losses():
    estimator, ctx = prepared()
    for i, ancestor in enumerate(estimator._points):
        (found,) = estimator.estimate(ctx, [Proposal(ancestor)])
        assert found.made_from["from"] == {"ancestor": i}
        assert found.made_from["morphs"] == []
        near = ctx.space.mutate(ancestor, np.random.default_rng(0))
        (found,) = estimator.estimate(ctx, [Proposal(near)])
        assert [m["label"] for m in found.made_from["morphs"]][:1] == [
            m.label for m in plan(ctx.space, ancestor, near)
        ][:1]


def test_an_estimate_has_its_names_and_its_cost():
    estimator, ctx = prepared()
    (found,) = estimator.estimate(ctx, [Proposal(ctx.space.largest())])
    assert found.score == -found.metrics["inherited_loss"]
    assert 0 <= found.metrics["inherited_accuracy"] <= 1
    assert found.cost.samples == 3 * 16 + len(ctx.task.valid)
    assert found.made_from["generation"] == 1
    assert estimator.estimate(ctx, []) == []
    assert estimator.estimate_seconds(ctx) > 0


def test_a_child_of_a_scored_trial_has_its_weights():
    estimator, ctx = prepared()
    a, b, c = points(ctx, 3)
    ctx = with_trials(ctx, [(a, None, "scored"), (b, 0, "scored"), (c, None, "infeasible")])
    alone, child, grandchild, orphan = estimator.estimate(
        ctx, [Proposal(c), Proposal(c, parent=0), Proposal(c, parent=1), Proposal(c, parent=2)]
    )
    assert child.made_from["from"] == {"trial": 0}
    assert (grandchild.made_from["from"], grandchild.made_from["generation"]) == ({"trial": 1}, 3)
    assert len({alone.score, child.score, grandchild.score}) == 3
    assert orphan.score == alone.score
    assert orphan.made_from == alone.made_from


def test_a_lineage_worked_out_again_gives_the_same_bits(monkeypatch):
    estimator, ctx = prepared()
    a, b, c = points(ctx, 3)
    ctx = with_trials(ctx, [(a, None, "scored"), (b, 0, "scored")])
    for point, parent in ((a, None), (b, 0)):
        estimator.estimate(ctx, [Proposal(point, parent=parent)])
    kept = estimator.estimate(ctx, [Proposal(c, parent=1)])[0]
    again = Inherit(ancestors=2, tune_steps=3)
    again.load_state_dict(estimator.state_dict())
    worked_out = again.estimate(ctx, [Proposal(c, parent=1)])[0]
    assert worked_out.score == kept.score
    assert worked_out.cost.samples == kept.cost.samples + 2 * (3 * 16 + len(ctx.task.valid))
    monkeypatch.setattr("assay.estimators.inherit._FEWEST_KEPT", 1)
    monkeypatch.setattr("assay.estimators.inherit._MOST_BYTES", 0)
    assert again.estimate(ctx, [Proposal(c, parent=1)])[0].score == kept.score
    assert len(again._kept) == 1


def test_as_many_networks_are_kept_as_memory_holds_and_64_of_any_size(monkeypatch):
    estimator = Inherit()
    point = Architecture({"a": 1})
    for number in range(500):  # an elite's children come hundreds of trials after it
        estimator._remember((point, (number,)), {"weight": torch.zeros(256)})
    assert len(estimator._kept) == 500
    monkeypatch.setattr("assay.estimators.inherit._MOST_BYTES", 100 * 1024)
    for _ in range(2):  # the same one again takes no more room
        estimator._remember((point, (7,)), {"weight": torch.zeros(256)})
    assert [number for _, (number,) in estimator._kept] == [*range(401, 500), 7]
    for number in range(100):
        estimator._remember((point, (number,)), {"weight": torch.zeros(10**4)})
    assert [number for _, (number,) in estimator._kept] == list(range(36, 100))


def test_pixels_that_a_forward_casts_itself_are_scored():
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(4, 6)
            self.first, self.last = nn.Conv2d(1, w, 3), nn.Linear(w, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x.float() / 255)).mean((2, 3)))

    rng, space = np.random.default_rng(0), Space(Pixels)
    pixels = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    task = Task.from_arrays(pixels, rng.permutation(60) % 3, layout="NCHW")
    ctx = replace(tiny_context(history=History(space)), space=space, task=task)
    estimator = Inherit(ancestors=1, tune_steps=1)
    list(estimator.prepare(ctx, Budget(steps=2)))
    found = estimator.estimate(ctx, [Proposal(space.largest()), Proposal(space.smallest())])
    assert all(np.isfinite(estimate.score) for estimate in found)


def test_a_parent_that_diverges_when_it_is_worked_out_again_is_told(monkeypatch):
    estimator, ctx = prepared()
    a, b = points(ctx, 2)
    ctx = with_trials(ctx, [(a, None, "scored")])
    lost = Trained({}, [], [], Cost(), diverged="at step 3")
    monkeypatch.setattr(Training, "__call__", lambda self: lost)
    with pytest.raises(NotFinite, match="the parent's tuning: at step 3"):
        estimator.estimate(ctx, [Proposal(b, parent=0)])


def test_a_grown_child_begins_where_its_ancestor_is():
    estimator, ctx = prepared(steps=60, ancestors=1, tune_steps=1, rate=1e-6, noise=0.0)
    (ancestor,) = estimator._points
    assert ancestor["neck.0"] < 8
    grown = Architecture({**ancestor, "neck.0": 8})
    same, child = estimator.estimate(ctx, [Proposal(ancestor), Proposal(grown)])
    assert [m["preserving"] for m in child.made_from["morphs"]] == [True]
    assert child.score == pytest.approx(same.score, abs=0.05)  # norms see other batches
    untrained = prepared(steps=1, ancestors=1, tune_steps=1, rate=1e-6)[0]
    assert child.score > untrained.estimate(ctx, [Proposal(grown)])[0].score


def test_the_global_generator_is_left_alone():
    estimator, ctx = prepared()
    state = torch.get_rng_state()
    estimator.estimate(ctx, [Proposal(ctx.space.largest())])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_space_that_cannot_be_traced_is_refused_before_it_is_trained():
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Linear(6, 3), b=nn.Linear(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.op(x if x.sum() > 0 else -x)

    ctx = tiny_context(history=History(Space(Looks)))
    with pytest.raises(UnsupportedLayer, match=r"Looks cannot be traced by torch\.fx"):
        next(iter(Inherit().prepare(ctx, Budget(steps=3))))


def test_what_cannot_be():
    with pytest.raises(InvalidSetting, match=r"estimator\.ancestors=0"):
        Inherit(ancestors=0)
    with pytest.raises(InvalidSetting, match=r"estimator\.rate=2"):
        Inherit(rate=2)
    with pytest.raises(InvalidSetting, match=r"estimator\.noise=-1"):
        Inherit(noise=-1)
    with pytest.raises(AssayError, match="no ancestors yet"):
        Inherit().estimate(tiny_context(), [])


def test_a_child_may_start_from_its_own_path_of_a_supernet():
    supernet = OneShot(states=1, ema=0.0)
    estimator, ctx = prepared(supernet=supernet)
    (a,) = points(ctx, 1)
    (found,) = estimator.estimate(ctx, [Proposal(a)])
    assert found.made_from["from"] == {"supernet": 0}
    assert found.made_from["morphs"] == []
    # The path as a network of its own has the path's weights, and tuning leaves these alone.
    before = {k: v.clone() for k, v in supernet.network(ctx, a).state_dict().items()}
    estimator.estimate(ctx, [Proposal(a)])
    after = supernet.network(ctx, a).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_child_of_a_trial_inherits_though_it_began_with_a_supernet():
    estimator, ctx = prepared(supernet=OneShot())
    a, b = points(ctx, 2)
    ctx = with_trials(ctx, [(a, None, "scored")])
    alone, child = estimator.estimate(ctx, [Proposal(b), Proposal(b, parent=0)])
    assert alone.made_from["from"] == {"supernet": 0}
    assert child.made_from["from"] == {"trial": 0}
    assert alone.score != child.score


def test_children_of_networks_with_extra_state_inherit():
    class Counting(TinyNet):
        def get_extra_state(self):
            return {"calls": 1}

        def set_extra_state(self, state):
            assert state == {"calls": 1}

    ctx = tiny_context(history=History(Space(Counting, example=torch.zeros(2, 6))))
    estimator = Inherit(ancestors=1, tune_steps=2)
    list(estimator.prepare(ctx, Budget(steps=2)))
    a, b = points(ctx, 2)
    ctx = with_trials(ctx, [(a, None, "scored")])
    estimator.estimate(ctx, [Proposal(a)])
    (child,) = estimator.estimate(ctx, [Proposal(b, parent=0)])
    assert child.made_from["from"] == {"trial": 0}
    assert np.isfinite(child.score)


def test_what_was_tuned_before_is_no_parent_on_another_context():
    estimator, ctx = prepared()
    estimator.estimate(ctx, [Proposal(ctx.space.largest())])
    assert estimator._kept
    list(estimator.prepare(ctx, Budget(steps=4)))
    assert not estimator._kept
    assert estimator._kept_bytes == 0
