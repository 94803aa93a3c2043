"""The face as a user types it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import assay
from assay.architecture import Architecture
from assay.contracts import STEPS, Estimate
from assay.errors import (
    AssayError,
    ExportRefused,
    ForeignMachine,
    InvalidSetting,
    InvalidStudy,
    InvalidTask,
    SpaceExhausted,
    TestSplitClosed,
    UnsupportedMix,
)
from assay.estimators.one_shot import OneShot
from assay.report.tables import network_names
from assay.run import trainings, workflow
from assay.run.events import Event
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.strategies.learned.proxyless import Gates, Proxyless
from assay.study.store import Study
from assay.testing import tiny_task
from tests.e2e import tiny


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, table: Path) -> assay.Result:
    return tiny.run(tmp_path_factory.mktemp("runs") / "one", table)


def digest(out: Path) -> str:
    return hashlib.sha256((out / "best" / "weights.safetensors").read_bytes()).hexdigest()


def scores(result: assay.Result) -> list[Any]:
    return [(t.architecture, t.state, t.objectives[:1]) for t in result.trials()]


def test_the_winner_is_plain_trained_and_within_the_limits(found: assay.Result) -> None:
    best = found.best()
    assert not any(type(m).__module__.startswith("assay") for m in best.module.modules())
    assert best.metrics["macs"] <= 150_000
    assert best.metrics["test_accuracy"] > 0.25  # ten classes, four epochs of 400 digits
    assert {"latency_ms", "params", "model_bytes", "valid_accuracy"} <= set(best.metrics)
    assert best.metrics["model_onnx_ms"] > 0.0
    task = tiny.task()
    test = task.open_test()
    right = [(best.module(x).argmax(1) == y).float() for x, y in test.batches(64)]
    assert float(torch.cat(right).mean()) == pytest.approx(best.metrics["test_accuracy"], abs=1e-6)


def test_the_files_of_the_winner_agree(found: assay.Result) -> None:
    best = found.best()
    assert {p.name for p in best.folder.iterdir()} == {
        "architecture.json", "card.md", "model.onnx", "model.pt2", "weights.safetensors",
    }  # fmt: skip
    assert json.loads((best.folder / "architecture.json").read_text()) == best.architecture
    x = tiny.task().example(3)
    session = onnxruntime.InferenceSession(str(best.folder / "model.onnx"))
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert np.abs(out - best.module(x).numpy()).max() < 1e-4
    report = (found.out / "report.html").read_text()
    assert len(report.encode()) < 1_000_000
    assert "cleanly" in report
    assert "cut short" not in report


def test_trials_are_distinct_networks_and_the_front_is_not_beaten(found: assay.Result) -> None:
    trials = found.trials()
    space = assay.Space(tiny.Net)
    assert len({t.architecture for t in trials}) == len(trials)
    assert all(space.canonical(t.architecture) == t.architecture for t in trials)
    assert all(t.estimate is None for t in trials if t.state == "infeasible")
    assert all(t.measured["macs"] > 150_000 for t in trials if t.state == "infeasible")
    values = [t.objectives for t in trials if t.state == "scored"]
    for t in found.front():
        assert not any(
            all(a >= b for a, b in zip(v, t.objectives)) and v != t.objectives for v in values
        )


def test_the_same_search_gives_the_same_bits(
    found: assay.Result, table: Path, tmp_path: Path
) -> None:
    again = tiny.run(tmp_path / "two", table)
    assert scores(again) == scores(found)
    assert digest(again.out) == digest(found.out)


def test_a_finished_search_is_not_done_again(found: assay.Result, table: Path) -> None:
    before = (found.out / "best" / "weights.safetensors").stat().st_mtime_ns
    with Study.read(found.out) as study:
        trained = study.ledger()["train"].samples
    again = tiny.run(found.out, table)
    assert scores(again) == scores(found)
    assert (found.out / "best" / "weights.safetensors").stat().st_mtime_ns == before
    with Study.read(found.out) as study:
        assert study.ledger()["train"].samples == trained


def test_another_search_in_the_folder_is_refused(found: assay.Result, table: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"seed is 3 there and 4 here"):
        tiny.run(found.out, table, seed=4)
    with pytest.raises(InvalidStudy, match=r"limits\.macs"):
        tiny.run(found.out, table, limits={"macs": 1_000})


def test_a_limit_nothing_can_meet_says_what_the_space_has(table: Path, tmp_path: Path) -> None:
    with pytest.raises(SpaceExhausted, match=r"macs <= 10.*min .*median .*max "):
        tiny.run(tmp_path / "none", table, limits={"macs": 10})
    with pytest.raises(SpaceExhausted, match=r"latency_ms <= 1e-06.*min .*median .*max "):
        tiny.run(tmp_path / "never", table, limits={"latency_ms": 1e-6})
    for limits in ({"params": 10}, {"model_bytes": 10}):
        with pytest.raises(SpaceExhausted, match=r"<= 10: the space has min .*median .*max "):
            tiny.run(tmp_path / "small", table, limits=limits)
    with pytest.raises(SpaceExhausted, match=r"depth <= 0\.5: the space has min .*median .*max "):
        tiny.run(tmp_path / "own", table, limits={depth: 0.5})
    assert not list(tmp_path.iterdir())  # refused before anything was trained


def depth(module: nn.Module) -> float:
    return float(sum(isinstance(m, nn.Conv2d) for m in module.modules()))


def broken(module: nn.Module) -> float:
    raise RuntimeError("of the user's")


@pytest.mark.parametrize(
    "aims", [{"limits": {broken: 3}}, {"limits": {broken: "median"}}, {"objectives": (broken,)}]
)
def test_a_users_function_that_fails_is_refused_before_training(
    aims: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=r"'broken' cannot measure .*of the user's"):
        tiny.run(tmp_path / "out", table, **aims)
    assert not (tmp_path / "out").exists()


def test_users_functions_are_limits_and_objectives(table: Path, tmp_path: Path) -> None:
    result = tiny.run(
        tmp_path / "own", table, limits={depth: 3}, objectives=("score", "-params"),
        budget="steps=5,trials=8,epochs=1", finalists=Finalists(k=1),
    )  # fmt: skip
    assert all(t.measured["depth"] <= 3 for t in result.trials() if t.state == "scored")
    assert result.trials()[0].measured["depth"] >= 1
    assert result.best().architecture in [t.architecture for t in result.trials()]
    with Study.read(result.out) as study:
        rows = [study.get("winner"), *study.get("comparison")]
    told = [row["metrics"]["depth"] for row in rows]
    built = [Space(tiny.Net).build(Architecture(row["architecture"])) for row in rows]
    assert told == [depth(network) for network in built]
    named = network_names([{"name": "winner", **rows[0]}, *rows[1:]], {"depth": 3.0})
    assert ["over the limit" in name for name in named] == [value > 3 for value in told]
    assert max(told) == depth(Space(tiny.Net).build(Space(tiny.Net).largest())) > 3


def test_a_table_that_was_given_is_not_checked_by_a_call_that_does_not_name_it_again(
    table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "given"
    for given in (table, None):
        tiny.run(out, given, budget="steps=5,trials=4,epochs=1")
        with Study.read(out) as study:
            assert study.get("validation") is None


def test_a_head_that_does_not_fit_the_classes_is_refused_and_leaves_nothing(
    table: Path, tmp_path: Path
) -> None:
    def narrow() -> nn.Module:
        net = tiny.Net()
        net.head = nn.Linear(net.head.in_features, 9)
        return net

    with pytest.raises(InvalidTask, match="the network has 9 outputs, but labels go up to 9"):
        assay.search(Space(narrow), tiny.task(), budget=tiny.BUDGET, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Breaking:
    """An estimator that fails on some architectures in each of the ways there are."""

    def step_seconds(self, ctx):
        return 0.0

    def prepare(self, ctx, budget):
        yield from ()

    def estimate(self, ctx, proposals):
        found = []
        for p in proposals:
            width = p.architecture["neck.0"]
            if width == 16:
                raise MemoryError("not enough of it")
            found.append(Estimate(float("nan") if width == 24 else 1.0))
        return found

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(table: Path, tmp_path: Path) -> None:
    result = tiny.run(
        tmp_path / "failing", table, estimator=Breaking(), strategy="random",
        budget="steps=1,trials=12,epochs=1",
    )  # fmt: skip
    errors = {16: "MemoryError: not enough of it", 24: "NotFinite: the score is nan"}
    for trial in result.trials():
        width = trial.architecture["neck.0"]
        if trial.state != "infeasible":
            assert trial.state == ("scored" if width == 32 else "failed")
        if trial.state == "failed":
            assert errors[width] in (trial.error or "")
    assert {t.state for t in result.trials()} >= {"scored", "failed"}
    with Study.read(result.out) as study:
        assert any("Traceback" in f.traceback for f in study.failures())


def test_a_finalist_that_fails_in_any_way_takes_no_other_with_it(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def evaluate(*given: Any) -> dict[str, float]:
        calls.append(len(calls))
        if len(calls) == 1:
            raise IndexError("of a metric of the user's")
        return judge(*given)

    judge = trainings.evaluate
    monkeypatch.setattr(trainings, "evaluate", evaluate)
    events: list[Event] = []
    result = tiny.run(
        tmp_path / "out", table, budget="steps=5,trials=8,epochs=1", on_event=events.append
    )
    with Study.read(result.out) as study:
        first, second = sorted(study.finalists(), key=lambda f: f["state"] == "done")
        failures = [f for f in study.failures() if f.phase == "finalists"]
    assert [first["state"], second["state"]] == ["failed", "done"]
    assert "IndexError: of a metric" in failures[0].traceback
    assert result.best().architecture == Architecture.from_json(second["architecture"])
    assert [e.step for e in events if e.kind == "end"] == list(STEPS)  # and steps end in order


def another() -> Callable[[nn.Module], float]:
    def another_depth(module: nn.Module) -> float:
        return 1.0

    return another_depth


def test_what_cannot_be_is_refused_before_anything_is_written(table: Path, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"estimator": "one-shoot"}, "did you mean 'one-shot'"),
        ({"strategy": "evolutoin"}, "did you mean 'evolution'"),
        ({"limits": {"latency": 1.0}}, "did you mean 'latency_ms'"),
        ({"limits": {"macs": -1}}, "must be a positive number"),
        ({"limits": {"-macs": 1}}, "unknown quantity '-macs'"),
        ({"objectives": ("scoer",)}, "unknown quantity 'scoer'; did you mean 'score'"),
        ({"objectives": ("--macs",)}, "unknown quantity '-macs'"),
        ({"settings": {"estimator": {"path": "fair"}}}, "did you mean 'paths'"),
        ({"settings": {"strategy": {"population": "many"}}}, "strategy.population='many'"),
        ({"budget": "20 parsecs"}, "neither a time nor counts"),
        ({"train_on": "tpu"}, "There are: auto, cpu, cuda"),
        ({"limits": {another(): 1, another(): 2}}, "'another_depth' is called like another"),
        ({"limits": {another(): "median"}, "objectives": ("score", another())}, "called like"),
        ({"limits": {lambda module: 1.0: 2}}, "has no name"),
        ({"settings": {"finalists": {"k": "0"}}}, "finalists.k=0 must be a whole number"),
        ({"settings": {"estimator": {"norms": "x"}}}, "estimator.norms='x'"),
        (
            {"strategy": "proxyless", "settings": {"estimator": {"paths": "fair"}}},
            "estimator.paths='fair' is of no use to the strategy Proxyless, which brings paths",
        ),
    ]
    for changes, message in wrong:
        with pytest.raises(InvalidSetting, match=message):
            tiny.run(tmp_path / "refused", table, **changes)
        assert not (tmp_path / "refused").exists()


def test_a_budget_too_small_says_so_and_leaves_nothing(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"too small for one training step.*s more"):
        tiny.run(tmp_path / "short", table, budget=1e-3)
    assert not (tmp_path / "short").exists()


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.op = assay.OneOf(one=nn.Linear(64, 8), two=nn.Sequential(nn.Linear(64, 8), nn.ReLU()))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op(x.flatten(1)))


@pytest.mark.parametrize("strategy", ["proxyless", "darts", "enas"])
def test_it_says_so_before_the_hardware_is_measured(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow.Workflow, "_measure", lambda self: pytest.fail("measured"))
    given = {"strategy": strategy, "budget": 1e-3, "target": assay.Device("torch")}
    with pytest.raises(InvalidSetting, match=r"too small for one training step.*s more"):
        assay.search(assay.Space(Mixed), tiny.task(), out=tmp_path / "short", **given)
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize("steps", [1, 4])
def test_a_supernet_that_was_all_warm_up_has_taught_nothing(steps: int, tmp_path: Path) -> None:
    events: list[Event] = []
    assay.search(
        assay.Space(Mixed), tiny.task(), strategy=Proxyless(quantity="", warmup=0.25),
        budget=f"steps={steps},trials=2,epochs=1", target=assay.Device("torch"),
        out=tmp_path / "out", on_event=events.append,
    )  # fmt: skip
    said = [e.message for e in events if "so Proxyless has learned nothing; give more" in e.message]
    assert len(said) == (steps == 1)


class Own(Gates):
    """A user's own, whose settings are those of the strategy."""


