"""ProxylessNAS: what it learns, what it leaves alone, and that it goes on where it was."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import assay
from assay.contracts import Context
from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.run import face
from assay.space.choices import Held, Inputs, OneOf
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.proxyless import Gates, Proxyless
from assay.train.task import Task, call_model
from assay.weights.supernet import Supernet
from assay.zoo.conv import conv
from assay.zoo.enas import micro
from tests.e2e import tiny
from tests.strategies.learned.test_alphas import log_prob, over_all, random_alphas, taken
from tests.strategies.learned.toys import context, of_everything, operation


def macs(quantity: str, architecture) -> float:
    assert quantity == "macs"
    cost = {"see": 0.0, "blind": 0.0, "costly": 640.0}[architecture["op"]]
    return 48.0 + cost + 16.0 * architecture.get("wide", 0)


def learned(steps: int = 300, **settings):
    ctx = context()
    strategy = Proxyless(**{"quantity": "macs", "warmup": 0.2, "every": 1, "lr": 0.05, **settings})
    strategy.in_the_loop(macs, {})
    estimator = OneShot(paths=strategy.paths, rate=1.0, states=1)
    list(estimator.prepare(ctx, Budget(steps=steps)))
    return strategy, estimator, ctx


@pytest.mark.parametrize("rule", ["gradient", "reinforce"])
def test_an_option_that_lets_nothing_through_is_given_up(rule):
    strategy, _, ctx = learned(rule=rule, weight=0.0)
    op = strategy.paths.over(ctx.space).probabilities("op")
    assert op[1] < 0.15


@pytest.mark.parametrize("form", ["linear", "power", "log"])
def test_of_two_as_good_the_cheaper_one_wins(form):
    strategy, _, ctx = learned(form=form, weight=1.0)
    see, _, costly = strategy.paths.over(ctx.space).probabilities("op")
    assert see > 4 * costly


def test_of_two_as_good_the_cheaper_one_does_not_win_without_a_cost():
    alone, _, ctx = learned(weight=0.0)
    see, _, costly = alone.paths.over(ctx.space).probabilities("op")
    assert see < 4 * costly


def test_nothing_is_learned_during_the_warm_up():
    strategy, _, ctx = learned(steps=20, warmup=0.95)
    for logits in strategy.paths.over(ctx.space).logits.values():
        assert float(logits.abs().max()) <= 0.11  # one step of two dozen
    strategy, _, ctx = learned(steps=19, warmup=0.999)
    assert all(not bool(v.any()) for v in strategy.paths.over(ctx.space).logits.values())


@pytest.mark.parametrize("rule", ["gradient", "reinforce"])
def test_a_state_saved_on_the_way_goes_on_to_the_same_bits(rule):
    whole, _, ctx = learned(steps=60, rule=rule)
    strategy = Proxyless(quantity="macs", warmup=0.2, every=1, lr=0.05, rule=rule)
    strategy.in_the_loop(macs, {})
    first = OneShot(paths=strategy.paths, rate=1.0, states=1)
    state = None
    for _ in first.prepare(context(), Budget(steps=60)):
        state = {
            k: v.clone() if isinstance(v, torch.Tensor) else v
            for k, v in first.state_dict().items()
        }
        if state["trainer.step"] >= 20:
            break
    again = Proxyless(quantity="macs", warmup=0.2, every=1, lr=0.05, rule=rule)
    again.in_the_loop(macs, {})
    second = OneShot(paths=again.paths, rate=1.0, states=1)
    second.load_state_dict(state)
    list(second.prepare(context(), Budget(steps=60)))
    one, other = whole.paths.over(ctx.space), again.paths.over(ctx.space)
    assert all(torch.equal(one.logits[k], other.logits[k]) for k in one.logits)
    assert whole.paths._baseline == again.paths._baseline


def test_it_asks_the_likeliest_first_and_only_once():
    strategy, _, ctx = learned(steps=60)
    best = strategy.paths.over(ctx.space).best()
    rng = np.random.default_rng(0)
    asked = strategy.ask(ctx.history, 5, rng=rng)
    assert asked[0].architecture == best
    assert len(asked) == 5
    assert all(ctx.space.contains(p.architecture) for p in asked)


def test_a_state_alone_is_enough_to_ask():
    strategy, estimator, ctx = learned(steps=60)
    other = Proxyless(quantity="macs")
    OneShot(paths=other.paths).load_state_dict(estimator.state_dict())
    same = [
        [p.architecture for p in s.ask(ctx.history, 6, rng=np.random.default_rng(3))]
        for s in (strategy, other)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "guess"}, {"form": "cubic"}, {"quantity": "latency"}, {"every": 0},
        {"warmup": 1.0}, {"lr": 0.0}, {"weight": -1.0}, {"target": math.inf},
        *({name: math.nan} for name in (
            "target", "weight", "lr", "warmup", "every", "batch", "paths_each"
        )),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        Proxyless(**settings)


def test_an_estimator_without_a_supernet_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"Proxyless learns while a supernet trains.*ZeroCost"):
        assay.search(
            Space(tiny.Net), tiny.task(), strategy="proxyless", estimator="zero-cost",
            budget="steps=4,trials=2,epochs=1", out=tmp_path / "out",
        )  # fmt: skip


class Given:
    """An estimator of a user's own, which has a supernet and is no dataclass."""

    paths = "uniform"

    def step_seconds(self, *given) -> float:
        return 0.0

    prepare = estimate = state_dict = load_state_dict = step_seconds


