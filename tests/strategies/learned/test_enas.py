"""ENAS: its gradient against enumeration, when it moves and on what, and that it goes on."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import assay
from assay.contracts import Learning
from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.space.choices import Depth, OneOf
from assay.space.space import Space
from assay.strategies.learned import enas
from assay.strategies.learned.controller import Controller
from assay.strategies.learned.enas import ENAS, SKIP, Children, skip_penalty
from assay.strategies.learned.symptoms import symptoms
from assay.weights.supernet import Supernet
from assay.zoo.conv import conv
from assay.zoo.enas import macro
from tests.e2e import tiny
from tests.strategies.learned.test_controller import softened
from tests.strategies.learned.toys import context, operation

FAST = {"warmup": 0.2, "every": 2, "batch": 64}


def connected() -> nn.Module:
    """Two connections, one of them inside an option, and a depth."""

    def skip(label: str, read: str) -> OneOf:
        chosen = OneOf(apart=nn.Identity(), skip=nn.Linear(8, 8), label=label)
        chosen.reads = {"apart": (), "skip": (read,)}
        return chosen

    op = OneOf(a=nn.Linear(8, 8), b=skip("inner", "input"), c=nn.ReLU(), label="op")
    deep = Depth(nn.Linear(8, 8), nn.ReLU(), label="deep")
    body = (op, skip("outer", "op"), deep)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), *body, nn.Linear(8, 2))


def drawing(seed: int = 1, **settings) -> Children:
    """Return paths whose controller has random weights of double precision."""
    ctx = context(connected)
    paths = ENAS(**settings).paths
    paths.begin(ctx, ctx.space, 10)
    controller = paths.known.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
    return paths


def worth(architecture) -> float:
    return 0.3 * (architecture["op"] == "b") + 0.2 * architecture["deep"]


def learned(steps: int = 140, limits=None, measure=None, **settings):
    ctx = context()
    strategy = ENAS(**{**FAST, **settings})
    if limits:
        strategy.in_the_loop(measure, limits)
    estimator = OneShot(paths=strategy.paths, rate=1.0, states=1)
    list(estimator.prepare(ctx, Budget(steps=steps)))
    return strategy, estimator, ctx


# --- what the controller descends -----------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_its_expected_gradient_is_the_exact_one_of_the_enumerated_objective(baseline):
    paths = drawing(entropy=0.2, skip_weight=0.8, hidden=6)
    controller, own = paths.known, paths.settings
    paths._baseline = baseline  # which does not bias it
    points, parameters = list(controller.space.all()), list(controller.parameters())
    logs = torch.stack([controller.log_prob(a) for a in points])
    p, rewards = logs.exp(), torch.tensor([worth(a) for a in points], dtype=torch.float64)
    assert float(p.sum().detach()) == pytest.approx(1.0)
    penalty = torch.stack(
        [skip_penalty(controller.space, controller.steps(a), own.skip_rate) for a in points]
    )
    climbed = (p * rewards).sum() - own.entropy * (p * logs).sum()
    exact = torch.autograd.grad(
        own.skip_weight * (p.detach() * penalty).sum() - climbed, parameters, allow_unused=True
    )
    told = [torch.zeros_like(parameter) for parameter in parameters]
    for chance, a in zip(p.tolist(), points):
        loss, _ = paths._loss([a], [worth(a)])
        for total, part in zip(told, torch.autograd.grad(loss, parameters, allow_unused=True)):
            total += 0.0 if part is None else chance * part
    for one, other in zip(told, exact):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_loss_of_several_paths_is_the_mean_of_theirs():
    paths = drawing(entropy=0.1)
    paths._baseline = 0.4
    points = list(paths.known.space.all())[:5]
    single = [float(paths._loss([a], [worth(a)])[0].detach()) for a in points]
    together, mean = paths._loss(points, [worth(a) for a in points])
    assert float(together.detach()) == pytest.approx(np.mean(single))
    logs = [float(paths.known.log_prob(a).detach()) for a in points]
    assert mean == pytest.approx(np.mean([worth(a) - 0.1 * log for a, log in zip(points, logs)]))


def test_the_skip_penalty_is_the_divergence_of_each_connection_from_the_rate():
    space = Space(connected)

    def log(*p: float) -> torch.Tensor:
        return torch.tensor(p, dtype=torch.float64).log()

    def divergence(p: float) -> float:
        return p * math.log(p / 0.4) + (1 - p) * math.log((1 - p) / 0.6)

    steps = {"op": log(0.98, 0.01, 0.01), "deep": log(0.1, 0.9), "outer": log(0.2, 0.8)}
    assert float(skip_penalty(space, steps, 0.4)) == pytest.approx(divergence(0.8))
    more = {**steps, "inner": log(0.9, 0.1)}
    expected = (divergence(0.8) + divergence(0.1)) / 2
    assert float(skip_penalty(space, more, 0.4)) == pytest.approx(expected)
    assert float(skip_penalty(space, {"outer": log(0.6, 0.4)}, 0.4)) == pytest.approx(0, abs=1e-12)
    assert float(skip_penalty(space, {"op": steps["op"]}, 0.4)) == 0.0


def test_a_skip_connection_is_one_whichever_option_is_named_first():
    space = Space(nn.Sequential(OneOf(skip=nn.Linear(2, 2), apart=nn.Tanh(), label="reverse")))
    logs = torch.tensor([0.8, 0.2], dtype=torch.float64).log()
    expected = 0.8 * math.log(0.8 / 0.4) + 0.2 * math.log(0.2 / 0.6)
    assert float(skip_penalty(space, {"reverse": logs}, 0.4)) == pytest.approx(expected)


def test_the_connections_of_the_macro_space_are_the_ones_that_it_means():
    space = macro(layers=4, channels=2)
    skips = [label for label, choice in space.choices.items() if choice.options == SKIP]
    assert skips == [f"layer{k}.from{j}" for k in range(1, 5) for j in range(k - 1)]


def test_where_nothing_else_counts_connections_come_to_their_rate():
    paths = drawing(skip_rate=0.25, lr=0.02, entropy=0.0, hidden=8)
    points = [a for a in paths.known.space.all() if a["op"] == "b"]
    for _ in range(100):
        paths._reinforce(points, [0.5] * len(points))
    chances = paths.known.taken_in(points[0])
    for label in ("outer", "inner"):
        assert float(chances[label][1]) == pytest.approx(0.25, abs=0.02)


def test_the_baseline_is_the_moving_average_of_the_rewards():
    paths = drawing(entropy=0.0, baseline=0.75)
    points = list(paths.known.space.all())[:2]
    seen = []
    for rewards in ((0.2, 0.4), (0.5, 0.7), (0.0, 0.0)):
        paths._reinforce(points, rewards)
        seen.append(paths._baseline)
    assert seen == pytest.approx([0.3, 0.3 + 0.25 * 0.3, 0.75 * 0.375])
    assert paths.learned()[-1].reward == paths._baseline


def test_logits_are_divided_by_the_temperature():
    plain, soft = (drawing(bound=0.0, temperature=t).known for t in (1.0, 5.0))
    for point in plain.space.all():
        before = plain.steps(point)
        for label, logs in soft.steps(point).items():
            torch.testing.assert_close(logs, softened(before[label], 5.0))


def test_logits_stay_within_their_bound():
    space = Space(connected)
    controller = Controller(space, bound=1.5)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(1e4)
    for point in space.all():
        for logs in controller.steps(point).values():
            assert float((logs.max() - logs.min()).detach()) <= 3.0 + 1e-4


# --- when it moves, and on what -------------------------------------------------------------------


def test_the_controller_takes_its_turns_between_the_weight_steps(monkeypatch):
    asked: list[tuple[int, float]] = []
    paths = ENAS(warmup=0.25, every=3, updates=2, paths_each=4, batch=16).paths

    def counted(space, task, inputs, targets, points, **_):
        asked.extend([(len(targets), float(inputs.sum()))] * len(points))
        return [0.5] * len(points)

    monkeypatch.setattr(enas, "rewards", counted)
    estimator = OneShot(paths=paths, rate=1.0, states=1)
    for _ in estimator.prepare(context(), Budget(steps=20)):
        pass
    turns = len(range(5, 20, 3))
    assert paths._updates == 2 * turns
    assert len(asked) == 2 * turns * 4
    assert {size for size, _ in asked} == {16}
    of_each = [dict.fromkeys(asked[i : i + 4]) for i in range(0, len(asked), 4)]
    assert all(len(batch) == 1 for batch in of_each)  # all paths of an update see one batch
    assert len({next(iter(batch)) for batch in of_each}) == 2 * turns  # and each update another


def test_paths_are_canonical():
    space = conv(input_shape=(1, 8, 8), widths=((4,),), blocks=3, operations=("sep3", "skip"))
    paths = ENAS(warmup=0.5).paths
    ctx = context()
    paths.begin(ctx, space, 4)
    rng = np.random.default_rng(0)
    drawn = [paths.passes(space, step, rng=rng)[0] for step in range(4) for _ in range(8)]
    assert all(space.canonical(a) == a for a in drawn)
    assert len(set(drawn)) == 4


def test_an_option_that_lets_nothing_through_is_given_up():
    strategy, _, ctx = learned()
    asked = strategy.ask(ctx.history, 100, rng=np.random.default_rng(0))
    assert np.mean([p.architecture["op"] == "blind" for p in asked]) < 0.1


def test_what_is_over_a_limit_is_worth_less():
    cost = {"see": 50.0, "blind": 10.0, "costly": 400.0}
    asked_for = []

    def measure(quantity, architecture):
        asked_for.append(quantity)
        return cost[architecture["op"]]

    strategy, _, ctx = learned(limits={"macs": 100.0}, measure=measure, weight=2.0)
    assert set(asked_for) == {"macs"}
    asked = strategy.ask(ctx.history, 100, rng=np.random.default_rng(0))
    assert np.mean([p.architecture["op"] == "see" for p in asked]) > 0.8
    strategy.paths.limits = {"macs": 100.0, "latency_ms": 200.0}
    assert within(strategy.paths, ctx.space) == pytest.approx(
        {"see": 1.0, "blind": 1.0, "costly": (1 / 4) ** 2 * (1 / 2) ** 2}
    )
    assert within(ENAS().paths, ctx.space) == {"see": 1.0, "blind": 1.0, "costly": 1.0}


def within(paths: Children, space: Space) -> dict[str, float]:
    """Return what a reward is multiplied by, by operation."""
    points = [
        space.complete({"op": op}, lambda c: c.options[0]) for op in ("see", "blind", "costly")
    ]
    return {point["op"]: paths._within(point) for point in points}


def with_norm() -> nn.Module:
    body = (nn.Linear(4, 8), nn.BatchNorm1d(8), operation(), nn.Linear(8, 2))
    return nn.Sequential(nn.Flatten(), *body)


def test_a_function_is_given_the_network_that_it_would_be_given_elsewhere():
    """It runs in eval mode, without hooks of the supernet's, and can be copied and saved."""
    ctx, told = context(with_norm), {}
    x = torch.arange(12.0).reshape(3, 4)
    measures = Measures(ctx.space, Device(), ctx.task.example(1))

    def largest(network: nn.Module) -> float:
        with torch.no_grad():
            return float(pickle.loads(pickle.dumps(network))(x).abs().max())

    def noted(quantity, path) -> float:
        told[path] = measures(quantity, path)
        return told[path]

    strategy = ENAS(warmup=0.0, every=1, paths_each=8, batch=16)
    strategy.in_the_loop(noted, {largest: 1e9})
    strategy.paths.begin(ctx, ctx.space, 10)
    strategy.paths.learn(Supernet(ctx.space, paths=strategy.paths), ctx.task, 0)
    assert len(told) > 1
    assert told == {path: measures(largest, path) for path in told}


