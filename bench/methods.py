"""Searches that learn against random search and evolution, at equal time, on Fashion-MNIST.

    python -m bench.methods --out runs/bench-methods                     # 3 seeds, over two hours
    python -m bench.methods --seeds 1 --minutes 1 --random 3 --only random proxyless   # a look

A chain of six inverted bottlenecks, 3 kernels x 2 expansions each, or none; ONNX Runtime, one
thread; limit = half of what the largest takes by the table. Each process trains with one thread,
and two run at a time. What has ended lies in the folder and is not run again, so a run that was
stopped goes on, and one with other minutes or seeds takes over what it can. Four questions:

1. Each search has the same time in all, the measuring of the latency table included, its winner
   trained from scratch by one recipe: test accuracy, latency, whether the limit held when all
   winners were measured again side by side; intervals of the means of three seeds are little more
   than their range. `random 40` trains so many random architectures under the same limit by that
   recipe, and keeps the best on validation; its interval resamples the trainings.
2. How much cheaper is a search? The method that is best on validation at the longest time is run
   at all `--minutes`; `value` is the cost of the 40 trainings ÷ that of the shortest searches whose
   mean over the seeds is as good on test as the best of the 40 on validation, 0 where none is. Its
   interval resamples the 40, and the seeds of each time.
3. `proxyless` aiming at the limit of latency, at as large a share of the largest MACs, and at
   nothing, with no limit beside and its likeliest architecture taken: what do the winners take?
4. The winners of `evolution` for two targets, ONNX Runtime and torch: each measured on both.

A job that fails is named in `failed`, and tried again when the benchmark is; `seeds` of a row says
how many runs it is of.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
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
        # to say what fewer trainings would have given, and how sure this one is.
        accuracy = evaluate(network, task.open_test().batches(500), task)["accuracy"]
        return {
            "name": RANDOM, "target": "onnxruntime", "seconds": seconds, "accuracy": accuracy,
            "valid": valid, "macs": known("macs", point), "limit_ms": limit, "whole_recipe": True,
            "architecture": dict(point),
        }  # fmt: skip


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
            return {"failed": job.key, "error": traceback.format_exc()}
        kept.write_text(json.dumps(found))
    row: dict[str, Any] = json.loads(kept.read_text())
    return row


def run_all(out: Path, jobs: Sequence[Training | Search]) -> list[dict[str, Any]]:
    """Run jobs, two at a time, each in a process of its own; return what each found."""
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, max_tasks_per_child=1) as pool:
        for row in pool.map(run, [out] * len(jobs), jobs):
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


# --- what they say --------------------------------------------------------------------------------


def parted(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of what did not fail, and the names of what did."""
    done = [row for row in rows if "failed" not in row]
    return done, [row["failed"] for row in rows if "failed" in row]


