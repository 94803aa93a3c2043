"""Searches that learn against random search and evolution, at equal time, on Fashion-MNIST.

    python -m bench.methods --out runs/bench-methods                     # 3 seeds, over two hours
    python -m bench.methods --seeds 1 --minutes 1 --random 3 --only random proxyless   # a look

A chain of six inverted bottlenecks, 3 kernels x 2 expansions each, or none; ONNX Runtime, one
thread; limit = half of what the largest takes by the table. Each process trains with one thread,
and two run at a time. What has ended lies in the folder and is not run again, so a run that was
stopped goes on, and one with other minutes or seeds takes over what it can. Four questions:

1. Each search has the same time in all, the measuring of the latency table included, its winner
   trained from scratch by one recipe: test accuracy, latency, whether the limit held when all
   winners were measured again side by side. `random 40` trains so many random architectures under
   the same limit by that recipe, and keeps the best on validation.
2. How much cheaper is a search? The method that is best on validation at the longest time is run
   at all `--minutes`; `value` is the cost of the 40 trainings ÷ that of the shortest search whose
   winner is as good on test, 0 where none is; mean over seeds, and its interval, which three seeds
   make little more than their range.
3. `proxyless` aiming at the limit of latency, at as large a share of the largest MACs, and at
   nothing, with no limit beside and its likeliest architecture taken: what do the winners take?
4. The winners of `evolution` for two targets, ONNX Runtime and torch: each measured on both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture
from assay.cost import derive
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.run.face import search
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.strategies.learned.proxyless import Proxyless
from assay.study.store import Study
from assay.train.loop import Trainer
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from assay.zoo.mobile import Stage, mobile
from bench.harness import interval, report

RECIPE = Recipe(batch_size=128, epochs=2, weight_decay=2e-4)
RANDOM = "random 40"
TARGETS = {"onnxruntime": Device(), "torch": Device("torch")}
AIMS = ("latency_ms", "macs", "nothing")
METHODS = ("random", "evolution", "nsga2", "enas", "darts", "proxyless", "proxyless reinforce")
"""Strategies; all with the estimator `one-shot`."""


def chain() -> Space:
    stages = (Stage((16,), (2, 2)), Stage((32,), (2, 2), stride=2), Stage((64,), (2, 2), stride=2))
    return mobile(input_shape=(1, 28, 28), stages=stages, stem=16, stem_stride=2, head=128)


# --- the hardware, measured once ------------------------------------------------------------------


def prepare_table(out: Path, target: str, space: Space, task: Task) -> None:
    """Measure the latency table that all searches share, and note what it took."""
    path = out / f"table-{target}.json"
    if not path.exists():
        started = time.perf_counter()
        table = LatencyTable.build(space, TARGETS[target], example=task.example(1))
        (out / f"table-{target}.seconds").write_text(str(time.perf_counter() - started))
        table.save(path)


def measures(space: Space, task: Task, out: Path, target: str) -> Measures:
    device, example = TARGETS[target], task.example(1)
    table = LatencyTable.load(out / f"table-{target}.json", space, device, example=example)
    return Measures(space, device, example, table)


def half(space: Space, task: Task, out: Path, target: str, quantity: str = "latency_ms") -> float:
    """Return half of what the largest architecture takes, by the table."""
    return measures(space, task, out, target)(quantity, space.largest(task.example(1))) / 2


# --- one job, one process -------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Trains the random architecture of a number, under the limit, by the recipe."""

    number: int

    @property
    def key(self) -> str:
        return f"random40-{self.number}"

    def __call__(self, out: Path) -> dict[str, Any]:
        task, space = load_task("fashion-mnist"), chain()
        known = measures(space, task, out, "onnxruntime")
        limit = half(space, task, out, "onnxruntime")
        rng, started = derive(0, RANDOM, self.number), time.perf_counter()
        point = space.canonical(space.sample(rng))
        while known("latency_ms", point) > limit:
            point = space.canonical(space.sample(rng))
        steps, seed = whole_steps(task), self.number
        trainer = Trainer(space.fresh(point, seed), task, RECIPE, steps=steps, seed=seed)
        trainer.run(steps)
        network = trainer.finish()
        seconds = time.perf_counter() - started
        valid = evaluate(network, task.valid.batches(500), task)["accuracy"]
        # Of all of these the best on validation is judged; the test figure of the others is needed
        # to say what fewer trainings would have given.
        test = evaluate(network, task.open_test().batches(500), task)["accuracy"]
        return {"name": RANDOM, "seconds": seconds, "valid": valid, "test": test}


