"""A search that learns and is killed while it does knows in the end what it would have known."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.study.store import Study
from assay.train.files import load_tensors, under
from tests.e2e import tiny_learned
from tests.e2e.running import start

KILLED_IN = dict.fromkeys(("reinforce", "optuna:tpe"), ("score", "score", "finalists"))
"""By strategy, of those that learn from trials."""
WHILE_IT_TRAINS = ("train", "train", "score")
LEARNING = [case for case in tiny_learned.SETTINGS if not case.startswith("optuna")]
"""Cases whose learning is recorded."""


def kill_within(step: str, delay_s: float, *arguments: Path | str) -> bool:
    """Kill the search a moment after it was first heard of in a step; whether it was alive."""
    with start("tiny_learned", *arguments) as process:
        assert process.stdout is not None
        if any(line.startswith(f"progress {step}") for line in process.stdout):
            time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def ends(*arguments: Path | str) -> bool:
    with start("tiny_learned", *arguments) as process:
        assert process.stdout is not None
        process.stdout.read()
    return process.returncode == 0


def outcome(out: Path) -> dict[str, Any]:
    with Study.read(out) as study:
        trials = [(t.number, t.architecture, t.state, t.objectives[:1]) for t in study.trials()]
        winner, learning = study.get("winner"), study.get("learning")
        learned = under("paths.", load_tensors(out / study.phase("train").checkpoint["file"]))
    digest = hashlib.sha256()
    for name in sorted(learned):  # logits, moments of the optimiser, baseline, trace
        value = learned[name]
        known = value.numpy().tobytes() if torch.is_tensor(value) else json.dumps(value).encode()
        digest.update(name.encode() + known)
    weights = (out / "best" / "weights.safetensors").read_bytes()
    return {
        "trials": trials,
        "winner": (winner["trial"], winner["architecture"], winner["metrics"]["test_accuracy"]),
        "weights": hashlib.sha256(weights).hexdigest(),
        "learned": digest.hexdigest(),
        "learning": learning,
    }


def survived(case: str, tmp_path: Path) -> Path:
    """Search once undisturbed and once with kills, to the same end; return the latter's folder."""
    table = tmp_path / "table.json"
    tiny_learned.save_table(case, table)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ends(case, whole, table)
    rng = np.random.default_rng(len(case))
    strategy, _ = tiny_learned.of(case)
    hit = [
        kill_within(step, rng.uniform(0.0, 0.2), case, killed, table)
        for step in KILLED_IN.get(strategy, WHILE_IT_TRAINS)
    ]
    assert sum(hit) >= 2, hit
    assert ends(case, killed, table)
    assert outcome(killed) == outcome(whole)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("case", LEARNING)
def test_kills_change_nothing_of_what_is_learned(case: str, tmp_path: Path) -> None:
    killed = survived(case, tmp_path)
    found = outcome(killed)
    records, states = found["learning"]["records"], [state for _, _, state, _ in found["trials"]]
    steps = [record["step"] for record in records]
    if case.startswith("reinforce"):  # after each batch of 4, what is over a limit not counted
        batches = range(4, len(states) + 1, 4)
        assert steps == [states[:until].count("scored") for until in batches]
    else:
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1]) == (0, 90)
    assert len(steps) <= 81
    assert records[-1]["entropy"] < 1
    limit = tiny_learned.LIMITS.get(case, {}).get("macs")
    assert ("infeasible" in states) == (limit is not None)
    if limit is not None:
        assert all(record["target"] == limit and record["expected"] > 0 for record in records)
    assert 'id="fig-settling"' in (killed / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_kills_change_nothing_of_what_a_sampler_asks(tmp_path: Path) -> None:
    found = outcome(survived("optuna:tpe", tmp_path))
    assert [state for _, _, state, _ in found["trials"]] == ["scored"] * 60
    assert found["learning"] is None
