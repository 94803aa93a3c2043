"""Scores of many paths of a supernet, each shared beginning computed once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from assay.architecture import Architecture
from assay.space.space import Space
from assay.train.task import Batch, Tally, Task
from assay.weights.norms import NormMode, Norms
from assay.weights.prefix import PrefixWalk

__all__ = ["score_paths"]


def score_paths(
    space: Space,
    architectures: Sequence[Architecture],
    task: Task,
    *,
    valid: Sequence[Batch],
    calibration: Sequence[Batch] = (),
    norms: NormMode = "recalibrate",
    shared: bool = True,
) -> list[dict[str, float]]:
    """Judge paths with the weights as they are; nothing in the model changes.

    Args:
        space: The space whose model holds the shared weights.
        architectures: The paths.
        task: Names the loss and the metrics.
        valid: Batches `(inputs [N, ...], targets [N, ...])` to judge on, on the model's device.
        calibration: Training batches from which norm statistics are measured for each path.
        norms: "recalibrate" measures statistics on `calibration`; "batch" lets every batch be
            normalised by itself.
        shared: Compute beginnings that paths have in common once (see `PrefixWalk`).
    Returns:
        For each path "loss" and the task's metrics: means over the samples of `valid`.
    """
    walk = PrefixWalk(space, shared=shared)
    statistics = Norms(space.model, walk.prefix if shared else lambda: walk.path)
    mode = space.model.training
    space.model.eval()
    tallies = [Tally(task) for _ in architectures]
    try:
        with torch.no_grad(), walk.installed():
            if norms == "recalibrate" and statistics:
                with statistics.measuring():
                    for inputs, _ in calibration:
                        walk.population(architectures, inputs, _ignore)
            with _normalised(statistics, norms):
                for inputs, targets in valid:

                    def visit(i: int, output: Any, targets: Any = targets) -> None:
                        tallies[i].add(output, targets)

                    walk.population(architectures, inputs, visit)
    finally:
        space.model.train(mode)
    return [tally.means() for tally in tallies]


def _normalised(statistics: Norms, norms: NormMode) -> Any:
    if not statistics:
        return nullcontext()
    return statistics.by_batch() if norms == "batch" else statistics.using()


def _ignore(index: int, output: Any) -> None:
    """Calibration looks at no output."""