@dataclass(frozen=True)
class Search:
    """Searches with a method for some minutes; for an aim, or a target, if these are given."""

    method: str
    minutes: float
    seed: int
    target: str = "onnxruntime"
    aim: str = ""

    @property
    def name(self) -> str:
        return f"aim {self.aim}" if self.aim else self.method

    @property
    def key(self) -> str:
        of = f"{self.name}-{self.target}-{self.minutes:g}min-{self.seed}"
        return of.replace(" ", "-")

    def __call__(self, out: Path) -> dict[str, Any]:
        task, space = load_task("fashion-mnist"), chain()
        limit = half(space, task, out, self.target)
        table_s = float((out / f"table-{self.target}.seconds").read_text())
        result = search(
            space, task, strategy=self._strategy(space, task, out), target=TARGETS[self.target],
            seed=self.seed, recipe=RECIPE, limits={} if self.aim else {"latency_ms": limit},
            budget=f"{60 * self.minutes - table_s}s" + ",trials=1" * bool(self.aim),
            finalists=Finalists(k=1, compare=False), table=out / f"table-{self.target}.json",
            out=out / self.key,
        )  # fmt: skip
        best = result.best()
        with Study.read(out / self.key) as study:
            ledger, steps = study.ledger(), study.phase("finalists").counts["steps"]
        scored = sum(t.state == "scored" for t in result.trials())
        return {
            "name": self.name, "seed": self.seed, "minutes": self.minutes, "target": self.target,
            "seconds": table_s + sum(cost.wall_s for cost in ledger.values()),
            "accuracy": best.metrics["test_accuracy"], "valid": best.metrics["valid_accuracy"],
            "macs": best.metrics["macs"], "limit_ms": limit, "scored": scored,
            "steps": steps, "whole_recipe": steps == whole_steps(task),
            "prepare_s": ledger["train"].wall_s, "each_s": ledger["score"].wall_s / scored,
            "architecture": dict(best.architecture),
        }  # fmt: skip

    def _strategy(self, space: Space, task: Task, out: Path) -> Any:
        if self.aim == "latency_ms":
            return Proxyless(target=half(space, task, out, self.target))
        if self.aim == "macs":
            macs = half(space, task, out, self.target, "macs")
            return Proxyless(quantity="macs", target=macs)
        if self.aim:
            return Proxyless(quantity="")
        return Proxyless(rule="reinforce") if self.method.endswith(" reinforce") else self.method


def whole_steps(task: Task) -> int:
    return RECIPE.epochs * task.steps_per_epoch(RECIPE.batch_size)


def run(out: Path, job: Training | Search) -> dict[str, Any]:
    """Return what a job found, now or before; one that fails says why and stops no other."""
    kept = out / f"{job.key}.json"
    if not kept.exists():
        torch.set_num_threads(1)
        try:
            found = job(out)
        except Exception:
            return {"name": job.key, "error": traceback.format_exc()}
        kept.write_text(json.dumps(found))
    row: dict[str, Any] = json.loads(kept.read_text())
    return row


def run_all(out: Path, jobs: Sequence[Training | Search]) -> list[dict[str, Any]]:
    """Run jobs, two at a time, each in a process of its own; return what did not fail."""
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, max_tasks_per_child=1) as pool:
        for row in pool.map(run, [out] * len(jobs), jobs):
            print(json.dumps(row), flush=True)
            rows.append(row)
    return [row for row in rows if "error" not in row]


# --- what they say --------------------------------------------------------------------------------


def best_of(runs: Sequence[Mapping[str, float]], num: int) -> float:
    """Return the expected test accuracy of the best on validation of `num` drawn from the runs.

    Exact, over all draws without replacement.
    """
    ranked = sorted(runs, key=lambda run: run["valid"])
    # The i-th worst is the best of the draw if the others come from the i below it.
    draws = comb(len(runs), num)
    return sum(comb(i, num - 1) / draws * run["test"] for i, run in enumerate(ranked))


def as_good(runs: Sequence[Mapping[str, float]], accuracy: float) -> int | None:
    """Return the fewest random trainings that are expected to reach an accuracy; None if none."""
    for num in range(1, len(runs) + 1):
        if best_of(runs, num) >= accuracy:
            return num
    return None