def test_an_estimator_that_cannot_be_given_paths_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"Given cannot be given them: make it a dataclass"):
        assay.search(
            Space(tiny.Net), tiny.task(), strategy="proxyless", estimator=Given(),
            out=tmp_path / "out",
        )  # fmt: skip


def of_words(module) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("limits", "fix"),
    [
        ({"macs": 150_000}, "on macs nothing would be learned; set strategy.quantity=macs, or"),
        ({"macs": "median", "params": 9}, "on macs, params .*quantity=params or macs, or"),
        ({of_words: 1}, "on of_words .*quantity='' to learn of none, or strategy.target$"),
    ],
)
def test_limits_of_which_nothing_would_be_learned_are_refused(limits, fix: str, tmp_path: Path):
    with pytest.raises(InvalidSetting, match=rf"strategy\.quantity='latency_ms' has .* {fix}"):
        assay.search(
            Space(tiny.Net), tiny.task(), strategy="proxyless", limits=limits,
            out=tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({}, {}), ({}, {"latency_ms": 1, "macs": 9}), ({"quantity": "macs"}, {"macs": "median"}),
        ({"target": 0.5}, {"macs": 9}), ({"quantity": ""}, {"macs": 9}),
        ({"weight": 0.0}, {"macs": 9}),
    ],
)  # fmt: skip
def test_those_that_are_learned_of_or_need_not_be_are_not(settings, limits):
    Proxyless(**settings).check_limits(limits)


def test_the_task_and_space_themselves_are_searched_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch
):
    plans = []
    monkeypatch.setattr(face, "_run", lambda plan, study, listener: plans.append(plan) or [])
    images = np.zeros((60, 32, 32), np.uint8)
    task = Task.from_arrays(images, np.arange(60) % 2, augment=None)
    space = micro(input_shape=(1, 32, 32), num_classes=2, cells=3, channels=4, nodes=2)
    assert space.cheap

    def estimator(strategy: str, **settings) -> OneShot:
        assay.search(
            space, task, strategy=strategy, estimator=OneShot(**settings), budget="steps=2",
            out=tmp_path / str(len(plans)),
        )  # fmt: skip
        return plans[-1].estimator

    ctx = Context(space, task, context().recipe, None, "cpu", 0, ())
    assert estimator("proxyless").shares_weights(ctx)
    assert not estimator("evolution").shares_weights(ctx)
    assert not estimator("darts").shares_weights(ctx)
    told = estimator("proxyless", variant={"cells": 2}, resolution=0.25)
    assert (told.variant, told.resolution) == ({"cells": 2}, 0.25)
    half = estimator("proxyless", resolution=0.5)
    assert (half.variant, half.resolution) == ({}, 0.5)


# --- one architecture step ------------------------------------------------------------------------


