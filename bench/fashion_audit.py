"""Every estimator audited on Fashion-MNIST, alone and stacked, against really trained networks.

    python -m bench.fashion_audit --out runs/audit-fashion      # 40 networks x 2 seeds, one hour
    python -m bench.fashion_audit --num 6 --minutes 3           # to see that it runs
    python -m bench.fashion_audit --only low-fidelity fused     # some of the rows

In the space `conv`, of half the usual widths, by `assay.audit`: the eight estimators by their
defaults; `low-fidelity` with one knob turned at a time; `one-shot` by the loss in place of
agreement; a second, smaller hypernetwork; and three that are stacked: `inherit` from a supernet's
weights, `predictor` over a supernet's scores, `fused` with a supernet. `value` is tau of `fused`,
or of the first row asked for; beside it everyone's tau, tau within the top half, and the seconds
that scoring 1,000 would take. The report is in `--out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from assay.estimators.fused import Fused
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.run.audit import audit
from assay.run.names import ESTIMATORS
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.zoo.conv import conv
from bench.harness import HALF_WIDTHS, of_audit, report

RECIPE = Recipe(batch_size=128, weight_decay=2e-4)
SMALL = 4


def asked() -> dict[str, Any]:
    """Return the estimators by the name of their row."""
    return {
        **{name: name for name in ESTIMATORS},
        "low-fidelity at half the resolution": LowFidelity(resolution=0.5),
        "low-fidelity at half the channels": LowFidelity(channels=0.5),
        "low-fidelity twice as long": LowFidelity(share=0.1),
        "low-fidelity by validation loss": LowFidelity(score="loss"),
        "low-fidelity by a fitted curve": LowFidelity(score="fit", points=8),
        "low-fidelity on a fiftieth of the data": LowFidelity(data=0.02),
        "low-fidelity on digits": LowFidelity(proxy=load_task("digits")),
        f"hypernet of {SMALL} units": Hypernet(hidden=SMALL),
        "one-shot by loss": OneShot(score="loss"),
        "inherit from one-shot": Inherit(supernet=OneShot()),
        "predictor of one-shot": Predictor(OneShot()),
        "fused with one-shot": Fused(others=(OneShot(),)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-fashion-audit"))
    every = asked()
    parser.add_argument("--only", nargs="+", default=list(every), choices=list(every))
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("fashion-mnist")
    space = conv(input_shape=(1, 28, 28), widths=HALF_WIDTHS)
    estimators = {name: every[name] for name in given.only}
    found = audit(
        space, task, estimators=estimators, num=given.num, seeds=given.seeds,
        budget=60 * given.minutes, out=given.out, recipe=RECIPE, executor="processes",
        seed=given.seed,
    )  # fmt: skip
    rows = {row.estimator: row for row in found.table.rows}
    tau = rows["fused" if "fused" in rows else given.only[0]].tau
    report(
        "fashion_audit", tau.value, "tau", "stated", (tau.low, tau.high),
        num=given.num, seeds=given.seeds, minutes=given.minutes, seed=given.seed,
        thousand_s={name: round(row.thousand_s, 1) for name, row in rows.items()},
        **of_audit(found),
    )  # fmt: skip


if __name__ == "__main__":
    main()
