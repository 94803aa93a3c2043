"""ProxylessNAS: what it learns, what it leaves alone, and that it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import assay
from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.space.space import Space
from assay.strategies.learned.proxyless import Proxyless
from tests.e2e import tiny
from tests.strategies.learned.toys import context


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


@pytest.mark.parametrize("form", ["linear", "power"])
def test_of_two_as_good_the_cheaper_one_wins(form):
    strategy, _, ctx = learned(form=form, weight=1.0)
    see, _, costly = strategy.paths.over(ctx.space).probabilities("op")
    assert see > 4 * costly
    alone, _, ctx = learned(weight=0.0)
    see, _, costly = alone.paths.over(ctx.space).probabilities("op")
    assert see < 4 * costly


def test_nothing_is_learned_during_the_warm_up():
    strategy, _, ctx = learned(steps=20, warmup=0.95)
    for logits in strategy.paths.over(ctx.space).logits.values():
        assert float(logits.abs().max()) <= 0.11  # one step of two dozen
    strategy, _, ctx = learned(steps=19, warmup=0.999)
    assert all(not bool(v.any()) for v in strategy.paths.over(ctx.space).logits.values())


def test_a_state_saved_on_the_way_goes_on_to_the_same_bits():
    whole, _, ctx = learned(steps=60)
    strategy = Proxyless(quantity="macs", warmup=0.2, every=1, lr=0.05)
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
    again = Proxyless(quantity="macs", warmup=0.2, every=1, lr=0.05)
    again.in_the_loop(macs, {})
    second = OneShot(paths=again.paths, rate=1.0, states=1)
    second.load_state_dict(state)
    list(second.prepare(context(), Budget(steps=60)))
    one, other = whole.paths.over(ctx.space), again.paths.over(ctx.space)
    assert all(torch.equal(one.logits[k], other.logits[k]) for k in one.logits)


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
    "settings", [{"rule": "guess"}, {"form": "cubic"}, {"every": 0}, {"warmup": 1.0}, {"lr": 0.0}]
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        Proxyless(**settings)


def test_an_estimator_without_a_supernet_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"Proxyless learns while a supernet trains.*ZeroCost"):
        assay.search(
            Space(tiny.Net), tiny.task(), strategy="proxyless", estimator="zero-cost",
            budget="steps=4,trials=2,epochs=1", out=tmp_path / "out",
        )  # fmt: skip