def test_paths_of_the_strategy_that_is_given_are_welcome(tmp_path: Path) -> None:
    strategy = Proxyless(quantity="", warmup=0.0)
    given = {"target": assay.Device("torch"), "budget": "steps=4,trials=2,epochs=1"}
    found = assay.search(
        assay.Space(Mixed), tiny.task(), strategy=strategy, out=tmp_path / "out",
        estimator=OneShot(paths=strategy.paths), **given,
    )  # fmt: skip
    assert len(found.trials()) == 2
    for others in (Proxyless(lr=0.1).paths, Own(Proxyless(quantity="", warmup=0.0))):
        with pytest.raises(InvalidSetting, match="is of no use to the strategy Proxyless"):
            assay.search(
                assay.Space(Mixed), tiny.task(), strategy=strategy, out=tmp_path / "other",
                estimator=OneShot(paths=others), **given,
            )  # fmt: skip


class Clockless(Breaking):
    def step_seconds(self, ctx):
        raise KeyError("of the estimator's")


def test_any_error_at_the_beginning_leaves_nothing(table: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="of the estimator's"):
        tiny.run(tmp_path / "out", table, estimator=Clockless(), budget="60s")
    assert not (tmp_path / "out").exists()


class Dear(Breaking):
    """An estimator each of whose estimates takes ages, after a preparation or without one."""

    def __init__(self, step_s):
        self.step_s = step_s

    def step_seconds(self, ctx):
        return self.step_s

    def estimate_seconds(self, ctx):
        return 1e6

    def estimate(self, ctx, proposals):
        return [Estimate(float(len(p.architecture))) for p in proposals]


