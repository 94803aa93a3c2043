"""How far estimates can be trusted where `bench.methods` searches: within a limit of latency.

    python -m bench.methods_trust --out runs/bench-methods       # after bench.methods
    python -m bench.methods_trust --steps 300 --only zero-cost   # to see that it runs

The random architectures that `bench.methods` trained in --out, all of which hold its limit, are the
sample of an audit, and their validation accuracies, of one training each, its truths: so little of
what size explains is left, and what noise there is in one training is not told. Each estimator
prepares for --steps. All is counted, so what else runs does no harm. `value` is tau of
`low-fidelity`, or of the first row asked for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from assay.architecture import Architecture
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.run.audit import audit
from assay.train.ready import load_task
from bench.harness import of_audit, report
from bench.methods_jobs import RECIPE, chain


def main() -> None:
    every = {
        "low-fidelity": "low-fidelity",
        "low-fidelity twice as long": LowFidelity(share=0.1),
        "zero-cost": "zero-cost",
        "one-shot": "one-shot",
        "one-shot by loss": OneShot(score="loss"),
        "fused": "fused",
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/bench-methods"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=list(every), choices=list(every))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(path.read_text()) for path in sorted(given.out.glob("random40-*.json"))]
    truths = {Architecture(row["architecture"]): row["valid"] for row in rows}
    found = audit(
        chain(), load_task("fashion-mnist"), estimators={name: every[name] for name in given.only},
        truths=truths, num=len(truths), seeds=1, budget=f"steps={given.steps},epochs=1",
        out=given.out / "trust", recipe=RECIPE, executor="processes",
    )  # fmt: skip
    taus = {row.estimator: row.tau for row in found.table.rows}
    tau = taus["low-fidelity" if "low-fidelity" in taus else given.only[0]]
    report(
        "methods_trust", tau.value, "tau", "stated", (tau.low, tau.high),
        num=len(truths), steps=given.steps,
        thousand_s={row.estimator: round(row.thousand_s, 1) for row in found.table.rows},
        **of_audit(found),
    )  # fmt: skip


if __name__ == "__main__":
    main()