def chain() -> nn.Module:
    """Three blocks, each a convolution or a skip: four networks under eight names."""
    return conv(
        input_shape=(1, 2, 2), num_classes=2, widths=((4,),), blocks=3,
        operations=("sep3", "skip"), stem_stride=1,
    ).model  # fmt: skip


def as_image() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), chain())


def test_paths_are_canonical():
    gates, _, ctx = begun(as_image, warmup=0.5)
    rng = np.random.default_rng(0)
    drawn = [
        gates.passes(ctx.space, step, rng=rng)[0] for step in (0, 400, 600, 900) for _ in range(8)
    ]
    assert [gates.warming(step) for step in (0, 400, 600, 900)] == [True, True, False, False]
    assert all(ctx.space.canonical(a) == a for a in drawn)
    assert len(set(drawn)) == 4


def selected_in(ctx: Context) -> list:
    """Return a list that takes up what is selected whenever the model runs."""
    seen: list = []
    ctx.space.model.register_forward_pre_hook(lambda *_: seen.append(ctx.space.selected))
    return seen


def test_a_rewarded_path_is_canonical_and_its_reward_is_that_of_what_was_drawn(monkeypatch):
    def cost(architecture) -> float:
        assert space.canonical(architecture) == architecture
        return 10.0

    gates, supernet, ctx = begun(as_image, rule="reinforce", paths_each=8)
    space, told, drawn, sample = ctx.space, [], [], Alphas.sample
    seen = selected_in(ctx)
    gates._aim = SimpleNamespace(reward=lambda worth, path: worth * cost(path))

    def noted(self, rng):
        drawn.append(sample(self, rng))
        return drawn[-1]

    monkeypatch.setattr(Alphas, "sample", noted)
    gates._reinforce = lambda taken, _: told.extend(point for point, _ in taken)
    inputs, targets = next(ctx.task.valid.batches(16))
    gates._move(supernet, ctx.task, inputs, targets, 0)
    assert told == drawn
    assert seen == [space.canonical(point) for point in drawn]
    assert seen != drawn


def test_two_options_run_where_they_were_drawn():
    gates, supernet, ctx = begun(as_image)
    seen = selected_in(ctx)
    inputs, targets = next(ctx.task.valid.batches(16))
    for step in range(8):
        gates._move(supernet, ctx.task, inputs, targets, step)
    active = [
        {label: o for label, w in mix.items() for o in w if not isinstance(w[o], Held)}
        for mix in seen
    ]
    assert any(ctx.space.canonical(ctx.space.check(a)) != a for a in active)


