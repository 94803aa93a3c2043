"""What the benchmark of memory compares: the same networks, and the same bytes counted."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from bench.nni_steps import kept_bytes, name_of, network
from bench.path_memory import (
    ALONE,
    OPERATIONS,
    SHAPE,
    Still,
    darts_kept,
    everywhere,
    holds,
    nni_measured,
    nni_python,
    noise,
    path_trainers,
    plan_of,
    slope,
    space_of,
)
from torch import nn

from assay.contracts import Context, History
from assay.executors.inline import Inline
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.proxyless import Proxyless
from assay.train.recipe import Recipe
from assay.weights.supernet import Supernet


@pytest.mark.parametrize("operation", [(5, 3), (3, 6)])
def test_a_plan_builds_the_networks_of_the_space(operation):
    space, plan, name = space_of(4), plan_of(4, 1), name_of(*operation)
    ours = space.build(everywhere(space, name))
    theirs = network(plan, lambda _, operations: operations[name])
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, *plan["input_shape"])
    assert torch.equal(ours(images), theirs(images))
    counted = [kept_bytes(m, lambda m=m: m(images)) for m in (ours, theirs)]
    assert counted[0] == counted[1] > 0


@pytest.mark.parametrize("num", OPERATIONS)
def test_a_plan_holds_all_operations_of_the_space(num):
    theirs = network(plan_of(num, 1), lambda _, operations: nn.ModuleDict(operations))
    ours = [tuple(p.shape) for p in space_of(num).model.parameters()]
    assert [tuple(p.shape) for p in theirs.parameters()] == ours


def test_kept_bytes_are_counted_once_and_without_weights():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    images = torch.randn(4, 3)  # kept for the weight's gradient; ReLU keeps its own output
    assert kept_bytes(model, lambda: model(images)) == 4 * (4 * 3 + 4 * 5)
    assert kept_bytes(model, lambda: (model(images), model[0](images))) == 4 * (4 * 3 + 4 * 5)


def test_what_was_counted_is_freed():
    seen = []

    def work() -> None:
        seen.append(weakref.ref(nn.ReLU()(nn.Linear(3, 5)(torch.randn(4, 3)))))

    kept_bytes(nn.Sequential(), work)
    assert seen[0]() is None


def test_a_weight_step_of_proxyless_draws_its_path_and_learns_nothing():
    space, task = space_of(2), noise()
    learners = Proxyless(quantity="", warmup=0.0).paths, DARTS().paths
    for learner in learners:
        learner.begin(Context(space, task, Recipe(), Inline(), "cpu", 0, History(space)), space, 9)
    gates, _ = learners
    for label, choice in space.choices.items():
        gates.known.logits[label][choice.options.index(name_of(*ALONE))] = 99.0
    before = gates.known.table()
    path_trainers(space, task, *learners)["proxyless_weight"].run(1)
    assert space.selected == everywhere(space, name_of(*ALONE))
    assert gates.known.table() == before


def test_both_steps_of_darts_keep_what_all_operations_keep():
    """The step of alpha also keeps each operation's output, which its weight's gradient needs."""
    space, task = space_of(2), noise()
    weights = DARTS(warmup=0.0, batch=4).paths
    weights.begin(Context(space, task, Recipe(), Inline(), "cpu", 0, History(space)), space, 9)
    assert not hasattr(Still(weights), "learn")  # so that a supernet takes weight steps only
    supernet, images = Supernet(space), torch.randn(4, *SHAPE)
    space.model.train()
    before = weights.known.table()
    kept = darts_kept(space, weights, lambda: weights.learn(supernet, task, 0), images)
    assert weights.known.table() != before
    paths = []
    for name in next(iter(space.choices.values())).options:
        space.select(everywhere(space, str(name)))
        paths.append(kept_bytes(space.model, lambda: space.model(images)))
    assert 1.8 * sum(paths) / 2 < kept["darts"] < 1.05 * sum(paths)
    assert kept["darts"] < kept["darts_architecture"] < 1.5 * sum(paths)


def test_the_slope_is_in_paths_and_needs_two_points():
    rows = {n: {"kept_mib": {"darts": 7.0 * (0.9 * n + 0.3), "path": 7.0}} for n in (2, 4, 12)}
    assert slope(rows) == pytest.approx(0.9)
    assert slope({2: rows[2]}) is None


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({}, None),
        ({"path_to_alone": 0.97}, "weight_activations"),
        ({"time_path_to_alone": 1.06}, "weight_time"),
        ({"time_weight_to_given": 1.06}, "weight_time"),
        ({"proxyless_without_second_output_to_path": 1.21}, "architecture_activations"),
        ({"time_architecture_to_path": 2.21}, "architecture_time"),
    ],
)
def test_a_target_holds_only_where_it_is_met_at_every_number(changed, missed):
    met = {
        "path_to_alone": 1.02,
        "time_path_to_alone": 1.05,
        "time_weight_to_given": 1.05,
        "proxyless_without_second_output_to_path": 1.2,
        "time_architecture_to_path": 2.2,
    }
    assert [name for name, held in holds({2: met, 4: {**met, **changed}}).items() if not held] == (
        [missed] if missed else []
    )


def test_what_nni_says_is_taken_and_where_it_cannot_be_run_the_reason_told(tmp_path):
    def python(script: str) -> Path:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    plan = plan_of(2, 1)
    assert nni_measured("no network", plan) == "no network"
    assert nni_measured(python("echo a note; echo '{\"a\": 1}'"), plan) == {"a": 1}
    told = nni_measured(python("echo trace >&2; echo 'ImportError: nni' >&2; exit 1"), plan)
    assert told == "bench.nni_steps failed: ImportError: nni"


def test_an_environment_that_is_there_is_taken_and_one_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").touch()
    told = nni_python(tmp_path / "file")
    assert isinstance(told, str)
    assert "-m venv" in told
    assert " failed: " in told
    (tmp_path / "made").mkdir()
    version = torch.__version__.split("+")[0]
    (tmp_path / "made/made.txt").write_text(f"torch=={version} nni==3.0 pytorch-lightning<2")
    assert nni_python(tmp_path / "made") == tmp_path / "made/bin/python"