def cheaper(rows: Sequence[Mapping[str, Any]], accuracy: float, cost_s: float) -> float:
    """Return a cost ÷ that of the cheapest search that reaches an accuracy; 0 where none does."""
    seconds = [row["seconds"] for row in rows if row["accuracy"] >= accuracy]
    return cost_s / min(seconds) if seconds else 0.0


def measured_again(rows: Sequence[dict[str, Any]]) -> None:
    """Measure all winners side by side on every target, which no selection has seen."""
    space, example = chain(), load_task("fashion-mnist").example(1)
    networks = [space.build(Architecture(row["architecture"])) for row in rows]
    for name, device in TARGETS.items():
        with device.ready():
            runners = [device.runner(network, example) for network in networks]
            for row, median in zip(rows, device.medians_ms(runners)):
                row[f"{name}_ms"] = round(median, 5)
    for row in rows:
        row["over"] = round(row[f"{row['target']}_ms"] / row["limit_ms"] - 1, 4)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of a method's runs, and what of them is not to be averaged."""
    accuracies = [row["accuracy"] for row in rows]
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "interval": [round(v, 4) for v in interval(accuracies, np.mean)],
        "valid": round(float(np.mean([row["valid"] for row in rows])), 4),
        "seconds": round(float(np.mean([row["seconds"] for row in rows])), 1),
        "whole_recipe": all(row["whole_recipe"] for row in rows),
        "macs": [int(row["macs"]) for row in rows],
        "over": [row["over"] for row in rows],
        **{f"{name}_ms": [row[f"{name}_ms"] for row in rows] for name in TARGETS},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/bench-methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--random", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=METHODS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    task, space = load_task("fashion-mnist"), chain()
    for target in TARGETS:
        prepare_table(given.out, target, space, task)
    longest, seeds = max(given.minutes), range(given.seeds)
    rows = run_all(given.out, [
        *(Search(name, longest, seed) for seed in seeds for name in given.only),
        *(Training(i) for i in range(given.random)),
        *(Search("proxyless", longest, s, aim=a) for s in seeds for a in AIMS),
        *(Search("evolution", longest, seed, target="torch") for seed in seeds),
    ])  # fmt: skip
    runs = [row for row in rows if row["name"] == RANDOM]
    found = [row for row in rows if row["name"] != RANDOM]
    by_name = {
        name: [r for r in found if r["name"] == name and r["target"] == "onnxruntime"]
        for name in given.only
    }
    valid = {n: np.mean([r["valid"] for r in own]) for n, own in by_name.items() if own}
    best = max(valid, key=lambda name: float(valid[name]))
    shorter = [Search(best, m, s) for s in seeds for m in given.minutes if m < longest]
    found += run_all(given.out, shorter)
    measured_again(found)

    each_s = float(np.mean([run["seconds"] for run in runs]))
    bar, cost_s = best_of(runs, len(runs)), each_s * len(runs)
    of_best = [r for r in found if r["name"] == best and r["target"] == "onnxruntime"]
    ratios = [cheaper([r for r in of_best if r["seed"] == s], bar, cost_s) for s in seeds]
    scoring = {
        n: 1000 * each_s / float(np.mean([r["prepare_s"] + 1000 * r["each_s"] for r in own]))
        for n, own in by_name.items() if own
    }  # fmt: skip
    report(
        "methods", float(np.mean(ratios)), "ratio", ">= 20", interval(ratios, np.mean),
        best=best, ratios=[round(r, 1) for r in ratios], seeds=given.seeds, minutes=given.minutes,
        random={"accuracy": round(bar, 4), "num": len(runs), "seconds": round(cost_s, 1)},
        worth={name: as_good(runs, float(np.mean([r["accuracy"] for r in own])))
               for name, own in by_name.items() if own},
        scoring_1000={name: round(ratio, 1) for name, ratio in scoring.items()},
        table={name: summary(own) for name, own in by_name.items() if own},
        by_minutes={f"{m:g}": summary([r for r in of_best if r["minutes"] == m])
                    for m in given.minutes if any(r["minutes"] == m for r in of_best)},
        aims={aim: summary(own) for aim in AIMS
              if (own := [r for r in found if r["name"] == f"aim {aim}"])},
        targets={target: summary(own) for target in TARGETS
                 if (own := [r for r in found if (r["name"], r["target"], r["minutes"])
                             == ("evolution", target, longest)])},
    )  # fmt: skip


if __name__ == "__main__":
    main()
