"""What a step books: time, samples and MACs, in one piece with the progress and the saved file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.cost import Cost
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.one_shot import OneShot
from assay.run import preparing
from assay.run.preparing import prepare
from assay.run.steps import Steps
from assay.study.store import Study
from assay.testing import FakeEstimator, tiny_context
from assay.train.loop import Trainer


class Costly(FakeEstimator):
    """Each of its steps takes 7 MACs a sample."""

    def prepare(self, ctx: Any, budget: Any) -> Iterator[Cost]:
        for cost in super().prepare(ctx, budget):
            yield Cost(cost.wall_s, cost.samples, 7 * cost.samples, cost.device)


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    with Study.open(tmp_path, identity={"of": "a test"}) as study:
        yield Steps(study, lambda event: None)


def test_a_checkpoint_books_samples_and_macs(steps: Steps) -> None:
    with steps.step("train", 10) as step:
        step.checkpoint(samples=32, macs=640, device="cpu")
        step.checkpoint(samples=8, macs=160, device="cpu")
    booked = steps.study.ledger()["train"]
    assert (booked.samples, booked.macs, booked.device) == (40, 800, "cpu")
    assert booked.wall_s > 0


def test_a_note_is_told_each_time_and_kept_once(steps: Steps) -> None:
    told: list[Any] = []
    steps.listener = told.append
    for message in ("it ends here", "it is dear", "it ends here"):
        steps.note(message)
    assert [(e.kind, e.message) for e in told] == [
        ("note", "it ends here"), ("note", "it is dear"), ("note", "it ends here"),
    ]  # fmt: skip
    assert steps.study.get("notes") == ["it ends here", "it is dear"]


@pytest.mark.parametrize("save_every_s", [0.0, 60.0])
def test_what_preparing_costs_reaches_the_ledger(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every_s: float
) -> None:
    """However often the state is saved on the way."""
    monkeypatch.setattr(preparing, "_SAVE_EVERY_S", save_every_s)
    ctx = tiny_context()
    with steps.step("train", 5) as step:
        prepare(Costly(len), ctx, step, 5, out=tmp_path, name="fake")
    booked = steps.study.ledger()["train"]
    assert (booked.samples, booked.macs) == (5 * 16, 7 * 5 * 16)
    with steps.step("train", 5) as step:
        prepare(Costly(len), ctx, step, 5, out=tmp_path, name="fake")
    assert steps.study.ledger()["train"].macs == booked.macs


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneShot(paths="fair", states=1),
        lambda: Hypernet(hidden=4),
        lambda: Inherit(ancestors=2),
    ],
)
def test_steps_are_counted_however_many_paths_each_passes_through(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setattr(Trainer, "run", slowly(Trainer.run))
    ctx, told = tiny_context(), []
    steps.listener = lambda event: told.append(event.done)
    with steps.step("train", 40) as step:
        told.clear()
        prepare(make(), ctx, step, 40, out=tmp_path, name="counted")
        taken = list(dict.fromkeys(told))
    assert taken == list(range(1, 41))


def slowly(run: Any) -> Any:
    """Make each turn of a training take so long that it has one step."""

    def slow(trainer: Trainer, count: int) -> Cost:
        return replace(run(trainer, count), wall_s=2.0 * count)

    return slow
