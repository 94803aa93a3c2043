"""Fashion-MNIST in 20 minutes of 2 cores, against as many random networks as the same time trains.

    python -m bench.fashion                    # 3 seeds, about two hours
    python -m bench.fashion --seeds 1 --minutes 2 --out runs/look   # to see that it runs

What has ended lies in the folder and is not run again: a run that was stopped goes on.

The limit is half the measured latency of the space's largest network. The estimator is what
`bench.fashion_audit` advises on this task: nothing was shown to rank better than counting MACs, so
that is the score. Counting is quick: it takes no more than 1,000 trials, and the time goes into
training the best two, one on each core. `value` is the mean test accuracy of the winners. The
random arm trains as many random architectures under the same limit, by the winner's recipe and
steps and also one on each core, as end in the same time; its best on validation is tested.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.estimators.zero_cost import ZeroCost
from assay.executors.processes import Processes
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.run.face import search
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.study.store import Study
from assay.train.loop import Trainer
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from assay.zoo import load_space
from bench.harness import interval, report

AT_ONCE = 2
RECIPE = Recipe(lr=0.1, batch_size=128, epochs=60, weight_decay=2e-4)


def half_of_largest(space: Space, task: Task) -> float:
    example = task.example(1)
    return Device().latency(space.build(space.largest(example)), example).median_ms / 2


def searched(seed: int, minutes: float, out: Path) -> dict[str, Any]:
    task = load_task("fashion-mnist")
    space = load_space("mobile", task)
    limit = half_of_largest(space, task)
    result = search(
        space, task, estimator=ZeroCost(("macs",)), strategy="nsga2",
        limits={"latency_ms": limit}, budget=f"{minutes}min,trials=1000", out=out, seed=seed,
        recipe=RECIPE, finalists=Finalists(k=AT_ONCE, compare=False),
        executor=Processes(workers=AT_ONCE), origin={"space": "mobile", "task": "fashion-mnist"},
    )  # fmt: skip
    best = result.best()
    with Study.read(out) as study:
        steps = int(study.phase("finalists").counts["steps"])
        spent_s = sum(cost.wall_s for cost in study.ledger().values())
    return {
        "accuracy": best.metrics["test_accuracy"], "latency_ms": best.metrics["latency_ms"],
        "limit_ms": limit, "seconds": spent_s, "steps": steps,
    }  # fmt: skip


def at_random(seed: int, seconds: float, steps: int, limit: float, table: Path) -> dict[str, Any]:
    """Train random architectures within the limit, one on each core, until the time has passed.

    They train at once, which uses the cores better than one after the other with both. A round is
    begun if it will have ended by then, the first one always.
    """
    task = load_task("fashion-mnist")
    space = load_space("mobile", task)
    example = task.example(1)
    found = LatencyTable.load(table, space, Device(), example=example)
    measures = Measures(space, Device(), example, found)
    rng = derive(seed, "random arm")
    executor = Processes(workers=AT_ONCE)
    started, runs, round_s = time.perf_counter(), [], 0.0
    while time.perf_counter() - started + round_s <= seconds:
        points: list[Architecture] = []
        while len(points) < AT_ONCE:
            point = space.canonical(space.sample(rng))
            if measures("latency_ms", point) <= limit:
                points.append(point)
        jobs = [executor.submit(partial(trained, point, steps, seed)) for point in points]
        runs += [job.result() for job in executor.gather(jobs)]
        round_s = (time.perf_counter() - started) * AT_ONCE / len(runs)
    took = time.perf_counter() - started
    valid, best = max(runs, key=lambda run: run[0])
    accuracy = evaluate(best, task.open_test().batches(256), task)["accuracy"]
    return {
        "accuracy": accuracy, "valid": valid, "networks": len(runs), "seconds": took,
    }  # fmt: skip


def trained(point: Architecture, steps: int, seed: int) -> tuple[float, nn.Module]:
    """Train an architecture from scratch; return its validation accuracy and the network."""
    task = load_task("fashion-mnist")
    space = load_space("mobile", task)
    trainer = Trainer(space.fresh(point, seed), task, RECIPE, steps=steps, seed=seed)
    trainer.run(steps)
    network = trainer.finish()
    return evaluate(network, task.valid.batches(256), task)["accuracy"], network


def once(path: Path, arm: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an arm found, now or before."""
    if not path.exists():
        found = json.dumps(arm())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    row: dict[str, Any] = json.loads(path.read_text())
    print(json.dumps({str(path): row}), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-fashion"))
    given = parser.parse_args()
    winners, randoms = [], []
    for seed in range(given.seeds):
        out = given.out / f"seed{seed}"
        won = once(out / "searched.json", partial(searched, seed, given.minutes, out / "search"))
        rivals = partial(
            at_random, seed, won["seconds"], won["steps"], won["limit_ms"],
            out / "search" / "table.json",
        )  # fmt: skip
        winners.append(won)
        randoms.append(once(out / "random.json", rivals))
    accuracies = [w["accuracy"] for w in winners]
    report(
        "fashion", float(np.mean(accuracies)), "accuracy", ">= 0.92, and >= random",
        interval(accuracies, np.mean), seeds=given.seeds, minutes=given.minutes,
        torch_threads=torch.get_num_threads(), winners=winners, random=randoms,
    )  # fmt: skip


if __name__ == "__main__":
    main()
