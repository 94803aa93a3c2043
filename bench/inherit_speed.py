"""Steps until a grown child beats its parent, with inherited weights ÷ from scratch.

    python -m bench.inherit_speed                          # 10 pairs x 3 seeds, about an hour
    python -m bench.inherit_speed --seeds 1 --rate 0.1      # one seed, at a rate found before
    python -m bench.inherit_speed --pairs 1 --seeds 0 --epochs 1     # to see that it runs

On Fashion-MNIST, in the space `conv` of half the usual widths. A child is its parent after random
mutations that only grow, of at least twice the MACs. Parent and child are trained from scratch by
one full recipe, at the rate of those tried that is best for training from scratch, found on pairs
of another seed; the inherited child is tuned as the estimator `inherit` does by default, for as
many steps. The child has passed at the third of three consecutive evaluations, ten in an epoch,
whose validation accuracy is 0.3 points over its parent's last; one that never passes counts all its
steps, in both arms. Shrinking pairs go back: from the trained child to the parent's architecture,
which has passed when it is as good as the parent was at the end of its own training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.estimators.inherit import Inherit
from assay.executors.processes import Processes
from assay.hardware.count import count
from assay.space.space import Space
from assay.train.loop import Trainer
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from assay.weights.morph import inherit, plan
from assay.weights.morph.steps import price
from assay.zoo.conv import conv
from bench.harness import HALF_WIDTHS, interval, report

RATES = (0.05, 0.1, 0.2)
LOOKS = 10
MARGIN = 0.003
IN_A_ROW = 3


@dataclass(frozen=True)
class Followed:
    """What came of one training: the validation accuracy at each look, and the network."""

    accuracies: Sequence[float]
    network: nn.Module

    @property
    def last(self) -> float:
        return self.accuracies[-1]

    def passed(self, threshold: float) -> int | None:
        """Return the look, counted from 1, with which three in a row have reached a threshold."""
        good = np.array(self.accuracies) >= threshold
        for i in range(len(good) - IN_A_ROW + 1):
            if good[i : i + IN_A_ROW].all():
                return i + IN_A_ROW
        return None


def follow(network: nn.Module, task: Task, recipe: Recipe, seed: int) -> Followed:
    """Train by the recipe, looking ten times in an epoch."""
    per_epoch = task.steps_per_epoch(recipe.batch_size)
    trainer = Trainer(network, task, recipe, steps=recipe.epochs * per_epoch, seed=seed)
    accuracies = []
    for i in range(recipe.epochs * LOOKS):
        trainer.run(round((i + 1) * per_epoch / LOOKS) - trainer.step)
        with trainer.averaged() as averaged:
            figures = evaluate(averaged, task.valid.batches(500), task)
        accuracies.append(figures["accuracy"])
    return Followed(accuracies, trainer.finish())


def drawn(space: Space, task: Task, num: int, seed: int) -> list[tuple[Architecture, Architecture]]:
    """Draw pairs of a parent and a child that has grown to twice its MACs or more."""
    rng, example = derive(seed, "pairs"), task.example(1)
    pairs: list[tuple[Architecture, Architecture]] = []
    while len(pairs) < num:
        parent = space.canonical(space.sample(rng))
        child = parent
        for _ in range(8):
            grown = space.mutate(child, rng)
            if not price(plan(space, parent, grown))[0]:
                child = grown
        macs = [count(space.build(a), example).macs for a in (parent, child)]
        if macs[1] >= 2 * macs[0]:
            pairs.append((parent, child))
    return pairs


def together(works: Sequence[Callable[[], Followed]]) -> list[Followed]:
    """Run trainings, as many at once as there are cores."""
    executor = Processes()
    jobs = [executor.submit(work) for work in works]
    for _ in executor.gather(jobs):
        pass
    return [job.result() for job in jobs]


def scratch(
    space: Space, points: Sequence[Architecture], task: Task, recipe: Recipe, seed: int
) -> list[Followed]:
    return together([partial(follow, space.fresh(a, seed), task, recipe, seed) for a in points])


def inherited(
    space: Space,
    pairs: Sequence[tuple[Architecture, Architecture]],
    sources: Sequence[Followed],
    task: Task,
    recipe: Recipe,
    seed: int,
) -> list[Followed]:
    """Let the second of each pair inherit from the first, and tune it."""
    own = Inherit()
    tuning = recipe.with_(lr=own.rate * recipe.lr, schedule="constant", warmup=0.0)
    works = []
    for i, ((old, new), source) in enumerate(zip(pairs, sources)):
        heir = inherit(
            space, old, source.network, new, rng=derive(seed, "heir", i),
            example=task.example(32), noise=own.noise,
        )  # fmt: skip
        works.append(partial(follow, heir.network, task, tuning, seed))
    return together(works)


def best_rate(space: Space, task: Task, recipe: Recipe) -> tuple[float, dict[str, float]]:
    """Return the rate at which children end best from scratch, on three pairs of another seed."""
    children = [child for _, child in drawn(space, task, 3, seed=1000)]
    found = {
        str(lr): float(np.mean([
            f.last for f in scratch(space, children, task, recipe.with_(lr=lr), 1000)
        ]))
        for lr in RATES
    }  # fmt: skip
    return float(max(found, key=lambda lr: found[lr])), found


def ratios(
    fast: Sequence[Followed], slow: Sequence[Followed], thresholds: Sequence[float], looks: int
) -> list[dict[str, Any]]:
    """Return the looks until each passes, and their ratio."""
    rows = []
    for a, b, threshold in zip(fast, slow, thresholds):
        passed = [f.passed(threshold) for f in (a, b)]
        counted = [looks if p is None else p for p in passed]
        rows.append({
            "inherited": passed[0], "scratch": passed[1], "ratio": counted[0] / counted[1],
            "threshold": round(threshold, 4), "inherited_last": a.last, "scratch_last": b.last,
        })  # fmt: skip
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rows say together."""
    return {
        "median": float(np.median([r["ratio"] for r in rows])),
        "never_inherited": sum(r["inherited"] is None for r in rows),
        "never_scratch": sum(r["scratch"] is None for r in rows),
        "inherited_accuracy": float(np.mean([r["inherited_last"] for r in rows])),
        "scratch_accuracy": float(np.mean([r["scratch_last"] for r in rows])),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, help="in place of the best of those tried")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("fashion-mnist")
    space = conv(input_shape=(1, 28, 28), widths=HALF_WIDTHS)
    recipe = Recipe(batch_size=128, epochs=given.epochs, weight_decay=2e-4, ema=0.99)
    rate, tried = (given.rate, {}) if given.rate else best_rate(space, task, recipe)
    recipe = recipe.with_(lr=rate)
    print(json.dumps({"rate": rate, "tried": tried}), flush=True)
    looks, grown, shrunk, parents_last = given.epochs * LOOKS, [], [], []
    for seed in given.seeds:
        pairs = drawn(space, task, given.pairs, seed)
        back = [(child, parent) for parent, child in pairs]
        parents = scratch(space, [parent for parent, _ in pairs], task, recipe, seed)
        children = scratch(space, [child for _, child in pairs], task, recipe, seed)
        parents_last += [p.last for p in parents]
        heirs = inherited(space, pairs, parents, task, recipe, seed)
        rows = ratios(heirs, children, [p.last + MARGIN for p in parents], looks)
        print(json.dumps({"seed": seed, "grown": rows}), flush=True)
        grown += rows
        smaller = inherited(space, back, children, task, recipe, seed)
        rows = ratios(smaller, parents, [p.last for p in parents], looks)
        print(json.dumps({"seed": seed, "shrunk": rows}), flush=True)
        shrunk += rows
    values = [row["ratio"] for row in grown]
    report(
        "inherit_speed", float(np.median(values)), "ratio", "<= 0.2", interval(values),
        pairs=given.pairs, seeds=given.seeds, epochs=given.epochs, rate=rate,
        parents_accuracy=float(np.mean(parents_last)), grown=summary(grown),
        shrunk=summary(shrunk), rows=grown,
    )  # fmt: skip


if __name__ == "__main__":
    main()
