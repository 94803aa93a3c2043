"""Networks trained in other processes are those trained in this one."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sqlalchemy import Engine, event
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from assay.contracts import Executor, Job
from assay.cost import derive
from assay.errors import AssayError, NotFinite, Unwritable, WorkerDied
from assay.executors.inline import Inline
from assay.executors.processes import Processes
from assay.run import ending, preparing, trainings
from assay.run.events import Event
from assay.run.face import search
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.study.store import Study
from assay.train.files import load_tensors, save_tensors
from assay.train.task import Task, evaluate
from tests.e2e import tiny

COUNTS = "steps=5,trials=12,epochs=2"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.json"
    tiny.save_table(path)
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a worker has: sums go by the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finals(out: Path) -> dict[str, tuple[str, int, dict[str, Tensor]]]:
    with Study.read(out) as study:
        return {
            f["key"]: (f["state"], f["steps"], load_tensors(out / f["weights"]))
            for f in study.finalists()
        }


def searched(out: Path, table: Path, executor: Executor, **changes: Any) -> Any:
    return tiny.run(
        out, table, budget=COUNTS, executor=executor, finalists=Finalists(k=3, compare=False),
        **changes,
    )  # fmt: skip


class Impatient:
    """A listener that interrupts once each of three trainings has had its turn."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, event: Event) -> None:
        if event.step == "finalists" and event.kind == "progress" and event.message:
            if len(self.told) == 3:
                raise KeyboardInterrupt
            self.told.add(event.message)


