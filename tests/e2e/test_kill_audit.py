"""An audit that is killed in every step ends with the table of one that never was."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.study.store import Study
from tests.e2e.running import start

ESTIMATORS = (
    "OneShot", "LowFidelity", "Inherit", "ZeroCost", "Hypernet", "Predictor", "Fused",
)  # fmt: skip


def killed(out: Path, step: str, delay_s: float) -> bool:
    """Kill an audit a moment after it begins a step; return whether it was alive until then."""
    with start("tiny_audit", out) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[1] == step:
                time.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    return process.returncode == -signal.SIGKILL


def found(out: Path) -> dict[str, Any]:
    """Return what an audit says, but for what the clock has told."""
    with Study.read(out) as study:
        told = study.get("audit")
    return {key: told[key] for key in ("truths", "scores", "architectures", "failures")}


@pytest.mark.slow
def test_killed_in_every_step_it_finds_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with start("tiny_audit", whole) as process:
        assert process.stdout is not None
        steps = list(dict.fromkeys(line.split()[1] for line in process.stdout))
    assert process.returncode == 0
    assert {f"score-{name}" for name in ESTIMATORS} <= set(steps)

    rng = np.random.default_rng(0)
    kills = [killed(cut, step, float(rng.uniform(0.0, 0.3))) for step in steps]
    assert sum(kills) >= len(steps) // 2, list(zip(steps, kills))
    with start("tiny_audit", cut) as process:
        assert process.stdout is not None
        process.stdout.read()
    assert process.returncode == 0
    assert found(cut) == found(whole)
