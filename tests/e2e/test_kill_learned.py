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

KILLED_IN = {"reinforce": ("score", "score", "finalists")}  # it learns from trials
WHILE_IT_TRAINS = ("train", "train", "score")
FROM_TO = {"reinforce": (4, 20)}


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


@pytest.mark.slow
@pytest.mark.parametrize("case", tiny_learned.SETTINGS)
def test_kills_change_nothing_of_what_is_learned(case: str, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    tiny_learned.save_table(case, table)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ends(case, whole, table)
    rng = np.random.default_rng(len(case))
    hit = [
        kill_within(step, rng.uniform(0.0, 0.2), case, killed, table)
        for step in KILLED_IN.get(case, WHILE_IT_TRAINS)
    ]
    assert sum(hit) >= 2, hit
    assert ends(case, killed, table)

    found = outcome(killed)
    assert found == outcome(whole)
    steps = [record["step"] for record in found["learning"]["records"]]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == FROM_TO.get(case, (0, 90))
    assert len(steps) <= 81
    assert found["learning"]["records"][-1]["entropy"] < 1
    assert 'id="fig-settling"' in (killed / "report.html").read_text(encoding="utf-8")