def test_a_budget_is_exceeded_only_for_what_was_prepared(table: Path, tmp_path: Path) -> None:
    budget = "60s,steps=2,epochs=1"
    with pytest.raises(InvalidSetting, match=r"too small for one score: .*'search' may spend"):
        tiny.run(tmp_path / "scratch", table, estimator=Dear(0.0), budget=budget)
    result = tiny.run(tmp_path / "paid", table, estimator=Dear(1e-3), budget=budget)
    with Study.read(result.out) as study:
        assert study.phase("search").counts["trials"] == 2  # as many as there are finalists
    assert sum(t.state == "scored" for t in result.trials()) == 2


class Wrong(tiny.Net):
    """For images of three channels, where the digits have one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)


class Lost(tiny.Net):
    """Whose head does not follow the open width that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 10)


@pytest.mark.parametrize(("net", "module"), [(Wrong, "stem"), (Lost, "head")])
def test_a_model_that_does_not_run_is_refused_by_module(
    net: type[nn.Module], module: str, tmp_path: Path
) -> None:
    with pytest.raises(AssayError, match=rf"^{module}: the path .* does not run"):
        assay.search(assay.Space(net), tiny.task(), out=tmp_path / "out", budget="steps=1,trials=1")
    assert not (tmp_path / "out").exists()