def test_at_once_interrupted_or_one_by_one_they_are_the_same(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = searched(tmp_path / "alone", table, Inline())
    monkeypatch.setattr(trainings, "_SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "at_once", table, Processes(workers=2), on_event=Impatient())
    with Study.read(tmp_path / "at_once") as study:
        begun = {f["key"]: f["state"] for f in study.finalists()}
    assert len(begun) == 3
    assert "running" in begun.values()
    at_once = searched(tmp_path / "at_once", table, Processes(workers=2))

    expected, found = finals(alone.out), finals(at_once.out)
    assert list(found) == list(expected)
    for key, (state, steps, tensors) in expected.items():
        assert found[key][:2] == (state, steps)
        assert set(found[key][2]) == set(tensors)
        for name, tensor in tensors.items():
            torch.testing.assert_close(found[key][2][name], tensor, rtol=0, atol=0)
    assert at_once.best().architecture == alone.best().architecture
    with Study.read(alone.out) as one, Study.read(at_once.out) as other:
        costs = [study.ledger()["finalists"] for study in (one, other)]
        done = [study.phase("finalists").done for study in (one, other)]
    assert done[0] == done[1] == sum(steps for _, steps, _ in expected.values())
    assert costs[0].samples == costs[1].samples > 0
    assert costs[0].macs == costs[1].macs > 0


class Distant(Inline):
    """Takes its time to send a job; two are under way at once, in name."""

    at_once = 2  # type: ignore[assignment]

    def __init__(self) -> None:
        object.__setattr__(self, "turns", {})

    def submit(self, work: Any, *, in_place: bool = False) -> Job[Any]:
        if getattr(work, "func", None) is trainings._elsewhere:
            maker, _, count = work.args
            self.turns.setdefault(maker.keywords["seed"], []).append(count)
            time.sleep(0.05)
        return super().submit(work, in_place=in_place)


@pytest.mark.parametrize(("most_s", "turns"), [(60.0, [1, 4, 16, 64]), (0.0, [1] * 24)])
def test_turns_grow_as_long_as_sending_is_dear(
    most_s: float, turns: list[int], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "_TURN_S", 0.0)
    monkeypatch.setattr(trainings, "_MOST_TURN_S", most_s)
    executor = Distant()
    result = tiny.run(
        tmp_path / "out", table, budget=COUNTS, executor=executor,
        finalists=Finalists(k=1, seeds=2, compare=False),
    )  # fmt: skip
    with Study.read(result.out) as study:
        assert [f["steps"] for f in study.finalists()] == [24, 24]
    assert list(executor.turns.values()) == [turns, turns]


@pytest.mark.parametrize(("batch_size", "most"), [(4, 16), (32, 128)])
def test_finalists_are_judged_in_batches_that_fit_and_refused_for_loss_or_score_alone(
    batch_size: int, most: int, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = {"validated": [0], "tested": [0]}

    def noting(name: str) -> Any:
        def evaluated(module: Any, batches: Any, task: Task) -> dict[str, float]:
            whole = list(batches)
            judged[name] = [len(targets) for _, targets in whole]
            return evaluate(module, whole, task)

        return evaluated

    monkeypatch.setattr(trainings, "evaluate", noting("validated"))
    monkeypatch.setattr(ending, "evaluate", noting("tested"))
    task = tiny.task()
    task.metrics["undefined"] = lambda output, targets: torch.tensor(torch.nan)
    result = search(
        Space(tiny.Net), task, limits={"macs": 150_000}, budget="steps=2,trials=4,epochs=1",
        recipe=tiny.RECIPE.with_(batch_size=batch_size), table=table, out=tmp_path / "out",
        finalists=Finalists(k=1, compare=False),
    )  # fmt: skip
    sizes = {"validated": len(task.valid), "tested": len(task.open_test())}
    for name, found in judged.items():
        assert sum(found) == sizes[name]
        assert len(found) == math.ceil(sizes[name] / most)
    assert math.isnan(result.best().metrics["valid_undefined"])
    with Study.read(result.out) as study:
        assert [f["state"] for f in study.finalists()] == ["done"]


@pytest.mark.parametrize("score", ["-loss", "undefined", "-undefined"])
def test_a_finalist_whose_loss_or_score_is_not_finite_is_refused(score: str) -> None:
    task = tiny.task()
    task.score = score
    if score == "-loss":
        task.loss = lambda output, targets: output.sum() * torch.inf
    task.metrics["undefined"] = lambda output, targets: torch.tensor(torch.nan)
    plan = SimpleNamespace(task=task, train_on="cpu")
    flow: Any = SimpleNamespace(plan=plan, study=None, steps=None, measures=None)
    space = Space(tiny.Net)
    network = space.fresh(space.sample(derive(0, "point")), 0)
    with pytest.raises(NotFinite, match="the trained network's validation figures are"):
        trainings.Trainings(flow, tiny.RECIPE)._validated(network)


@pytest.mark.parametrize(("name", "trial"), [("finalist", 3), ("largest", None), ("random", None)])
def test_all_start_from_the_shared_weights_where_finalists_do(name: str, trial: int | None) -> None:
    space = Space(tiny.Net)
    point = space.canonical(space.sample(derive(0, "point")))
    plan = SimpleNamespace(
        space=space, task=tiny.task(), seed=0, finalists=Finalists(weights="supernet")
    )
    flow: Any = SimpleNamespace(plan=plan, study=None, steps=None, measures=None)
    final = trainings.Final(name, point, 0, trial)
    begun = trainings.Trainings(flow, tiny.RECIPE)._network(final).state_dict()
    shared = space.build(point).state_dict()
    assert set(begun) == set(shared)
    assert all(torch.equal(begun[key], shared[key]) for key in shared)


def test_a_finalist_for_which_there_is_no_memory_is_tried_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(*given: Any) -> Any:
        raise MemoryError("others have it")

    whole = searched(tmp_path / "whole", table, Inline())
    monkeypatch.setattr(trainings, "evaluate", crowded)
    with pytest.raises(AssayError, match="every finalist's training failed"):
        searched(tmp_path / "out", table, Inline())
    with Study.read(tmp_path / "out") as study:
        assert study.finalists() == []
        assert [f.phase for f in study.failures()] == ["finalists"] * 3
    monkeypatch.setattr(trainings, "evaluate", evaluate)
    again = searched(tmp_path / "out", table, Inline())
    assert again.best().metrics["valid_accuracy"] == whole.best().metrics["valid_accuracy"]
    assert [f[0] for f in finals(tmp_path / "out").values()] == ["done"] * 3


def test_a_finalist_that_could_not_be_saved_has_not_failed(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: Any) -> None:
        if path.name.endswith("-done.safetensors"):
            raise Unwritable(f"{path} cannot be written; make room for it")
        save_tensors(path, state)

    monkeypatch.setattr(trainings, "save_tensors", full)
    with pytest.raises(Unwritable, match=r"done\.safetensors cannot be written"):
        searched(tmp_path / "out", table, Inline())
    with Study.read(tmp_path / "out") as study:
        assert study.failures() == []
        assert "failed" not in {f["state"] for f in study.finalists()}
    monkeypatch.setattr(trainings, "save_tensors", save_tensors)
    searched(tmp_path / "out", table, Inline())
    assert [f[0] for f in finals(tmp_path / "out").values()] == ["done"] * 3


@pytest.fixture
def flushed() -> Iterator[list[str]]:
    """The files that a study names, as they were when it was flushed last."""
    files: list[str] = []

    def note(connection: Any) -> None:
        raw = connection.connection.driver_connection
        if raw.in_transaction and raw.execute("PRAGMA synchronous").fetchone() == (2,):
            states = raw.execute("SELECT checkpoint FROM phases").fetchall()
            weights = raw.execute("SELECT weights FROM finalists").fetchall()
            files[:] = [json.loads(state).get("file", "") for (state,) in states]
            files.extend(name for (name,) in weights)

    event.listen(Engine, "commit", note)
    yield files
    event.remove(Engine, "commit", note)


def test_a_file_goes_when_the_study_names_another_whatever_the_power_does(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
    gone: list[tuple[str, list[str]]] = []
    unlink = Path.unlink

    def noting(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".safetensors":
            gone.append((f"weights/{path.name}", list(flushed)))
        unlink(path, missing_ok)

    for module in (preparing, trainings):
        monkeypatch.setattr(module, "_SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(Path, "unlink", noting)
    tiny.run(tmp_path, table, budget=COUNTS, finalists=Finalists(k=1, compare=False))
    assert {Path(file).name.split("-")[0] for file, _ in gone} == {"supernet", "finalist"}
    assert all(named and file not in named for file, named in gone)


class Deadly(Processes):
    """The process of the first job that trains is killed."""

    deaths = 0

    def gather(self, jobs: Sequence[Job[Any]]) -> Iterator[Job[Any]]:
        for job in super().gather(jobs):
            if not job.in_place and not self.deaths:
                self.deaths = 1
                job.error = WorkerDied("the process of a job ended before it did (SIGKILL)")
            yield job


class Locked(Dataset[Any]):
    """Samples behind a lock, as an open file would be: it cannot be copied elsewhere."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.samples = tiny.task().train

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        with self.lock:
            inputs, targets = self.samples.fetch(torch.tensor([i]), "cpu")  # type: ignore[attr-defined]
        return inputs[0], int(targets[0])


def of_set(given: Any) -> Task:
    """The task of `tiny`, its training samples given otherwise."""
    known = tiny.task()
    return Task(train=given, valid=known.valid, test=known.open_test())


@pytest.mark.parametrize(
    ("executor", "task", "said"),
    [
        (Deadly(workers=2), None, "ended before it did"),
        (Processes(workers=2), of_set(Locked()), "cannot pickle '_thread.lock' object"),
        (Processes(workers=2), of_set(DataLoader(Locked(), batch_size=32)), ""),
    ],
)
def test_where_workers_cannot_serve_they_are_trained_here(
    executor: Processes, task: Task | None, said: str, table: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    result = search(
        Space(tiny.Net), task or tiny.task(), limits={"macs": 150_000}, budget=COUNTS,
        recipe=tiny.RECIPE, table=table, out=tmp_path / "out", on_event=events.append,
        executor=executor, finalists=Finalists(k=3, compare=False),
    )  # fmt: skip
    with Study.read(result.out) as study:
        assert [f["state"] for f in study.finalists()] == ["done"] * 3
        assert not study.failures()
    notes = [e.message for e in events if e.kind == "note" and "one at a time" in e.message]
    assert len(notes) == (1 if said else 0)
    assert all(said in note for note in notes)


class Counting(tiny.Net):
    """Has extra state that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"calls": 1}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"calls": 1}


def test_a_model_with_extra_state_is_searched_and_comes_back(tmp_path: Path) -> None:
    result = search(
        Space(Counting), tiny.task(), budget="steps=2,trials=2,epochs=1", recipe=tiny.RECIPE,
        out=tmp_path / "out", finalists=Finalists(k=1, compare=False),
    )  # fmt: skip
    written = load_tensors(tmp_path / "out" / "best" / "weights.safetensors")
    state = result.best().module.state_dict()
    assert state.pop("_extra_state") == {"calls": 1}
    assert state.keys() == written.keys()
    assert all(torch.equal(value, written[name]) for name, value in state.items())
