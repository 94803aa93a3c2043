"""What is said of how a search went."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from assay.contracts import Estimate, Trial
from assay.cost import Budget, Cost
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.handover.export import HandOver
from assay.handover.formats import Timed
from assay.hardware.table import Validation
from assay.run.remarks import (
    largest_best,
    short_supernet,
    slow_file,
    table_off,
    too_few_to_learn,
    unclimbed,
    unlearned,
)
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.reinforce import Reinforce
from assay.testing import tiny_space
from assay.train.recipe import Recipe


@pytest.mark.parametrize(
    ("limits", "objectives", "sign", "told"),
    [
        ({}, ("score",), 1, True),
        ({}, ("score",), -1, False),
        ({"macs": 10**9}, ("score",), 1, False),
        ({}, ("score", "-macs"), 1, False),
    ],
)
def test_that_the_largest_network_wins_unopposed_is_told(
    limits: dict[str, float], objectives: tuple[str, ...], sign: int, told: bool
) -> None:
    space = tiny_space()
    largest = space.canonical(space.largest())
    points = [largest, *(p for p in map(space.canonical, space.all()) if p != largest)][:9]
    trials = [
        Trial(i, point, "scored", Estimate(-sign * float(i), {}, Cost(), {}))
        for i, point in enumerate(points)
    ]
    plan: Any = SimpleNamespace(space=space, limits=limits, objectives=objectives)
    assert largest_best(plan, [*trials, Trial(9, largest, "infeasible")]) == told * (
        "the space's largest network scores best, and nothing speaks against it; a limit, such as "
        "latency_ms, makes it a choice"
    )


def plan_of(strategy: object, **limits: float) -> Any:
    return SimpleNamespace(strategy=strategy, limits=limits)


@pytest.mark.parametrize(
    ("plan", "trials", "batch", "told"),
    [
        (plan_of(Reinforce()), 7, 8, True),
        (plan_of(Reinforce()), 8, 8, False),
        (plan_of(Reinforce()), 7, math.inf, False),  # one that does not learn
        (plan_of(Reinforce(), macs=1.0), 7, 8, False),  # of those over the limit, too
    ],
)
def test_too_few_trials_to_learn_from_are_told_of(
    plan: Any, trials: int, batch: float, told: bool
) -> None:
    said = too_few_to_learn(plan, trials, batch)
    assert (
        said.startswith("Reinforce learns from 8 trials at a time, and there are to be 7") == told
    )
    assert bool(said) == told


@pytest.mark.parametrize(
    ("estimator", "budget", "steps", "told"),
    [
        (OneShot(), "60s", 19, True), (OneShot(), "60s", 20, False), (OneShot(), "60s", 0, False),
        (OneShot(), "steps=19", 19, False),  # who asked for so few knows
        (LowFidelity(), "60s", 19, False),
    ],
)  # fmt: skip
def test_a_supernet_of_less_than_a_pass_is_told_of(
    estimator: Any, budget: str, steps: int, told: bool
) -> None:
    plan: Any = SimpleNamespace(
        estimator=estimator, strategy=Reinforce(), budget=Budget.parse(budget),
        task=SimpleNamespace(steps_per_epoch=lambda size: 20), recipe=Recipe(),
    )  # fmt: skip
    said = short_supernet(plan, steps)
    assert bool(said) == told
    if told:
        assert "trains for 19 steps, less than one pass over the training split (20)" in said
        assert "'low-fidelity'" in said
        plan.strategy = ENAS()  # which needs a supernet
        assert "'low-fidelity'" not in short_supernet(plan, steps)


@pytest.mark.parametrize(
    ("times", "told"),
    [((1.0, 1.1, 0.9), ""), ((0.5, 0.6, 1.0), "took 0.60 of"), ((1.2, 1.7, 2.0), "took 1.70 of"),
     ((0.1, 1.24, 9.0), "")],
)  # fmt: skip
def test_a_table_of_another_speed_is_told_of(times: tuple[float, ...], told: str) -> None:
    pairs = tuple((0.2, 0.2 * each, "{}", 1.0) for each in times)
    said = table_off(Validation(0.0, 1.0, 0.0, pairs))
    assert told in said
    assert bool(said) == bool(told)


@pytest.mark.parametrize(
    ("warming", "steps", "told"),
    [
        (lambda step: step < 5, 5, True), (lambda step: step < 5, 6, False),
        (lambda step: True, 0, False), (None, 5, False), (True, 5, False),
    ],
)  # fmt: skip
def test_a_training_that_was_all_warm_up_is_told_of(warming: Any, steps: int, told: bool) -> None:
    plan = plan_of(SimpleNamespace(paths=SimpleNamespace(warming=warming)))
    assert bool(unlearned(plan, steps)) == told
    assert unlearned(plan_of(SimpleNamespace()), steps) == ""


@pytest.mark.parametrize(
    ("rungs", "fidelity", "told"),
    [([(9, 0.1), (1, 1.0)], 0.1, True), ([(9, 0.1), (1, 1.0)], 1.0, False), ([], 0.1, False)],
)
def test_halving_that_trained_none_whole_is_told_of(
    rungs: list[tuple[int, float]], fidelity: float, told: bool
) -> None:
    plan = plan_of(SimpleNamespace(rungs=rungs))
    point = tiny_space().largest()
    trials = [Trial(0, point, "scored", Estimate(1.0), fidelity=fidelity)]
    said = unclimbed(plan, trials)
    assert ("1 trials end in a lower rung, where a cycle of all has 10" in said) == told
    assert bool(said) == told


@pytest.mark.parametrize(
    ("limit", "file_ms", "measured_ms", "told"),
    [
        (0.5, 0.8, 0.4, True),
        (0.5, 0.5, 0.4, False),
        (0.5, 0.8, 0.8, False),  # a slow moment: the graph, too, takes twice what it took
        (0.5, 0.48, 0.2, False),  # a slow moment was when the graph was measured
        (None, 0.8, 0.4, False),
    ],
)
def test_a_file_that_is_over_the_limit_which_the_measured_graph_holds_is_told(
    limit: float | None, file_ms: float, measured_ms: float, told: bool
) -> None:
    made = HandOver(onnx_timed=Timed(1, file_ms, measured_ms))
    limits = {} if limit is None else {"latency_ms": limit}
    assert slow_file(limits, {"latency_ms": 0.4}, made) == told * (
        "model.onnx takes 0.8 ms, where the graph that was measured takes 0.4 ms, and so is over "
        "latency_ms <= 0.5; a limit of 0.25 leaves room for it"
    )
    assert slow_file(limits, {"latency_ms": 0.4}, HandOver()) == ""
