"""What a user meets of a search that learns: refusals, the study, the report."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from assay.errors import SpaceExhausted
from assay.run.events import Event
from assay.study.store import Study
from tests.e2e import tiny, tiny_learned


def test_a_target_that_nothing_meets_is_refused_before_training(
    table: Path, tmp_path: Path
) -> None:
    settings = {"strategy": {"target": 1e-6}}
    with pytest.raises(SpaceExhausted, match=r"latency_ms = 1e-06: the space has min .*target"):
        tiny_learned.run("proxyless", tmp_path / "never", table, settings=settings)
    with Study.read(tmp_path / "never") as study:
        assert study.ledger()["measure"].wall_s > 0
        assert "train" not in study.ledger()


@pytest.mark.parametrize("trials", [4, 8])
def test_fewer_trials_than_are_learned_from_at_once_are_told_of(
    trials: int, table: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    tiny.run(
        tmp_path / "out", table, strategy="reinforce", estimator="zero-cost", limits={},
        budget=f"steps=1,trials={trials},epochs=1", on_event=events.append,
    )  # fmt: skip
    said = "Reinforce learns from 8 trials at a time, and there are to be 4: it proposes at random"
    assert sum(said in event.message for event in events) == (trials == 4)


def test_what_is_learned_while_nothing_is_within_the_limits_is_told_and_kept(
    table: Path, tmp_path: Path
) -> None:
    asked, events = itertools.count(), list[Event]()

    def heat(network: object) -> float:
        return 0.5 if next(asked) < 2 else 2.0  # of the smallest and largest: it was cooler then

    with pytest.raises(SpaceExhausted, match="no new architecture within the limits was found"):
        tiny.run(
            tmp_path / "out", table, strategy="reinforce", estimator="zero-cost",
            limits={heat: 1.0}, settings={"strategy": {"batch": 4}},
            budget="steps=1,trials=8,epochs=1", on_event=events.append,
        )  # fmt: skip
    told = [e for e in events if e.kind == "progress" and e.step == "search" and e.data]
    assert len(told) > 3
    assert all("entropy" in event.message for event in told)
    with Study.read(tmp_path / "out") as study:
        first, *_, last = study.get("learning")["records"]
    assert last["probabilities"] != first["probabilities"]


def test_what_is_learned_from_trials_is_told_kept_and_shown(table: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = tiny.run(
        tmp_path / "out", table, strategy="reinforce", estimator="zero-cost", limits={},
        settings={"strategy": {"batch": 4}}, budget="steps=1,trials=50,epochs=1",
        on_event=events.append,
    )  # fmt: skip
    told = [e for e in events if e.kind == "progress" and e.step == "search" and e.data]
    assert all("entropy" in e.message and "reward" in e.data for e in told)
    assert told
    with Study.read(result.out) as study:
        learning = study.get("learning")
        booked_s = study.ledger()["search"].wall_s
    assert [r["step"] for r in learning["records"]] == list(range(4, 49, 4))
    assert (learning["unit"], learning["total"]) == ("trial", 50)
    (end,) = [e for e in events if e.kind == "end" and e.step == "search"]
    assert end.cost_s == pytest.approx(booked_s, rel=1e-6)  # what learning took is booked as told
    assert "entropy" in end.message
    text = (result.out / "report.html").read_text(encoding="utf-8")
    assert 'id="fig-settling"' in text
    assert "From the scores of the trials" in text
