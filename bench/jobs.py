"""Jobs of a benchmark, each in a process of its own; what has ended is kept and not run again."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import torch


class Job(Protocol):
    """What is run once; its key names the file of what it found, and the folder that it may use."""

    @property
    def key(self) -> str: ...

    def __call__(self, out: Path) -> dict[str, Any]: ...


def run(out: Path, job: Job) -> dict[str, Any]:
    """Return what a job found, now or before; one that fails says why and stops no other.

    What that one left is removed: a search that went on from there would only fail again. `cpu_s`
    is what this process has used, which is started for the job.
    """
    kept = out / f"{job.key}.json"
    try:
        if not kept.exists():
            torch.set_num_threads(1)
            part = kept.with_name(kept.name + ".part")
            part.write_text(json.dumps({**job(out), "cpu_s": time.process_time()}))
            part.replace(kept)  # whole or not at all
        row: dict[str, Any] = json.loads(kept.read_text())
    except Exception:
        kept.unlink(missing_ok=True)  # it may be what failed: it cannot be read
        shutil.rmtree(out / job.key, ignore_errors=True)
        return {"failed": job.key, "error": traceback.format_exc()}
    return row


def run_apart(out: Path, job: Job) -> dict[str, Any]:
    """Run a job in a process of its own; one that is killed stops no other."""
    if (out / f"{job.key}.json").exists():  # it is only read
        return run(out, job)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run, out, job).result()
        except BrokenProcessPool as error:
            return {"failed": job.key, "error": str(error)}


def run_all(out: Path, jobs: Sequence[Job], *, at_once: int = 2) -> list[dict[str, Any]]:
    """Run jobs, so many at a time; return what each found."""
    rows = []
    with ThreadPoolExecutor(at_once) as threads:
        for row in threads.map(run_apart, [out] * len(jobs), jobs):
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows
