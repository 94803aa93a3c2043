"""A training step on all cores beside one busy process ÷ the same step alone.

    python -m bench.beside               # some four minutes

torch's threads meet after every operation, so one that is kept waiting keeps all. `value` is as
`assay` sets them (`wait_briefly`); `as_torch_comes` and `one_thread` stand beside it, and `price`,
a step alone as `assay` sets it ÷ as torch comes. Each step is that of the largest network of
`mobile` on digits, in a process of its own; alone and beside take turns, the settings within them.
The busy process counts in Python on one core, and has the priority of the others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

STEPS = 6
_SET = "from assay.cli.main import wait_briefly; wait_briefly(); "
_STEP = "from bench.beside import step_s; print(step_s())"
SETTINGS = {"assay": (_SET, {}), "torch": ("", {}), "one": ("", {"OMP_NUM_THREADS": "1"})}


def step_s() -> float:
    """Return the median seconds of a training step in this process, after a warm-up."""
    from assay.train.loop import Trainer
    from assay.train.ready import load_task
    from assay.train.recipe import Recipe
    from assay.zoo.mobile import mobile

    space, task = mobile(), load_task("digits")
    network = space.fresh(space.largest(task.example(1)), 0)
    trainer = Trainer(network, task, Recipe(), steps=STEPS + 2)
    trainer.run(2)
    return statistics.median(trainer.run(1).wall_s for _ in range(STEPS))


def measured(setting: str) -> float:
    """Return the seconds of a step in a new process, with threads as a setting has them."""
    before, more = SETTINGS[setting]
    told = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", before + _STEP], env={**told, **more}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


@contextmanager
def busy() -> Iterator[None]:
    """Within: one process in a session of its own uses all of a core that it can get."""
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], start_new_session=True
    ) as one:
        try:
            yield
        finally:
            one.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    alone: dict[str, list[float]] = {name: [] for name in SETTINGS}
    beside: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(given.rounds):
        for name in SETTINGS:
            alone[name].append(measured(name))
        with busy():
            for name in SETTINGS:
                beside[name].append(measured(name))
    from bench.harness import interval, report

    ratios = {name: [b / a for a, b in zip(alone[name], beside[name])] for name in SETTINGS}
    price = [a / b for a, b in zip(alone["assay"], alone["torch"])]
    told = {
        name: [round(statistics.median(values), 2), *(round(v, 2) for v in interval(values))]
        for name, values in {**ratios, "price": price}.items()
    }
    report(
        "beside", statistics.median(ratios["assay"]), "ratio", "stated", interval(ratios["assay"]),
        cores=psutil.cpu_count(logical=True), rounds=given.rounds,
        as_torch_comes=told["torch"], one_thread=told["one"], price=told["price"],
        alone_ms={name: round(1000 * statistics.median(v), 1) for name, v in alone.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
