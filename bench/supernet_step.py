"""One training step of a supernet's path ÷ one step of the same network alone.

    python -m bench.supernet_step                # paths of `mobile`
    python -m bench.supernet_step --space cell   # NAS-Bench-201, as `one-shot` trains it

Both train the same network, by steps in turn.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch

from assay.cost import derive
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.supernet import Supernet
from assay.zoo.cell import arch_string, cell
from assay.zoo.mobile import mobile
from bench.harness import PAIRS, interval, paired_ratios, report

BATCH, STEPS = 64, 4
SHAPES = {"mobile": (1, 28, 28), "cell": (3, 16, 16)}


class OnePath:
    """The same architecture at every step, so that both sides train the same network."""

    def __init__(self, architecture):
        self.architecture = architecture

    def passes(self, space, step, *, rng):
        return [self.architecture]


def widths(point):
    return str([option for label, option in point.items() if label.endswith("width")])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", choices=SHAPES, default="mobile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape, named = SHAPES[given.space], widths if given.space == "mobile" else arch_string
    rng = derive(0, "bench")
    images = rng.integers(0, 256, (4 * BATCH, *shape), dtype=np.uint8)
    labels = np.arange(4 * BATCH) % 10
    task = Task.from_arrays(images, labels, layout="NCHW")
    recipe = Recipe(batch_size=BATCH, schedule="constant")
    make = mobile if given.space == "mobile" else partial(cell, cells=1)
    space = make(input_shape=shape, num_classes=10)
    ratios, each = [], {}
    for _ in range(PAIRS):
        point = space.sample(rng)
        net = Supernet(space, paths=OnePath(point))
        shared = net.trainer(task, recipe, steps=10**6)
        alone = Trainer(space.build(point), task, recipe, steps=10**6)
        found = paired_ratios(lambda t=shared: t.run(STEPS), lambda t=alone: t.run(STEPS), pairs=5)
        ratios.append(float(np.median(found)))
        each[named(point)] = round(ratios[-1], 3)
    report(
        "supernet_step", float(np.median(ratios)), "ratio", "<= 1.03", interval(ratios),
        space=given.space, pairs=len(ratios), batch=BATCH, shape=list(shape),
        worst=round(max(ratios), 4), each=each,
    )  # fmt: skip


if __name__ == "__main__":
    main()
