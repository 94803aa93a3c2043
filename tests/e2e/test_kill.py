"""A search that is killed again and again ends as if it had never been."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.contracts import STEPS
from assay.study.store import Study
from tests.e2e import tiny
from tests.e2e.running import start

KILLS = 20


def kill_within(step: str, delay_s: float, out: Path, table: Path) -> str | None:
    """Kill the search a moment after it begins a step; return the step it was in, or None."""
    with start("tiny", out, table) as process:
        assert process.stdout is not None
        now, seen = "", False
        for line in process.stdout:
            now = line.split()[1]
            if now == step:
                seen = True
                break
        if not seen:
            assert process.wait() == 0
            return None
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
    if process.returncode == 0:
        return None
    return rest[-1].split()[1] if rest else now


def ends(out: Path, table: Path) -> bool:
    with start("tiny", out, table) as process:
        assert process.stdout is not None
        process.stdout.read()
    return process.returncode == 0


def outcome(out: Path) -> dict[str, Any]:
    with Study.read(out) as study:
        trials = [
            (t.number, t.architecture, t.state, t.objectives and t.objectives[0], t.violation)
            for t in study.trials()
        ]
        winner = study.get("winner")
        finals = {
            f["key"]: (
                f["state"],
                f["steps"],
                f["metrics"]["valid_loss"]
                if "valid_loss" in f["metrics"]
                else f["metrics"].get("loss"),
            )
            for f in study.finalists()
        }
    weights = (out / "best" / "weights.safetensors").read_bytes()
    return {
        "trials": trials,
        "winner": (winner["trial"], winner["architecture"], winner["metrics"]["test_accuracy"]),
        "finalists": finals,
        "weights": hashlib.sha256(weights).hexdigest(),
    }


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    tiny.save_table(table)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ends(whole, table)

    rng = np.random.default_rng(0)
    # Each step in turn, the longer ones more often; then wherever the chain has got to.
    plan = ["supernet", "train", "train", "train", "measure", "search", "score", "score"]
    plan += ["finalists"] * (KILLS - len(plan))
    where: Counter[str] = Counter()
    for step in plan:
        longest = 0.04 if step in ("supernet", "measure") else 0.25
        found = kill_within(step, float(rng.uniform(0.0, longest)), killed, table)
        if found is not None:
            where[found] += 1
    assert ends(killed, table)

    assert sum(where.values()) >= KILLS // 2, where
    # Search and score take turns within a batch; the last word told is mostly score's.
    assert set(STEPS) - {"search"} <= set(where), where
    assert outcome(killed) == outcome(whole)
    with Study.read(killed) as study:
        sessions, ledger = study.sessions(), study.ledger()
    lasted = sum((s["ended"] or s["heartbeat"]) - s["started"] for s in sessions)
    booked = sum(cost.wall_s for cost in ledger.values())
    # Every second from a run's start to its last sign of life is booked once: as work or as lost.
    assert booked == pytest.approx(lasted, abs=0.15 * len(sessions))
    assert ledger["lost"].wall_s >= 0
