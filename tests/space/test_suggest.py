"""Decisions made by somebody else: every architecture can come of them, and nothing else."""

from __future__ import annotations

import pytest
from torch import nn

from assay.architecture import Architecture
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.space import Space
from assay.space.suggest import category


class Nested(nn.Module):
    """A decision within an option, an open depth, and inputs whose options are tuples."""

    def __init__(self) -> None:
        super().__init__()
        inner = OneOf(a=nn.Linear(2, 2), b=nn.Tanh(), label="inner")
        self.outer = OneOf(flat=nn.Identity(), deep=nn.Sequential(nn.ReLU(), inner), label="outer")
        self.stack = Depth(nn.Linear(2, 2), nn.Linear(2, 2), min=1, label="stack")
        self.read = Inputs(num=3, keep=2, label="read")

    def forward(self, x):
        x = self.stack(self.outer(x))
        return sum(self.read([x, x, x]))


class Answers:
    """Decides as it was told, and writes down what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = {}

    def suggest_categorical(self, name, choices):
        assert name not in self.asked
        self.asked[name] = list(choices)
        return self.answers[name]


def test_every_architecture_comes_of_its_own_decisions():
    space = Space(Nested())
    points = list(space.all())
    assert len(points) == 3 * 2 * 3
    for point in points:
        trial = Answers({label: category(option) for label, option in point.items()})
        assert space.suggest(trial) == point
        assert set(trial.asked) == set(point)  # nothing that is not active


def test_each_decision_is_asked_for_with_all_its_options_as_plain_values():
    trial = Answers({"outer": "deep", "inner": "b", "stack": 2, "read": "(0, 2)"})
    point = Space(Nested()).suggest(trial)
    assert point == Architecture({"outer": "deep", "inner": "b", "stack": 2, "read": (0, 2)})
    assert trial.asked == {
        "outer": ["flat", "deep"],
        "inner": ["a", "b"],
        "stack": [1, 2],
        "read": ["(0, 1)", "(0, 2)", "(1, 2)"],
    }


def test_an_optuna_study_searches_the_space_and_gives_its_best_back():
    optuna = pytest.importorskip("optuna")
    space = Space(Nested())

    def worth(trial):
        point = space.suggest(trial)
        return point["stack"] + (point.get("inner") == "b") + (point["read"] == (0, 2))

    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = optuna.samplers.BruteForceSampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(worth)  # until every way through the decisions was taken
    assert {space.suggest(trial) for trial in study.trials} == set(space.all())
    assert len(study.trials) == space.size
    best = {"outer": "deep", "inner": "b", "stack": 2, "read": (0, 2)}
    assert space.suggest(study.best_trial) == best
    assert space.suggest(optuna.trial.FixedTrial(study.best_params)) == best