class Unwritable(nn.Module):
    """What no exporter can write: the output goes by the numbers in the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.neg() if float(x.sum()) > 1e9 else x


class Untold(tiny.Net):
    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Sequential(Unwritable(), *self.neck)


def test_what_the_target_cannot_run_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"target=Device\('torch'\), or --set target\.runtime"):
        assay.search(
            assay.Space(Untold), tiny.task(), out=tmp_path / "out", budget="steps=1,trials=1"
        )
    assert not (tmp_path / "out").exists()


def test_a_table_that_cannot_serve_is_refused_before_training(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match="cannot be read"):
        tiny.run(tmp_path / "out", tmp_path / "missing.json")
    saved = json.loads(table.read_text())
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps({**saved, "device": "another machine"}))
    with pytest.raises(ForeignMachine, match="leave the table out of the search"):
        tiny.run(tmp_path / "out", foreign)
    assert not (tmp_path / "out").exists()


def test_a_budget_in_seconds_becomes_counts_that_are_kept(table: Path, tmp_path: Path) -> None:
    result = tiny.run(tmp_path / "timed", table, budget="8s")
    with Study.read(result.out) as study:
        steps = study.phase("train").counts["steps"]
        trials = study.phase("search").counts["trials"]
        assert study.phase("train").done == steps >= 1
        trials = (study.get("search replanned") or {"trials": trials})["trials"]
        assert sum(t.state == "scored" for t in study.trials()) <= trials
        assert study.phase("finalists").counts["steps"] >= 1
        finals = [f for f in study.finalists() if f["trial"] is not None]
        assert {f["steps"] for f in finals} == {study.phase("finalists").counts["steps"]}


def test_counts_bound_a_budget_in_seconds(table: Path, tmp_path: Path) -> None:
    result = tiny.run(tmp_path / "bounded", table, budget="60s,steps=5,trials=3,epochs=1")
    with Study.read(result.out) as study:
        assert study.phase("train").counts["steps"] == study.phase("train").done == 5
        assert study.phase("search").counts["trials"] == 3
        assert sum(t.state == "scored" for t in study.trials()) == 3
        epoch = tiny.task().steps_per_epoch(tiny.RECIPE.batch_size)
        assert study.phase("finalists").counts["steps"] == epoch


@pytest.mark.parametrize(
    ("estimator", "strategy"),
    [
        ({"paths": "fair"}, "nsga2"),
        ({"paths": "sandwich", "norms": "batch"}, "random"),
        ({"score": "metric", "shared": "false"}, "evolution"),
        ({"states": "1"}, "optuna:tpe"),
    ],
)
def test_ways_to_search(
    table: Path, tmp_path: Path, estimator: dict[str, str], strategy: str
) -> None:
    result = tiny.run(
        tmp_path / "way", table, settings={"estimator": estimator}, strategy=strategy,
        budget="steps=6,trials=14,epochs=1",
        finalists=Finalists(k=1, seeds=2, weights="supernet", compare=False),
    )  # fmt: skip
    with Study.read(result.out) as study:
        given = study.identity["estimator"]
        assert {k: str(given[k]).lower() for k in estimator} == estimator
        finals = [f for f in study.finalists() if f["trial"] is not None]
    best = result.best()
    scored = {t.number: t for t in result.trials() if t.state == "scored"}
    top = max(scored.values(), key=lambda t: t.estimate.score if t.estimate else -np.inf)
    assert {(f["trial"], f["seed"]) for f in finals} == {(top.number, 0), (top.number, 1)}
    assert best.architecture == top.architecture
    assert all(t.measured["macs"] <= 150_000 for t in scored.values())
    # The supernet's weights are where they start from: six of its steps and one epoch are little.
    assert best.metrics["valid_loss"] < 1.05 * float(np.log(10))


class Curve(nn.Module):
    """A 1-D regression with choices, on features `[N, 1]`."""

    def __init__(self) -> None:
        super().__init__()
        w = assay.Width(8, 16)
        self.first = nn.Linear(1, w)
        self.act = assay.OneOf(tanh=nn.Tanh(), relu=nn.ReLU())
        self.last = nn.Linear(w, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


def small(out: Path, space: assay.Space, task: assay.Task) -> assay.Result:
    return assay.search(
        space, task, out=out, budget="steps=120,trials=4,epochs=60",
        recipe=assay.Recipe(optimizer="adamw", lr=0.01, weight_decay=0.0, batch_size=32),
        finalists=Finalists(k=1, compare=False),
    )  # fmt: skip


def test_a_regression_in_one_dimension(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (300, 1)).astype(np.float32)
    y = np.sin(2 * x).astype(np.float32)
    task = assay.Task(
        (x[:200], y[:200]), (x[200:250], y[200:250]), (x[250:], y[250:]), loss=F.mse_loss
    )
    assert task.score == "-loss"
    best = small(tmp_path / "curve", assay.Space(Curve), task).best()
    assert best.metrics["test_loss"] < 0.25 * float((y**2).mean())


class Masks(nn.Module):
    """A toy segmentation: pixel classes `[N, 2, H, W]` of images `[N, 1, H, W]`."""

    def __init__(self) -> None:
        super().__init__()
        k = assay.Kernel(1, 3)
        self.body = nn.Sequential(nn.Conv2d(1, 8, k, padding=k // 2), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image))


def test_a_toy_segmentation_with_inputs_by_keyword(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(160, 1, 8, 8)).astype(np.float32)
    # A pixel belongs to class 1 if the mean of its neighbourhood is positive.
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    around = sum(padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3))
    masks = (around[:, 0] > 0).astype(np.int64)
    parts = [({"image": images[a:b]}, masks[a:b]) for a, b in ((0, 100), (100, 130), (130, 160))]
    result = small(tmp_path / "masks", assay.Space(Masks), assay.Task(*parts))
    best = result.best()
    assert best.architecture == {"body.0": 3}
    assert best.metrics["test_accuracy"] > 0.8
    with Study.read(result.out) as study:
        handover = study.get("handover")
    assert handover["refused"] == {}
    assert {"model.onnx", "model.pt2"} <= set(handover["open_batch"])
    session = onnxruntime.InferenceSession(str(best.folder / "model.onnx"))
    (out,) = session.run(None, {"image": images[:3]})
    with torch.no_grad():
        expected = best.module(image=torch.from_numpy(images[:3])).numpy()
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_the_test_split_is_closed_while_searching(table: Path, tmp_path: Path) -> None:
    class Peeking(Breaking):
        def estimate(self, ctx, proposals):
            ctx.task.test  # noqa: B018
            return []

    with pytest.raises(AssayError, match=r"no architecture was scored.*TestSplitClosed"):
        tiny.run(tmp_path / "peek", table, estimator=Peeking(), budget="steps=1,trials=3,epochs=1")
    with Study.read(tmp_path / "peek") as study:
        judged = [t for t in study.trials() if t.state != "infeasible"]
        assert [t.state for t in judged] == ["failed"] * 3


def test_a_second_search_closes_the_test_split_again(table: Path, tmp_path: Path) -> None:
    task = tiny.task()
    task.open_test()  # as the finalists of a first search leave it

    class Looking(Breaking):
        def prepare(self, ctx, budget):
            ctx.task.test  # noqa: B018
            yield from ()

    with pytest.raises(TestSplitClosed):
        assay.search(
            assay.Space(tiny.Net), task, estimator=Looking(), table=table, out=tmp_path / "second",
            budget="steps=1,trials=3,epochs=1",
        )  # fmt: skip


@pytest.mark.parametrize("estimator", ["scratch", "zero-cost"])
def test_finalists_start_from_shared_weights_only_where_there_are_some(
    estimator: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=r"finalists\.weights='supernet' needs a supernet"):
        assay.search(
            assay.Space(tiny.Net), tiny.task(), estimator=estimator,
            budget="steps=4,trials=2,epochs=1", finalists=Finalists(weights="supernet"),
            out=tmp_path / "out",
        )  # fmt: skip


def test_a_strategy_that_learns_brings_its_paths(table: Path, tmp_path: Path) -> None:
    found = tiny.run(
        tmp_path / "way", table, strategy="proxyless", budget="steps=40,trials=8,epochs=1",
        settings={"strategy": {"quantity": "macs"}},
    )  # fmt: skip
    assert found.best().metrics["macs"] <= 150_000
    with Study.read(tmp_path / "way") as study:
        assert study.phase("measure").done >= 1


class Recurrent(nn.Module):
    """Both options return tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.read = assay.OneOf(
            lstm=nn.LSTM(6, 4, batch_first=True), gru=nn.GRU(6, 4, batch_first=True)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(x[:, None])[0][:, -1])