def rows_of(
    rows: Sequence[dict[str, Any]],
    name: str,
    *,
    target: str = "onnxruntime",
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of a name and target; those of some minutes, if these are given."""
    own = [row for row in rows if (row["name"], row["target"]) == (name, target)]
    return [row for row in own if minutes is None or row["minutes"] == minutes]


def mean_of(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def ranked(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return runs by their accuracy on validation, the best one last."""
    return sorted(runs, key=lambda run: float(run["valid"]))


def best_of(runs: Sequence[dict[str, Any]], num: int) -> float:
    """Return the expected test accuracy of the best on validation of `num` drawn from the runs.

    Exact, over all draws without replacement.
    """
    # The i-th worst is the best of the draw if the others come from the i below it.
    draws = comb(len(runs), num)
    return sum(
        comb(i, num - 1) / draws * float(run["accuracy"]) for i, run in enumerate(ranked(runs))
    )


def as_good(runs: Sequence[dict[str, Any]], accuracy: float) -> int | None:
    """Return the fewest random trainings that are expected to reach an accuracy; None if none."""
    for num in range(1, len(runs) + 1):
        if best_of(runs, num) >= accuracy:
            return num
    return None


def cheaper(runs: Sequence[dict[str, Any]], *searches: Sequence[Mapping[str, Any]]) -> float:
    """Return the cost of random trainings ÷ that of the shortest searches that are as good.

    These are the first whose mean on test reaches what the best training on validation has there;
    0 where none do. A mean, because the best of some seeds is as good by luck.

    Args:
        runs: The trainings.
        searches: The rows of each length, from the shortest on.
    """
    bar, cost_s = ranked(runs)[-1]["accuracy"], sum(run["seconds"] for run in runs)
    for rows in searches:
        if mean_of(rows, "accuracy") >= bar:
            return float(cost_s / mean_of(rows, "seconds"))
    return 0.0


def bootstrap(
    statistic: Callable[..., float], *samples: Sequence[Any], draws: int = 2000
) -> tuple[float, float]:
    """Return a 95 % percentile-bootstrap interval of a statistic of samples, each resampled."""
    rng = np.random.default_rng(0)

    def again(sample: Sequence[Any]) -> list[Any]:
        return [sample[i] for i in rng.integers(len(sample), size=len(sample))]

    found = [statistic(*map(again, samples)) for _ in range(draws)]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


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
        "seeds": len(rows),
        "accuracy": round(mean_of(rows, "accuracy"), 4),
        "interval": [round(v, 4) for v in interval(accuracies, np.mean)],
        "valid": round(mean_of(rows, "valid"), 4),
        "seconds": round(mean_of(rows, "seconds"), 1),
        "whole_recipe": all(row["whole_recipe"] for row in rows),
        "macs": [int(row["macs"]) for row in rows],
        "over": [row["over"] for row in rows],
        **{f"{name}_ms": [row[f"{name}_ms"] for row in rows] for name in TARGETS},
    }


def summary_of_random(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the same of the best random training on validation, at the cost of all of them."""
    bounds = bootstrap(lambda drawn: ranked(drawn)[-1]["accuracy"], runs)
    return summary(ranked(runs)[-1:]) | {
        "trainings": len(runs),
        "interval": [round(v, 4) for v in bounds],
        "seconds": round(sum(run["seconds"] for run in runs), 1),
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
    done, failed = parted(run_all(given.out, [
        *(Search(name, longest, seed) for seed in seeds for name in given.only),
        *(Training(i) for i in range(given.random)),
        *(Search("proxyless", longest, s, aim=a) for s in seeds for a in AIMS),
        *(Search("evolution", longest, seed, target="torch") for seed in seeds),
    ]))  # fmt: skip
    by_name = {name: own for name in given.only if (own := rows_of(done, name))}
    best = max(by_name, key=lambda name: mean_of(by_name[name], "valid"))
    shorter = [Search(best, m, s) for s in seeds for m in given.minutes if m < longest]
    more, failed_too = parted(run_all(given.out, shorter))
    done += more
    runs = rows_of(done, RANDOM)
    measured_again([*(row for row in done if row["name"] != RANDOM), ranked(runs)[-1]])

    by_minutes = {m: own for m in sorted(given.minutes) if (own := rows_of(done, best, minutes=m))}
    searches = [*by_minutes.values()]
    scoring = {
        n: 1000 * mean_of(runs, "seconds")
        / float(np.mean([r["prepare_s"] + 1000 * r["each_s"] for r in own]))
        for n, own in by_name.items()
    }  # fmt: skip
    report(
        "methods", cheaper(runs, *searches), "ratio", ">= 20", bootstrap(cheaper, runs, *searches),
        best=best, failed=failed + failed_too, seeds=given.seeds, minutes=given.minutes,
        worth={name: as_good(runs, mean_of(own, "accuracy")) for name, own in by_name.items()},
        scoring_1000={name: round(ratio, 1) for name, ratio in scoring.items()},
        table={RANDOM: summary_of_random(runs),
               **{name: summary(own) for name, own in by_name.items()}},
        by_minutes={f"{m:g}": summary(own) for m, own in by_minutes.items()},
        aims={aim: summary(own) for aim in AIMS if (own := rows_of(done, f"aim {aim}"))},
        targets={target: summary(own) for target in TARGETS
                 if (own := rows_of(done, "evolution", target=target, minutes=longest))},
    )  # fmt: skip


if __name__ == "__main__":
    main()
