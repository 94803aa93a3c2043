"""A state belongs to one space and task: on others it is refused, before anything is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from assay.contracts import History, Proposal
from assay.cost import Budget
from assay.errors import InvalidStudy
from assay.estimators.fused import Fused
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.zero_cost import ZeroCost
from assay.space.space import Space
from assay.testing import FakeEstimator, TinyNet, tiny_context, tiny_task


class Trains(FakeEstimator):
    def steps_each(self, ctx):
        return 1

    def training_step_seconds(self, ctx):
        return 1e-6


class Other(TinyNet):
    """The same choices, and one more layer: nothing but the shape of a tensor tells."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(3, 3)


MADE = {
    "one-shot": lambda: OneShot(states=1),
    "inherit": lambda: Inherit(ancestors=1, tune_steps=1),
    "inherit from a supernet": lambda: Inherit(supernet=OneShot(states=1)),
    "hypernet": lambda: Hypernet(hidden=8),
    "zero-cost": lambda: ZeroCost(("params", "snip"), reference=2, batch=8),
    "predictor": lambda: Predictor(Trains(len), sample=4),
    "fused": lambda: Fused(FakeEstimator(len), Trains(len), sample=8),
}


@pytest.mark.parametrize("name", MADE)
def test_a_state_of_another_space_is_refused(name):
    saved, ctx = MADE[name](), tiny_context()
    list(saved.prepare(ctx, Budget(steps=8)))
    other = tiny_context(history=History(Space(Other, example=ctx.space.example)))
    why = r"another space than Space\(Other, [^)]*\) \(fingerprint \w{8}, not \w{8}\);"
    refused(name, saved, other, why)
    again = loaded(name, saved)
    assert list(again.prepare(tiny_context(), Budget(steps=8))) == []


@pytest.mark.parametrize("name", MADE)
def test_a_state_of_another_task_is_refused(name):
    """Of as many features and classes: no shape tells."""
    saved, ctx = MADE[name](), tiny_context()
    list(saved.prepare(ctx, Budget(steps=8)))
    other = replace(tiny_context(), task=tiny_task(120))
    refused(name, saved, other, r"another task than 'tiny' \(fingerprint \w{8}, not \w{8}\); use")
    both = replace(other, space=Space(Other, example=ctx.space.example))
    refused(name, saved, both, r"another space .* and another task than 'tiny'")


def refused(name, saved, other, why):
    with pytest.raises(InvalidStudy, match=why):
        loaded(name, saved).estimate(other, [Proposal(other.space.largest())])
    with pytest.raises(InvalidStudy, match=why):
        list(loaded(name, saved).prepare(other, Budget(steps=8)))


def loaded(name, saved):
    fresh = MADE[name]()
    fresh.load_state_dict(saved.state_dict())
    return fresh