class Uneven(nn.Module):
    """One option of many is of another shape, which few pairs show."""

    def __init__(self) -> None:
        super().__init__()
        keep = {f"keep{i}": nn.Conv1d(1, 4, 1) for i in range(20)}
        self.read = assay.OneOf(keep, halve=nn.Conv1d(1, 4, 1, stride=2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(x[:, None]).mean(2))


@pytest.mark.parametrize("strategy", ["proxyless", "darts"])
@pytest.mark.parametrize("net", [Recurrent, Uneven])
def test_options_that_cannot_be_mixed_are_refused_before_training(
    net: type[nn.Module], strategy: str, tmp_path: Path
) -> None:
    given = {"budget": "steps=2,trials=1,epochs=1", "target": assay.Device("torch")}
    with pytest.raises(UnsupportedMix, match=r"^read: what is mixed must be tensors of one shape"):
        assay.search(
            assay.Space(net), tiny_task(), strategy=strategy, out=tmp_path / "out", **given
        )
    assert not (tmp_path / "out").exists()


def test_a_limit_just_below_the_least_of_the_table_is_refused_before_training(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = assay.Space(tiny.Net, example=tiny.task().example(1))
    measured = assay.LatencyTable.load(table, space, assay.Device(), example=space.example)
    limits = {"latency_ms": 0.95 * min(measured.predict(point) for point in space.all())}
    monkeypatch.setattr(workflow, "refuse_hopeless_limits", lambda *_: None)  # within its chance
    said = r"no architecture can meet latency_ms <= .*: the space has min "
    with pytest.raises(SpaceExhausted, match=said):
        tiny.run(tmp_path / "given", table, limits=limits)
    assert not (tmp_path / "given").exists()
    monkeypatch.setattr(assay.LatencyTable, "build", lambda *_, **__: measured)
    monkeypatch.setattr(workflow.Workflow, "_validate", lambda *_: None)
    with pytest.raises(SpaceExhausted, match=said):
        tiny.run(tmp_path / "measured", None, limits=limits, strategy="enas")
    with Study.read(tmp_path / "measured") as study:
        assert "train" not in study.ledger()
