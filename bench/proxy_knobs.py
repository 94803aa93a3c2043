"""What each knob of `low-fidelity` saves, and what rank it costs, on cells of NAS-Bench-201.

    python -m bench.proxy_knobs                        # 40 cells, a quarter of an hour
    python -m bench.proxy_knobs --num 6 --steps 4      # to see that it runs

An audit by published truth, of the cells on which settings are tuned (seed 2). Each row turns one
knob of trainings of `--steps` steps; what follows from it by default (augmentation, the score)
follows. `value` is tau of the trainings as they come; `rows` has for each tau with its interval,
how much more that is than tau as they come (paired, uncorrected), and CPU seconds of a training
with both cores at work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from assay.estimators.low_fidelity import LowFidelity
from assay.executors.processes import Processes
from assay.run.audit import audit
from assay.trust.interval import Interval
from assay.zoo.cell import cell
from bench.harness import report, rounded
from bench.nasbench201_fidelity import SHARED, cifar10, published, sample

AS_IT_COMES = "as it comes"
KNOBS: dict[str, dict[str, Any]] = {
    AS_IT_COMES: {},
    "a tenth of the data": {"data": 0.1},
    "half the channels": {"variant": {"cells": 1, "channels": 8}},
    "two cells in each stage": {"variant": {"cells": 2}},
    "by validation loss": {"score": "loss"},
    "by a fitted curve": {"score": "fit", "points": 8},
}


def asked(steps: int) -> dict[str, LowFidelity]:
    """Return the estimators by the name of their row."""
    knobs = {**KNOBS, "half the steps": {"steps": steps // 2}}
    return {name: LowFidelity(**{"steps": steps, **knob}) for name, knob in knobs.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=40)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-proxy-knobs"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = published(given.data / "nasbench201_cifar10.csv")
    executor = Processes()
    found = audit(
        cell(input_shape=(3, 32, 32)), cifar10(given.data), estimators=asked(given.steps),
        num=given.num, budget="steps=1,epochs=1", out=given.out, executor=executor,
        truths={point: known[point] for point in sample(given.num, seed=2)},
    )  # fmt: skip
    gains = {
        d.one if d.other == AS_IT_COMES else d.other: (d.tau, 1 if d.other == AS_IT_COMES else -1)
        for d in found.table.pairs
        if AS_IT_COMES in (d.one, d.other)
    }
    rows = {
        row.estimator: {
            "tau": rounded(row.tau),
            "gain": rounded(*gains.get(row.estimator, (Interval(0.0, 0.0, 0.0),))),
            "top_half": rounded(row.tau_top)[0], "cpu_s": round(executor.at_once * row.each_s, 2),
        }
        for row in found.table.rows
    }  # fmt: skip
    first = next(row.tau for row in found.table.rows if row.estimator == AS_IT_COMES)
    report(
        "proxy_knobs", first.value, "tau", "stated", (first.low, first.high),
        num=given.num, steps=given.steps, rows=rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
