"""Does a search find what an audit said it would? By short trainings and by size, at equal time.

    python -m bench.gain --out runs/bench-gain                        # some 25 minutes on two cores
    python -m bench.gain --searches 1 --random 4                      # a look

`bench.fashion_audit` says of the space `conv` at half its widths, on Fashion-MNIST: in the time of
four trainings the best of four random networks gains 0.013 of validation accuracy over one, and
scoring ten by `low-fidelity`, or by their parameters, and training the best of them 0.005 more.
Here that is tried on other networks, by searches that do just this: `random` with ten trials, and
three finalists by `low-fidelity`, four by parameters, of the whole recipe of two epochs, and three
by `one-shot`, the default, whose supernet trains as long as one of them; against the best on
validation of four random networks trained alike: exactly expected over all draws from --random of
them. Each process trains with one thread, two run at a time; `seconds` of a search stand beside
`time_s`, four times the mean of a random training: the first eight set the time, and the others
are trained between the searches, so that a machine which slows down slows both. `time` and
`cpu_time` are the mean of the searches ÷ that of four such trainings. All are judged on the test
split, which chooses nothing. `value` is what searches by the first --by have more than the best at
random, on average; its interval resamples the searches and the trainings. What has ended lies in
--out and is not run again.

With --by-time each search gets that time and spends it as it does by default: then its finalists
may be trained for less than the recipe, and `steps` says for how much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.cost import derive
from assay.estimators.zero_cost import ZeroCost
from assay.run.face import search
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.study.store import Study
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import evaluate
from assay.zoo.conv import conv
from bench.harness import HALF_WIDTHS, report
from bench.jobs import run_all
from bench.methods import best_of, bootstrap, mean_of
from bench.methods_jobs import train, validated

RECIPE = Recipe(batch_size=128, weight_decay=2e-4, epochs=2)
BY = {"low-fidelity": 3, "parameters": 4, "one-shot": 3}
"""What scores -> finalists, as many as four trainings or the default allow."""
SCORED, AT_RANDOM = 10, 4
_TIMED = 8  # trainings before the searches


def halved() -> Space:
    return conv(input_shape=(1, 28, 28), widths=HALF_WIDTHS)


@dataclass(frozen=True)
class Training:
    """Trains the random network of a number."""

    number: int

    @property
    def key(self) -> str:
        return f"random-{self.number}"

    def __call__(self, out: Path) -> dict[str, Any]:
        space, task = halved(), load_task("fashion-mnist")
        point = space.sample(derive(7, "gain", self.number))
        started = time.perf_counter()
        network = train(space, point, task, self.number, RECIPE)
        valid = validated(network, task)
        seconds = time.perf_counter() - started
        accuracy = evaluate(network, task.open_test().batches(500), task)["accuracy"]
        return {"by": "random", "valid": valid, "accuracy": accuracy, "seconds": seconds}


@dataclass(frozen=True)
class Search:
    """Searches at random, by an estimate; for some seconds, if these are given."""

    by: str
    seed: int
    seconds: float | None

    @property
    def key(self) -> str:
        return f"{self.by}-{self.seed}" + "-by-time" * (self.seconds is not None)

    def __call__(self, out: Path) -> dict[str, Any]:
        estimator = ZeroCost(signals=("params",)) if self.by == "parameters" else self.by
        started = time.perf_counter()
        result = search(
            halved(), load_task("fashion-mnist"), strategy="random", estimator=estimator,
            recipe=RECIPE, objectives=("score",), seed=self.seed, out=out / self.key,
            budget=f"trials={SCORED}" if self.seconds is None else f"{self.seconds}s",
            finalists=Finalists(k=BY[self.by], compare=False),
        )  # fmt: skip
        seconds, best = time.perf_counter() - started, result.best()
        with Study.read(out / self.key) as study:
            trained, steps = len(study.finalists()), study.phase("finalists").counts["steps"]
        return {
            "by": self.by, "seed": self.seed, "valid": best.metrics["valid_accuracy"],
            "accuracy": best.metrics["test_accuracy"], "seconds": seconds, "trained": trained,
            "steps": steps,
            "scored": sum(trial.state == "scored" for trial in result.trials()),
        }  # fmt: skip


def more(runs: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> float:
    """Return the mean accuracy of searches less that expected of the best of four trainings."""
    return mean_of(rows, "accuracy") - best_of(runs, AT_RANDOM)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gain"))
    parser.add_argument("--random", type=int, default=40)
    parser.add_argument("--searches", type=int, default=8)
    parser.add_argument("--by", nargs="+", default=list(BY), choices=BY)
    parser.add_argument("--by-time", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    load_task("fashion-mnist")  # fetched once
    trainings = [Training(number) for number in range(given.random)]
    first, others = trainings[:_TIMED], trainings[_TIMED:]
    within = None
    timed = run_all(given.out, first)
    if given.by_time:
        within = AT_RANDOM * mean_of(timed, "seconds")
    searches = [Search(by, seed, within) for seed in range(given.searches) for by in given.by]
    mixed = [job for pair in zip_longest(searches, others) for job in pair if job is not None]
    rows = run_all(given.out, mixed)
    found = {by: [row for row in rows if row.get("by") == by] for by in given.by}
    runs = timed + [row for row in rows if row.get("by") == "random"]
    time_s = AT_RANDOM * mean_of(runs, "seconds")
    failed = [row["failed"] for row in rows if "failed" in row]
    told = {
        by: {
            "more": round(more(runs, own), 4),
            "interval": [round(end, 4) for end in bootstrap(more, runs, own)],
            "accuracy": [row["accuracy"] for row in own],
            "seconds": [round(row["seconds"], 1) for row in own],
            "cpu_s": [round(row["cpu_s"], 1) for row in own],
            "time": round(mean_of(own, "seconds") / time_s, 3),
            "cpu_time": round(mean_of(own, "cpu_s") / (AT_RANDOM * mean_of(runs, "cpu_s")), 3),
            "scored": [row["scored"] for row in own],
            "trained": [row["trained"] for row in own],
            "steps": [row["steps"] for row in own],
        }
        for by, own in found.items()
        if own
    }
    first_by = told[given.by[0]]
    report(
        "gain", first_by["more"], "accuracy", "> 0", tuple(first_by["interval"]), failed=failed,
        time_s=round(time_s, 1), by=told,
        random={
            "mean": round(mean_of(runs, "accuracy"), 4),
            "spread": round(float(np.std([run["accuracy"] for run in runs], ddof=1)), 4),
            "best": round(best_of(runs, AT_RANDOM), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
