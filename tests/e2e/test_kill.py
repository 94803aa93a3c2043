"""A search that is killed again and again ends as if it had never been."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.contracts import STEPS
from assay.study.store import Study
from tests.e2e import tiny
from tests.e2e.running import start

# Each step in turn, as often as there is something to lose in it: step -> kills, longest wait.
KILLS = {
    "supernet": (2, 0.2), "train": (4, 0.25), "measure": (1, 0.04), "search": (3, 0.04),
    "score": (3, 0.25), "finalists": (7, 1.5),
}  # fmt: skip
MOST_CPU_S = 180.0
TIMED = {"model_onnx_ms", "latency_ms", "training_s"}  # by the clock, and so never twice the same


def kill_within(step: str, delay_s: float, out: Path, table: Path) -> str | None:
    """Kill the search a moment after it begins a step; return the step it was in, or None."""
    with start("tiny", out, table) as process:
        assert process.stdout is not None
        begun = any(line.split()[1] == step for line in process.stdout)
        assert begun, f"{step} is announced, also where an earlier run has finished it"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
    if process.returncode == 0:
        return None
    assert process.returncode == -signal.SIGKILL
    return rest[-1].split()[1] if rest else step


def ends(out: Path, table: Path) -> bool:
    with start("tiny", out, table) as process:
        assert process.stdout is not None
        process.stdout.read()
    return process.returncode == 0


def untimed(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if name in TIMED else value for name, value in metrics.items()}


def outcome(out: Path) -> dict[str, Any]:
    """Return all that a search finds, but for what it cost and what the clock has told."""
    with Study.read(out) as study:
        trials = [
            (t.number, t.architecture, t.state, t.objectives, t.measured, t.violation, t.parent,
             t.estimate and (t.estimate.score, t.estimate.metrics, t.estimate.made_from))
            for t in study.trials()
        ]  # fmt: skip
        winner = study.get("winner")
        finals = {
            f["key"]: (f["state"], f["steps"], f["trial"], f["architecture"], untimed(f["metrics"]))
            for f in study.finalists()
        }
        counts = {step: study.phase(step).counts for step in STEPS}
    weights = (out / "best" / "weights.safetensors").read_bytes()
    return {
        "trials": trials,
        "winner": (winner["trial"], winner["architecture"], untimed(winner["metrics"])),
        "finalists": finals,
        "counts": counts,
        "weights": hashlib.sha256(weights).hexdigest(),
    }


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    table = tmp_path / "table.json"
    tiny.save_table(table)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ends(whole, table)

    rng = np.random.default_rng(0)
    where: Counter[str] = Counter()
    waited_s = 0.0
    for step, (kills, longest_s) in KILLS.items():
        for _ in range(kills):
            found, within_s = None, longest_s
            while found is None and within_s > longest_s / 100:
                delay_s = float(rng.uniform(0.0, within_s))
                found = kill_within(step, delay_s, killed, table)
                within_s /= 2  # it came to its end before
            assert found is not None, (step, where)
            where[found] += 1
            waited_s += delay_s
    assert ends(killed, table)

    assert where.total() == 20
    assert set(where) == set(STEPS), where
    assert outcome(killed) == outcome(whole)
    with Study.read(killed) as study:
        sessions, ledger = study.sessions(), study.ledger()
    lasted = sum((s["ended"] or s["heartbeat"]) - s["started"] for s in sessions)
    booked = sum(cost.wall_s for cost in ledger.values())
    # Every second from a run's start to its last sign of life is booked once: as work or as lost.
    assert booked == pytest.approx(lasted, abs=0.15 * len(sessions))
    # What is lost came after the last booking: after a step began, and until it was killed in it.
    assert 0 < ledger["lost"].wall_s <= waited_s + 0.25 * where.total()
    with Study.read(whole) as study:
        assert "lost" not in study.ledger()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent_s <= MOST_CPU_S  # of one core; the same on the clock where that is free
