"""What is learned goes to the line, to the study and, where it goes wrong, to the listener once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from assay.contracts import Estimate, History, Learning, Trial
from assay.run.events import Event
from assay.run.steps import Steps
from assay.run.watch import Watch
from assay.study.store import Study
from assay.testing.tiny import tiny_space

TOTAL = 200


class Learner:
    """A strategy that knows what it is told to know."""

    advice: ClassVar = {"collapsed": "lower strategy.lr (0.1)"}

    def __init__(self) -> None:
        self.trace: list[Learning] = []

    def learned(self, history: History) -> Sequence[Learning]:
        return self.trace


def known(step: int, entropy: float = 0.5, expected: float | None = 0.421) -> Learning:
    return Learning(step, {"op": [0.25, 0.75]}, entropy, "latency_ms", expected, 0.4, -1.5)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    events: list[Event] = []
    space, strategy = tiny_space(), Learner()
    with Study.open(tmp_path / "study", identity={"of": "a test"}) as study:
        steps = Steps(study, events.append)

        def fresh() -> Watch:
            return Watch(strategy, History(space), study, steps)

        yield SimpleNamespace(
            strategy=strategy, study=study, steps=steps, events=events, fresh=fresh
        )


def test_the_line_of_a_step_says_what_is_known_now(run: Any) -> None:
    run.strategy.trace = [known(0), known(10, 0.834)]
    with run.steps.step("train") as step:
        run.fresh().look(step)
        step.tell()
    (told,) = [e for e in run.events if e.kind == "progress"][:1]
    assert told.message == "latency 0.421 ms of 0.400 ms, entropy 83 %, reward -1.5"
    assert told.data == {
        "entropy": 0.834, "expected_latency_ms": 0.421, "target_latency_ms": 0.4, "reward": -1.5,
    }  # fmt: skip


def test_nothing_is_said_or_kept_before_anything_is_known(run: Any) -> None:
    watch = run.fresh()
    with run.steps.step("train") as step:
        watch.look(step)
        assert step.message == ""
    watch.keep("step", TOTAL)
    assert run.study.get("learning") is None


def test_a_killed_and_resumed_run_keeps_each_moment_once(run: Any) -> None:
    watch = run.fresh()
    for done in (10, 20, 30):
        run.strategy.trace = [known(s) for s in (*range(0, done, 10), done)]
        watch.keep("step", TOTAL)
    run.strategy.trace = [known(s) for s in (0, 10, 14)]  # it goes on from an earlier state
    run.fresh().keep("step", TOTAL)
    document = run.study.get("learning")
    assert [record["step"] for record in document["records"]] == [0, 10, 14]
    assert (document["unit"], document["total"]) == ("step", TOTAL)
    assert document["records"][0] == {
        "step": 0, "probabilities": {"op": [0.25, 0.75]}, "entropy": 0.5, "expected": 0.421,
        "quantity": "latency_ms", "target": 0.4, "reward": -1.5, "stopped": "", "error": None,
    }  # fmt: skip


def test_a_symptom_is_noted_once_with_what_to_change(run: Any) -> None:
    run.strategy.trace = [known(0), known(10, 0.001)]
    run.fresh().keep("step", TOTAL)
    assert run.study.get("learning")["warnings"] == {}  # step 10 is now, and by chance
    run.strategy.trace = [known(0), known(10, 0.001), known(20, 0.001)]
    run.fresh().keep("step", TOTAL)
    run.fresh().keep("step", TOTAL)
    notes = [e for e in run.events if e.kind == "note"]
    assert [e.data for e in notes] == [{"symptom": "collapsed"}]
    assert notes[0].message.startswith("at step 10 the entropy was down to 0.1 %")
    assert notes[0].message.endswith("; lower strategy.lr (0.1)")
    assert run.study.get("learning")["warnings"] == {"collapsed": notes[0].message}


def test_what_is_learned_from_trials_is_told_by_those_that_were_judged(run: Any) -> None:
    space = tiny_space()
    point = next(iter(space.all()))
    over = [Trial(i, point, "infeasible", violation=1.0) for i in range(40)]
    judged = [
        Trial(i, point, "scored", Estimate(0.5), {"macs": 1.0}, (0.5,)) if i % 4 == 3 else over[i]
        for i in range(40)
    ]
    judged[0] = Trial(0, point, "failed", error="of the user's measure")
    run.strategy.trace = [known(8), known(16, 0.001), known(40, 0.001)]
    Watch(run.strategy, History(space, judged), run.study, run.steps).keep("trial", 10)
    document = run.study.get("learning")
    assert [record["step"] for record in document["records"]] == [2, 4, 10]
    assert document["warnings"].keys() == {"collapsed"}  # 4 of 10 is before half, 16 is not
    assert document["warnings"]["collapsed"].startswith("at step 4 ")
