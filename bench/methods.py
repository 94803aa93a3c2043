"""Searches that learn against random search and evolution, at equal time, on Fashion-MNIST.

    python -m bench.methods --out runs/bench-methods              # 3 seeds, about 80 minutes
    python -m bench.methods --seeds 1 --minutes 1 --random 3 --only random proxyless   # a look

A chain of six inverted bottlenecks, 3 kernels x 2 expansions each, or none; ONNX Runtime, one
thread; limit = half the measured latency of the largest. Each process trains with one thread, and
two run at a time. Three questions:

1. Each search has the same time in all, its winner trained from scratch by one recipe: test
   accuracy, measured latency, whether the limit held. `random 40` trains so many random
   architectures under the same limit by that recipe, and keeps the best on validation.
2. `proxyless` aiming at the limit of latency, at as large a share of the largest MACs, and at
   nothing, with no limit beside: what do the winners take, measured?
3. The winners for two targets, ONNX Runtime and torch, each measured on both.

`value`: the seconds in which random search by whole trainings is expected to be as good as the best
of the searches, ÷ that search's seconds; its interval is over the seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
from assay.train.loop import Trainer
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from assay.zoo.mobile import Stage, mobile
from bench.harness import interval, report

RECIPE = Recipe(batch_size=128, epochs=3, weight_decay=2e-4)
RANDOM = "random 40"
TARGETS = {"onnxruntime": Device(), "torch": Device("torch")}
AIMS = ("latency_ms", "macs", "nothing")
METHODS: Mapping[str, Callable[[], Any]] = {
    "random": lambda: "random",
    "evolution": lambda: "evolution",
    "nsga2": lambda: "nsga2",
    "enas": lambda: "enas",
    "darts": lambda: "darts",
    "proxyless": Proxyless,
    "proxyless reinforce": lambda: Proxyless(rule="reinforce"),
}
"""Name -> what makes the strategy; all with the estimator `one-shot`."""


def chain() -> Space:
    stages = (Stage((16,), (2, 2)), Stage((32,), (2, 2), stride=2), Stage((64,), (2, 2), stride=2))
    return mobile(input_shape=(1, 28, 28), stages=stages, stem=16, stem_stride=2, head=128)


def table_of(out: Path, target: str, space: Space, task: Task) -> Path:
    """Return the file of a latency table, measured once for all searches."""
    path = out / f"table-{target}.json"
    if not path.exists():
        LatencyTable.build(space, TARGETS[target], example=task.example(1)).save(path)
    return path


def half(space: Space, task: Task, out: Path, target: str, quantity: str = "latency_ms") -> float:
    """Return half of what the largest architecture takes, by the table."""
    return measures(space, task, out, target)(quantity, space.largest(task.example(1))) / 2


def measures(space: Space, task: Task, out: Path, target: str) -> Measures:
    device, example = TARGETS[target], task.example(1)
    table = LatencyTable.load(table_of(out, target, space, task), space, device, example=example)
    return Measures(space, device, example, table)


# --- one search, one process ----------------------------------------------------------------------


def searched(
    name: str, strategy: Callable[[], Any], out: Path, minutes: float, seed: int, *,
    target: str = "onnxruntime", limited: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Search, and return what the winner is worth."""
    torch.set_num_threads(1)
    task, space = load_task("fashion-mnist"), chain()
    limit = half(space, task, out, target)
    started = time.perf_counter()
    result = search(
        space, task, strategy=strategy(), target=TARGETS[target], seed=seed, recipe=RECIPE,
        limits={"latency_ms": limit} if limited else {}, budget=60 * minutes,
        finalists=Finalists(k=1, compare=False), table=table_of(out, target, space, task),
        out=out / f"{name.replace(' ', '-')}-{seed}",
    )  # fmt: skip
    best = result.best()
    return {
        "name": name, "seed": seed, "seconds": round(time.perf_counter() - started, 1),
        "accuracy": best.metrics["test_accuracy"], "latency_ms": best.metrics["latency_ms"],
        "macs": best.metrics["macs"], "limit_ms": limit, "scored": len(result.trials()),
        "holds": best.metrics["latency_ms"] <= limit, "architecture": dict(best.architecture),
    }  # fmt: skip


