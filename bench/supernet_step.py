"""One training step of a path of the `mobile` supernet ÷ one step of the same network alone."""

from __future__ import annotations

import numpy as np
import torch

from assay.cost import derive
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.supernet import Supernet
from assay.zoo.mobile import mobile
from bench.harness import PAIRS, interval, paired_ratios, report

SHAPE, BATCH, STEPS = (1, 28, 28), 64, 4


class OnePath:
    """The same architecture at every step, so that both sides train the same network."""

    def __init__(self, architecture):
        self.architecture = architecture

    def passes(self, space, step, *, rng):
        return [self.architecture]


def main() -> None:
    torch.set_num_threads(1)
    rng = derive(0, "bench")
    images = rng.integers(0, 256, (4 * BATCH, *SHAPE), dtype=np.uint8)
    labels = np.arange(4 * BATCH) % 10
    task = Task.from_arrays(images, labels, layout="NCHW")
    recipe = Recipe(batch_size=BATCH, schedule="constant")
    space = mobile(input_shape=SHAPE, num_classes=10)
    ratios, by_width = [], {}
    for _ in range(PAIRS):
        point = space.sample(rng)
        net = Supernet(space, paths=OnePath(point))
        shared = net.trainer(task, recipe, steps=10**6)
        alone = Trainer(space.build(point), task, recipe, steps=10**6)
        found = paired_ratios(lambda t=shared: t.run(STEPS), lambda t=alone: t.run(STEPS), pairs=5)
        ratios.append(float(np.median(found)))
        open_sizes = [v for k, v in point.items() if k.endswith("width")]
        by_width[str(open_sizes)] = round(ratios[-1], 3)
    report(
        "supernet_step", float(np.median(ratios)), "ratio", "<= 1.03", interval(ratios),
        pairs=len(ratios), batch=BATCH, shape=list(SHAPE), worst=round(max(ratios), 4),
        by_width=by_width,
    )  # fmt: skip


if __name__ == "__main__":
    main()