def picky(network: nn.Module) -> float:
    """Fails on the costly operation."""
    if any(type(module).__name__ == "Costly" for module in network.modules()):
        raise RuntimeError("too costly")
    return 1.0


def test_what_a_function_cannot_measure_is_worth_nothing_and_ends_no_search():
    ctx = context()
    strategy = ENAS(warmup=0.0, every=1, paths_each=8, batch=16)
    measures = Measures(ctx.space, Device(), ctx.task.example(1))
    for limits in ({picky: 2.0}, {picky: 2.0, "macs": 1e9}):
        strategy.in_the_loop(measures, limits)
        strategy.paths.begin(ctx, ctx.space, 10)
        strategy.paths.learn(Supernet(ctx.space, paths=strategy.paths), ctx.task, 0)
        assert within(strategy.paths, ctx.space) == {"see": 1.0, "blind": 1.0, "costly": 0.0}
        assert strategy.learned(ctx.history)[-1].quantity == ("macs" if "macs" in limits else "")
    strategy.in_the_loop(measures, {"watts": 1.0})
    with pytest.raises(InvalidSetting, match="unknown quantity 'watts'"):
        within(strategy.paths, ctx.space)


def priced(limits: dict[str, float]) -> Children:
    """Return paths over `connected` whose cost is 10, and 40 more for option "a"."""

    def measure(quantity, architecture):
        cost = 10.0 + 40.0 * (architecture["op"] == "a")
        return cost if quantity == "macs" else 1.0

    strategy, ctx = ENAS(hidden=8, lr=0.02, entropy=0.0, skip_weight=0.0), context(connected)
    strategy.in_the_loop(measure, limits)
    strategy.paths.begin(ctx, ctx.space, 100)
    return strategy.paths


