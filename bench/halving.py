"""Halving against training every candidate whole: what it costs, and what it loses.

    python -m bench.halving                           # 27 networks, 2 repeats, about 40 minutes
    python -m bench.halving --num 9 --repeats 1 --epochs 1    # to see that it runs

On Fashion-MNIST, of 27 random networks of the space `conv`. The truth of each is its validation
accuracy by the whole recipe, the mean over two seeds. Then successive halving, Hyperband and ASHA
look for the best of them by the estimator `low-fidelity` at the whole length, and so does training
all 27 at that length, once for each repeat. `value` is the samples that halving trains on ÷ those
of training all; `regret` is the best truth less the truth of the pick, in points of accuracy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture
from assay.contracts import Context, History, Proposal, Trial
from assay.cost import derive
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.scratch import Scratch
from assay.executors.processes import Processes
from assay.space.space import Space
from assay.strategies.halving import ASHA, Halving, Hyperband
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.zoo.conv import conv
from bench.harness import HALF_WIDTHS, interval, report

STRATEGIES = {"halving": Halving, "hyperband": Hyperband, "asha": ASHA}


class Few:
    """A space of which only some architectures are drawn."""

    def __init__(self, space: Space, points: Sequence[Architecture]) -> None:
        self._space = space
        self._points = points

    def sample(self, rng: np.random.Generator) -> Architecture:
        return self._points[int(rng.integers(len(self._points)))]

    def canonical(self, architecture: Architecture) -> Architecture:
        return self._space.canonical(architecture)


def climbed(
    ctx: Context, strategy: Halving | Hyperband | ASHA, points: Sequence[Architecture]
) -> tuple[Architecture, int]:
    """Return what a strategy picks in one cycle of its rungs, and the samples that took."""
    estimator = LowFidelity(share=1.0, variant={}, resolution=1.0)
    history, samples = History(Few(ctx.space, points)), 0  # type: ignore[arg-type]
    num = sum(n for n, _ in strategy.rungs)
    for attempt in range(400):
        asked = strategy.ask(history, num - len(history), rng=derive(ctx.seed, "ask", attempt))
        new = {
            (p.architecture, p.fidelity): p
            for p in asked
            if history.seen(p.architecture, p.fidelity) is None
        }
        proposals = list(new.values())
        for p, e in zip(proposals, estimator.estimate(ctx, proposals)):
            history.append(
                Trial(
                    len(history), p.architecture, "scored", e, objectives=(e.score,),
                    parent=p.parent, fidelity=p.fidelity,
                )
            )  # fmt: skip
            samples += e.cost.samples
        if len(history) == num:
            break
    longest = max(t.fidelity for t in history)
    best = max((t for t in history if t.fidelity == longest), key=lambda t: t.objectives)
    return best.architecture, samples


def all_trained(ctx: Context, points: Sequence[Architecture]) -> tuple[Architecture, int]:
    """Return the best of all, each trained whole, and the samples trained on."""
    estimator = LowFidelity(share=1.0, variant={}, resolution=1.0)
    told = estimator.estimate(ctx, [Proposal(a) for a in points])
    best = max(range(len(points)), key=lambda i: told[i].score)
    return points[best], sum(e.cost.samples for e in told)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=27)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("fashion-mnist")
    space = conv(input_shape=(1, 28, 28), widths=HALF_WIDTHS)
    recipe = Recipe(batch_size=128, epochs=given.epochs, weight_decay=2e-4)
    ctx = Context(space, task, recipe, Processes(), "cpu", 0, History(space))
    rng, drawn = derive(0, "candidates"), dict[Architecture, None]()
    while len(drawn) < given.num:
        drawn[space.canonical(space.sample(rng))] = None
    points = list(drawn)
    truths = {
        a: e.score
        for a, e in zip(points, Scratch(seeds=2).estimate(ctx, [Proposal(a) for a in points]))
    }
    most = max(truths.values())
    print(json.dumps({"truths": sorted(truths.values())}), flush=True)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("all", *STRATEGIES)}
    for repeat in range(given.repeats):
        again = replace(ctx, seed=100 + repeat)
        pick, whole = all_trained(again, points)
        rows["all"].append({"cost": 1.0, "regret": 100 * (most - truths[pick])})
        for name, kind in STRATEGIES.items():
            pick, samples = climbed(again, kind(), points)
            rows[name].append({"cost": samples / whole, "regret": 100 * (most - truths[pick])})
        print(json.dumps({"repeat": repeat, "rows": rows}), flush=True)
    costs = [row["cost"] for row in rows["halving"]]
    report(
        "halving", float(np.mean(costs)), "ratio", "stated", interval(costs, np.mean),
        num=given.num, epochs=given.epochs, spread=100 * (most - min(truths.values())), rows=rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
