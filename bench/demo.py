"""`make demo` with the environment ready: seconds, peak memory, the winner's test accuracy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import interval, report

REPEATS = 3


def once(seed: int) -> tuple[float, float, float]:
    """Return wall seconds, peak GiB and test accuracy of one run of the demo."""
    folder = Path(tempfile.mkdtemp())
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "assay", "search", "--quiet", "--seed", str(seed),
               "--out", str(folder / "demo")]  # fmt: skip
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    shown = subprocess.run(
        [sys.executable, "-m", "assay", "show", str(folder / "demo"), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    accuracy = json.loads(shown.stdout)["winner"]["metrics"]["test_accuracy"]
    shutil.rmtree(folder)
    return seconds, int(ran.stdout) / 2**20, accuracy


def help_seconds() -> float:
    """Return the fastest of five runs of `assay --help`."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "assay", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    runs = [once(seed) for seed in range(REPEATS)]
    seconds = [r[0] for r in runs]
    report(
        "demo", sorted(seconds)[REPEATS // 2], "s", "<= 150", interval(seconds),
        peak_gib=round(max(r[1] for r in runs), 3), test_accuracy=[round(r[2], 4) for r in runs],
        help_s=round(help_seconds(), 3), seconds=[round(s, 1) for s in seconds],
    )  # fmt: skip


if __name__ == "__main__":
    main()