def drifted(paths: Children, worth) -> list[Learning]:
    """Return what was known as the controller was told the worth of all paths, step by step."""
    points, found = list(paths.known.space.all()), []
    for step in range(16):
        found.append(paths._known_at(step))
        if worth is not None:
            paths._reinforce(points, [worth(a) for a in points])
    return found


def test_what_is_expected_of_the_tightest_limit_is_told_and_a_drift_away_from_it():
    paths = priced({"params": 2.0, "macs": 15.0})
    first = paths.learned()[-1]
    chance = float(paths.known.taken_in(paths.known.best())["op"][0])
    assert (first.quantity, first.target) == ("macs", 15.0)
    assert first.expected == pytest.approx(10 + 40 * chance, abs=40 * 0.25)
    still = drifted(paths, None)
    assert {known.expected for known in still} == {first.expected}  # the same draws: no chance
    assert "drifting" not in symptoms(still, total=16, idle={}, choices={})
    cheaper = drifted(paths, lambda a: float(a["op"] != "a"))
    assert cheaper[-1].expected < first.expected
    assert "drifting" not in symptoms(cheaper, total=16, idle={}, choices={})
    dearer = drifted(priced({"macs": 15.0}), lambda a: float(a["op"] == "a"))
    seen = symptoms(dearer, total=16, idle={}, choices={})["drifting"]
    assert "expected macs grew" in seen
    assert "target is 15" in seen
    assert "strategy.weight (1)" in ENAS().advice["drifting"]


