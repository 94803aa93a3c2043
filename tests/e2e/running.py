"""Programs of this room, run in a process of their own so that a test can kill them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(module: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """Start `python -m tests.e2e.MODULE ARGUMENTS` on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.e2e.{module}", *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
