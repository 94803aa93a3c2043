"""Milliseconds of each signal at initialisation, per cell network, on one thread."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.estimators.zero_cost import EIGHT
from assay.signals import SIGNALS, attempt
from assay.train.task import Task
from assay.zoo.cell import cell
from bench.harness import interval, report, seconds

SIDE, BATCH, NETWORKS, ROUNDS = 16, 32, 20, 3
UNBOUNDED = {"grasp", "zen", "fisher", "expressivity", "progressivity", "trainability"}


def networks() -> list[nn.Module]:
    """Return distinct random networks: one cell in each stage, 16 channels in the first."""
    space, rng = cell(input_shape=(3, SIDE, SIDE), cells=1), derive(0, "networks")
    points: dict[Architecture, None] = {}
    while len(points) < NETWORKS:
        points[space.canonical(space.sample(rng))] = None
    return [space.fresh(point, 0) for point in points]


def main() -> None:
    torch.set_num_threads(1)
    rng = derive(0, "images")
    images = rng.normal(size=(4 * BATCH, 3, SIDE, SIDE)).astype(np.float32)
    task = Task.from_arrays(images, np.arange(len(images)) % 10, layout="NCHW")
    batch, made = next(task.train.train_batches(BATCH, seed=0)), networks()

    def times_ms(names: tuple[str, ...]) -> list[float]:
        """Return for each network the median of some rounds, after a warm-up."""
        works = [functools.partial(attempt, n, names, batch=batch, task=task) for n in made]
        works[0]()
        rounds = [[1e3 * seconds(work) for work in works] for _ in range(ROUNDS)]
        return [float(v) for v in np.median(rounds, axis=0)]

    each = {name: times_ms((name,)) for name in SIGNALS}
    slowest = max(set(SIGNALS) - UNBOUNDED, key=lambda name: np.mean(each[name]))
    report(
        "zero_cost", float(np.mean(each[slowest])), "ms", "<= 30.0",
        interval(each[slowest], np.mean), slowest=slowest,
        ms={name: round(float(np.mean(times)), 2) for name, times in each.items()},
        eight_together_ms=round(float(np.mean(times_ms(EIGHT))), 2),
        networks=NETWORKS, side=SIDE, batch=BATCH,
    )  # fmt: skip


if __name__ == "__main__":
    main()