def test_without_a_limit_nothing_is_expected():
    assert drawing().learned()[-1].expected is None


def test_a_controller_at_its_bound_is_told_of():
    ctx, strategy = context(), ENAS()
    strategy.paths.begin(ctx, ctx.space, 100)

    def seen() -> dict[str, str]:
        return symptoms([strategy.paths._known_at(10)], total=100, idle={}, choices={})

    assert seen() == {}
    with torch.no_grad():
        for head in strategy.paths.known.heads:
            head.bias.fill_(-9.0)[0] = 9.0
    assert "as good as settled" in seen()["collapsed"]


# --- its state ------------------------------------------------------------------------------------


def test_a_state_saved_on_the_way_goes_on_to_the_same_bits():
    settings = {**FAST, "updates": 2}
    whole, *_ = learned(steps=40, **settings)
    first = OneShot(paths=ENAS(**settings).paths, rate=1.0, states=1)
    state = {}
    for _ in first.prepare(context(), Budget(steps=40)):
        state = {
            k: v.clone() if isinstance(v, torch.Tensor) else v
            for k, v in first.state_dict().items()
        }
        if state["trainer.step"] >= 15:
            break
    again = ENAS(**settings)
    second = OneShot(paths=again.paths, rate=1.0, states=1)
    second.load_state_dict(state)
    list(second.prepare(context(), Budget(steps=40)))
    one, other = whole.paths.state_dict(), again.paths.state_dict()
    assert one.keys() == other.keys()
    assert any(name.startswith("more.adam.") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]


def test_a_state_alone_is_enough_to_ask():
    strategy, estimator, ctx = learned(steps=20)
    other = ENAS(**FAST)
    OneShot(paths=other.paths).load_state_dict(estimator.state_dict())
    same = [
        [p.architecture for p in s.ask(ctx.history, 6, rng=np.random.default_rng(3))]
        for s in (strategy, other)
    ]
    assert same[0] == same[1]


def test_an_estimator_without_a_supernet_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"ENAS learns while a supernet trains.*ZeroCost"):
        assay.search(
            Space(tiny.Net), tiny.task(), strategy="enas", estimator="zero-cost",
            budget="steps=4,trials=2,epochs=1", out=tmp_path / "out",
        )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"every": 0}, {"updates": 0}, {"paths_each": 0}, {"lr": 0.0}, {"baseline": 1.0},
        {"warmup": 1.0}, {"entropy": -1.0}, {"skip_rate": 0.0}, {"bound": -1.0}, {"weight": -0.1},
        {"temperature": 0.0}, {"lr": math.inf}, {"bound": math.inf},
        *({name: math.nan} for name in (
            "hidden", "lr", "temperature", "bound", "paths_each", "baseline", "entropy",
            "skip_weight", "skip_rate", "weight", "warmup", "every", "updates", "batch",
        )),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        ENAS(**settings)