class Recorder:
    """In place of Adam: keeps the gradients, and moves nothing."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[list[int], torch.Tensor]] = {}

    def step(self, label, at, gradient):
        self.told[label] = (at, gradient.clone())
        return torch.zeros_like(gradient)


def nested_operations() -> nn.Module:
    """Two options with a choice of operations in each; all do the same."""
    inner = [OneOf({"a": nn.Identity(), "b": nn.Identity()}, label=k) for k in ("left", "right")]
    outer = OneOf({"l": inner[0], "r": inner[1]}, label="outer")
    return nn.Sequential(nn.Flatten(), outer, nn.Linear(4, 2))


def with_nine() -> nn.Module:
    nine = OneOf({f"i{i}": nn.Identity() for i in range(9)}, label="inner")
    outer = OneOf({"flat": nn.Identity(), "deep": nine}, label="outer")
    return nn.Sequential(nn.Flatten(), outer, nn.Linear(4, 2))


def begun(model, cost=None, **settings) -> tuple[Gates, Supernet, Context]:
    """Return gates over a model, ready to learn."""
    ctx = context(model)
    strategy = Proxyless(**{"quantity": "macs", "warmup": 0.0, "every": 1, **settings})
    if cost is not None:
        strategy.in_the_loop(lambda quantity, architecture: cost(architecture), {})
    gates = strategy.paths
    supernet = Supernet(ctx.space, paths=gates, seed=0)
    supernet.reset()
    gates.begin(ctx, ctx.space, 1000)
    return gates, supernet, ctx


def of_three_layers() -> nn.Module:
    options = OneOf({name: nn.Linear(8, 8) for name in "abc"}, label="op")
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), options, nn.Tanh(), nn.Linear(8, 2))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_step_leaves_the_chance_of_what_was_not_drawn_as_it_was(weight):
    gates, supernet, ctx = begun(of_three_layers, lambda a: 9.0 + ord(a["op"]), weight=weight)
    gates.known.logits = random_alphas(ctx.space, 3).logits
    drawn, step = {}, gates._adam.step

    def noted(label, at, gradient):
        drawn[label] = at
        return step(label, at, gradient)

    gates._adam.step = noted
    for number in range(6):
        before = {k: gates.known.probabilities(k) for k in ctx.space.choices}
        gates.learn(supernet, ctx.task, number)
        assert drawn.keys() == before.keys()
        for label, at in drawn.items():
            moved = (gates.known.probabilities(label) - before[label]).abs()
            (other,) = {0, 1, 2} - set(at)
            assert float(moved[other]) < 1e-12
            assert float(moved[at].min()) > 1e-4


def test_the_gradient_of_a_step_is_that_of_finite_differences_by_the_gates():
    gates, supernet, ctx = begun(of_three_layers)
    gates.known.logits = {"op": torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64)}
    flat, first, op, tanh, last = ctx.space.model.double()
    inputs, targets = next(ctx.task.valid.batches(64))
    x = inputs.double()

    def loss(at, g) -> float:
        outputs = [op.get_submodule(op.options[i])(first(flat(x))) for i in at]
        mixed = g[0] * outputs[0] + g[1] * outputs[1]
        return float(cross_entropy(last(tanh(mixed)), targets).detach())

    pairs = set()
    for step in range(40):
        gates._adam = Recorder()
        gates._move(supernet, ctx.task, x, targets, step)
        at, told = gates._adam.told["op"]
        eps = 1e-5
        by_gate = [
            (loss(at, (1 + a, b)) - loss(at, (1 - a, -b))) / (2 * eps)
            for a, b in ((eps, 0.0), (0.0, eps))
        ]
        q = torch.softmax(gates.known.logits["op"][at], 0).tolist()
        exact = [
            sum(by_gate[j] * q[j] * ((i == j) - q[i]) for j in range(2)) for i in range(2)
        ]  # fmt: skip
        torch.testing.assert_close(told, torch.tensor(exact).double(), rtol=1e-4, atol=1e-8)
        assert abs(float(told[0])) > 1e-4
        pairs.add(tuple(at))
    assert len(pairs) == 6


def in_sum(architecture) -> float:
    prices = {"see": 30.0, "blind": 0.0, "costly": 640.0, 0: 0.0, 1: 200.0, 4: 20.0, 16: 70.0}
    return 48.0 + sum(prices[option] for option in architecture.values())


def recorded(seed: int, **settings) -> tuple[Recorder, Gates]:
    """Return the gradients of one step from a distribution of its own."""
    gates, supernet, ctx = begun(of_everything, in_sum, **settings)
    gates.known.logits = random_alphas(ctx.space, 3).logits
    gates._seed, gates._adam = seed, Recorder()
    gates.learn(supernet, ctx.task, 0)
    return gates._adam, gates


@pytest.mark.parametrize("form", ["linear", "power"])
def test_a_step_adds_the_slope_of_the_expected_cost_whatever_is_active(form):
    """The operation that lets nothing through keeps what its cost tells, active or not."""
    actives = set()
    for seed in range(12):
        plain, _ = recorded(seed, weight=0.0)
        beside, gates = recorded(seed, weight=0.5, form=form)
        alphas, space = gates.known, gates.known.space
        enumerated, slopes = over_all(alphas, in_sum)
        scale, by_cost = 1.0, 0.5 / gates._aim.target
        if form == "power":
            scale = (enumerated / gates._aim.target) ** 0.5
            loss = gates._baseline / scale
            by_cost = 0.5 * loss * scale / enumerated
        assert plain.told.keys() == beside.told.keys()
        for label, (at, gradient) in beside.told.items():
            p = alphas.probabilities(label)
            # dE/dalpha = p (C - mean C) P(taken): of these the differences of C follow.
            costs = slopes[label] / p / taken(alphas, label)
            q = torch.softmax(alphas.logits[label][at], 0)
            added = q * (costs[at] - (q * costs[at]).sum())
            expected = scale * plain.told[label][1] + by_cost * added
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9, msg=label)
        actives.add(space.choices["op"].options[beside.told["op"][0][0]])
    assert "blind" in actives
    assert len(actives) > 1


def test_of_an_option_that_is_held_no_inner_decision_moves():
    gates, supernet, ctx = begun(nested_operations, lambda a: 1.0 + 5.0 * ("a" in a.values()))
    moved = []
    for step in range(12):
        before = {label: v.clone() for label, v in gates.known.logits.items()}
        gates.learn(supernet, ctx.task, step)
        moved.append({k for k, v in gates.known.logits.items() if not torch.equal(v, before[k])})
    assert all(m in ({"outer", "left"}, {"left"}, {"outer", "right"}, {"right"}) for m in moved)
    assert any("left" in m for m in moved)
    assert any("right" in m for m in moved)


@pytest.mark.parametrize("form", ["linear", "power"])
def test_what_costs_more_inside_loses_to_what_is_flat(form):
    def cost(architecture):
        return 9.5 if architecture["outer"] == "flat" else 10.0

    gates, supernet, ctx = begun(with_nine, cost, form=form, lr=0.1)
    before = 0.5
    for step in range(8):
        gates.learn(supernet, ctx.task, step)
        flat = float(gates.known.probabilities("outer")[0])
        assert flat > before
        before = flat
    assert flat > 0.6


def test_the_gradient_by_reward_is_that_of_enumeration(monkeypatch):
    gates, supernet, ctx = begun(
        of_everything, in_sum, rule="reinforce", paths_each=1, weight=0.3, target=200.0
    )
    space, alphas = ctx.space, random_alphas(ctx.space, 5)
    gates.known.logits, gates._adam = alphas.logits, Recorder()
    inputs, targets = next(iter(ctx.task.valid.batches(100)))
    space.model.eval()

    def whole(point) -> float:
        network = space.build(point).eval()
        with torch.no_grad():
            right = call_model(network, inputs).argmax(1) == targets
        return float(right.double().mean()) * (in_sum(point) / 200.0) ** -0.3

    points = list(space.all())
    _, exact = over_all(alphas, {p: whole(p) for p in points}.__getitem__)
    found = {label: torch.zeros_like(logits) for label, logits in alphas.logits.items()}
    for point in points:
        monkeypatch.setattr(Alphas, "sample", lambda self, rng, point=point: point)
        gates._baseline = -0.4
        gates._adam.told.clear()
        gates._by_reward(supernet, ctx.task, inputs, targets, np.random.default_rng(0))
        for label, (_, gradient) in gates._adam.told.items():
            found[label] += float(torch.exp(log_prob(alphas, point))) * gradient
    for label, gradient in exact.items():  # the loss is minus the reward
        torch.testing.assert_close(found[label], -gradient, rtol=0, atol=1e-10, msg=label)


@pytest.mark.parametrize(("rule", "least", "most"), [("gradient", -2, 0), ("reinforce", 0, 2)])
def test_a_reward_is_shown_which_is_minus_the_loss_where_there_is_a_gradient(rule, least, most):
    gates, supernet, ctx = begun(of_everything, in_sum, rule=rule)
    assert gates.learned()[-1].reward is None
    for step in range(3):
        gates.learn(supernet, ctx.task, step)
    assert least < gates.learned()[-1].reward < most


def test_where_nobody_reads_what_was_drawn_the_loss_says_nothing_of_it():
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.op = nn.Linear(4, 8), operation()
            self.read, self.last = Inputs(2, keep=1, label="read"), nn.Linear(8, 2)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.read([x.tanh(), self.op(x)])[0])

    gates, supernet, ctx = begun(Dropped)
    gates._adam = Recorder()
    moved = set()
    for step in range(12):
        gates.learn(supernet, ctx.task, step)
        moved.add(bool(gates._adam.told["op"][1].any()))
    assert moved == {False, True}
