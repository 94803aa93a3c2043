"""How far estimates can be trusted where `bench.methods` searches: within a limit of latency.

    python -m bench.methods_trust --out runs/bench-methods       # after bench.methods
    python -m bench.methods_trust --steps 300 --only zero-cost   # to see that it runs

The random architectures that `bench.methods` trained in --out, all of which hold its limit, are the
sample of an audit. Each is trained once more from another seed, two at a time, so the noise of a
training is told, and what a search gains by each estimate. Truths are means of the two validation
accuracies. Each estimator prepares for --steps. All but seconds is counted, so what else runs does
no harm. `value` is tau of `low-fidelity`, or of the first row asked for; `gains` says of each time
what training at random gains, and what each estimator gains more.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from assay.architecture import Architecture
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.run.audit import audit
from assay.run.audit_plan import key_of
from assay.run.auditing import Audit
from assay.study.store import Study
from assay.train.ready import load_task
from assay.trust.gain import gains
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict
from bench.harness import of_audit, report, rounded
from bench.jobs import run_all
from bench.methods_jobs import RECIPE, Again, Training, chain


def judged_twice(found: Audit, twice: dict[str, list[float]], seconds: dict[str, float]) -> Audit:
    """Judge what an audit by one training of each asked again, by two trainings of each."""
    with Study.read(found.out) as study:
        scores = study.get("audit")["scores"]
    costs = {row.estimator: Price(row.prepare_s, row.each_s) for row in found.table.rows}
    table = Table.make(twice, scores, costs, train_s=fmean(seconds.values()))
    gained = gains(twice, scores, costs, seconds=seconds)
    return replace(found, table=table, gains=gained, verdict=verdict(table, gained=gained))


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
    numbers = sorted(int(p.stem.rpartition("-")[2]) for p in given.out.glob("random40-*.json"))
    rows = run_all(given.out, [Training(n) for n in numbers])  # they are read
    again = run_all(given.out, [Again(n) for n in numbers])
    points = [Architecture(row["architecture"]) for row in rows]
    once = {point: row["valid"] for point, row in zip(points, rows)}
    twice = {
        key_of(point): [row["valid"], other["valid"]]
        for point, row, other in zip(points, rows, again)
    }
    found = audit(
        chain(), load_task("fashion-mnist"), estimators={name: every[name] for name in given.only},
        truths=once, num=len(once), seeds=1, budget=f"steps={given.steps},epochs=1",
        out=given.out / "trust", recipe=RECIPE, executor="processes",
    )  # fmt: skip
    seconds = {  # two at a time share them
        key_of(point): (row["seconds"] + other["seconds"]) / 4
        for point, row, other in zip(points, rows, again)
    }
    found = judged_twice(found, twice, seconds)
    taus = {row.estimator: row.tau for row in found.table.rows}
    tau = taus["low-fidelity" if "low-fidelity" in taus else given.only[0]]
    report(
        "methods_trust", tau.value, "tau", "stated", (tau.low, tau.high),
        num=len(twice), steps=given.steps, train_s=round(fmean(seconds.values()), 1),
        thousand_s={row.estimator: round(row.thousand_s, 1) for row in found.table.rows},
        gains=[
            {
                "by": gain.estimator or "training at random", "trainings": gain.trainings,
                "scored": gain.scored, "trained": gain.trained, "gain": rounded(gain.gain),
                "more": rounded(gain.more), "real": gain.real,
            }
            for gain in found.gains
        ],
        **of_audit(found),
    )  # fmt: skip


if __name__ == "__main__":
    main()
