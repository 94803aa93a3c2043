"""A process that is killed leaves a whole study, and its lost time is booked once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.cost import Cost
from assay.errors import InvalidStudy
from assay.study.store import Study

KILLS = 4
WORKS = """
import sys, time
from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.study.store import Study

study = Study.open(sys.argv[1], identity={})
study.begin_session({})
booked = time.perf_counter()
point = Architecture({"a": "x"})
print("begun", flush=True)
while True:
    number = len(study.trials())
    now = time.perf_counter()
    cost, booked = Cost(now - booked, samples=1), now
    trial = Trial(number, point, "scored", Estimate(0.5), objectives=(0.5,))
    study.record(trial, {"score": cost})
    study.checkpoint("train", done=number + 1, cost=Cost(samples=1), pointer={"file": str(number)})
    print(number, flush=True)
"""


def killed(out: Path, rng: random.Random) -> tuple[int, float]:
    """Let a process work for a moment and kill it; return what it had told last, and how long."""
    command = [sys.executable, "-c", WORKS, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        started = time.time()
        with pytest.raises(InvalidStudy, match="in use"):
            Study.open(out, identity={})
        time.sleep(rng.uniform(0.0, 0.8))
        process.send_signal(signal.SIGKILL)
        lived_s = time.time() - started
        lines = process.stdout.read().split()
    return int(lines[-1]) if lines else -1, lived_s


def test_nothing_is_lost_or_there_twice(tmp_path):
    rng, out, lived_s = random.Random(0), tmp_path / "s", 0.0
    for kill in range(KILLS):
        told, seconds = killed(out, rng)
        lived_s += seconds
        with Study.read(out) as study:
            numbers = [t.number for t in study.trials()]
            phase, ledger = study.phase("train"), study.ledger()
            assert len(study.sessions()) == kill + 1
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - 1 in (told, told + 1)
        assert phase.done in (len(numbers) - 1, len(numbers))
        assert phase.checkpoint.get("file", "-1") == str(phase.done - 1)
        assert ledger.get("score", Cost()).samples == len(numbers)
        # a trial's own checkpoint may be missing; one that was taken again is booked again
        assert 0 <= len(numbers) - ledger.get("train", Cost()).samples <= kill + 1
    with Study.open(out, identity={}) as study:
        study.begin_session({})
        lost_s, ledger = study.lost_s, study.ledger()
        study.end_session()
        study.begin_session({})
        assert study.lost_s == lost_s
        assert 0.0 <= lost_s <= KILLS * 1.0
        booked_s = sum(c.wall_s for c in ledger.values())
        assert booked_s == pytest.approx(lived_s, abs=KILLS * 0.6)