def trained(out: Path, number: int) -> dict[str, Any]:
    """Train the random architecture of this number, under the limit, by the recipe."""
    torch.set_num_threads(1)
    task, space = load_task("fashion-mnist"), chain()
    known, limit = measures(space, task, out, "onnxruntime"), half(space, task, out, "onnxruntime")
    rng, started = derive(0, RANDOM, number), time.perf_counter()
    point = space.canonical(space.sample(rng))
    while known("latency_ms", point) > limit:
        point = space.canonical(space.sample(rng))
    steps = RECIPE.epochs * task.steps_per_epoch(RECIPE.batch_size)
    trainer = Trainer(space.fresh(point, number), task, RECIPE, steps=steps, seed=number)
    trainer.run(steps)
    network = trainer.finish()
    seconds = time.perf_counter() - started
    valid = evaluate(network, task.valid.batches(500), task)["accuracy"]
    # Of all of these the best on validation is judged; the test figure of the others is needed to
    # say what fewer trainings would have given.
    test = evaluate(network, task.open_test().batches(500), task)["accuracy"]
    return {"name": RANDOM, "number": number, "seconds": seconds, "valid": valid, "test": test}


def crossed(out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each target's winner its latency on each target, in milliseconds."""
    space, example = chain(), load_task("fashion-mnist").example(1)
    return {
        row["name"]: {
            name: round(
                device.latency(space.build(Architecture(row["architecture"])), example).median_ms, 5
            )
            for name, device in TARGETS.items()
        }
        for row in rows
    }


# --- together -------------------------------------------------------------------------------------


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/bench-methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--random", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    task, space = load_task("fashion-mnist"), chain()
    for target in TARGETS:
        table_of(given.out, target, space, task)
    macs = half(space, task, given.out, "onnxruntime", "macs")
    limit = half(space, task, given.out, "onnxruntime")
    aims = {
        "latency_ms": Proxyless(target=limit), "macs": Proxyless(quantity="macs", target=macs),
        "nothing": Proxyless(quantity=""),
    }  # fmt: skip
    jobs = [
        *(partial(trained, given.out, i) for i in range(given.random)),
        *(
            partial(searched, name, partial(made, name), given.out, given.minutes, seed)
            for seed in range(given.seeds) for name in given.only
        ),
        *(
            partial(searched, f"aim {aim}", partial(given_one, aims[aim]), given.out,
                    given.minutes, seed, limited=False)
            for seed in range(given.seeds) for aim in AIMS if "proxyless" in given.only
        ),
        *(
            partial(searched, f"for {target}", partial(made, "evolution"), given.out,
                    given.minutes, 0, target=target)
            for target in TARGETS
        ),
    ]  # fmt: skip
    spawn = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(2, spawn, max_tasks_per_child=1) as pool:
        for row in pool.map(_run, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
    _tell(given, rows)


def _run(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return job()


def made(name: str) -> Any:
    return METHODS[name]()


def given_one(strategy: Any) -> Any:
    return strategy


def _tell(given: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    runs = [row for row in rows if row["name"] == RANDOM]
    each_s = float(np.mean([run["seconds"] for run in runs]))
    by_name = {name: [r for r in rows if r["name"] == name] for name in given.only}
    table = {name: summary(own) for name, own in by_name.items()}
    table[RANDOM] = {
        "accuracy": round(best_of(runs, len(runs)), 4),
        "seconds": round(sum(r["seconds"] for r in runs), 1),
        "one_training_s": round(each_s, 1),
    }
    best = max(by_name, key=lambda name: table[name]["accuracy"])
    ratios = [
        (as_good(runs, row["accuracy"]) or len(runs)) * each_s / row["seconds"]
        for row in by_name[best]
    ]
    aimed = {aim: [r for r in rows if r["name"] == f"aim {aim}"] for aim in AIMS}
    report(
        "methods", float(np.mean(ratios)), "ratio", ">= 20", interval(ratios, np.mean),
        best=best, minutes=given.minutes, seeds=given.seeds, table=table,
        reached_by_random=as_good(runs, table[best]["accuracy"]) is not None,
        aims={aim: summary(own) for aim, own in aimed.items() if own},
        targets=crossed(given.out, [r for r in rows if r["name"].startswith("for ")]),
    )  # fmt: skip


def summary(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of a method's runs, and the interval of its accuracy."""
    accuracies = [r["accuracy"] for r in own]
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "interval": [round(v, 4) for v in interval(accuracies, np.mean)],
        "latency_ms": [round(r["latency_ms"], 4) for r in own],
        "macs": [int(r["macs"]) for r in own],
        "held": all(r["holds"] for r in own),
        "seconds": round(float(np.mean([r["seconds"] for r in own])), 1),
    }


if __name__ == "__main__":
    main()
