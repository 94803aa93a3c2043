"""Scores of many paths of a supernet, each shared beginning computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.architecture import Architecture
from assay.errors import InvalidSetting
from assay.space.space import Space
from assay.train.modes import evaluating
from assay.train.task import Batch, Tally, Task
from assay.weights.norms import NormMode, Norms
from assay.weights.prefix import PrefixWalk

__all__ = ["predictions", "score_paths"]


def score_paths(
    space: Space,
    architectures: Sequence[Architecture],
    task: Task,
    *,
    valid: Sequence[Batch],
    calibration: Sequence[Batch] = (),
    norms: NormMode = "recalibrate",
    shared: bool = True,
    guide: Sequence[Tensor] = (),
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
        guide: What the paths' logits `[N, C, ...]` are held against: probabilities of the same
            shape for each batch of `valid`, as `predictions` returns them.
    Returns:
        For each path "loss" and the task's metrics: means over the samples of `valid`. With a guide
        also "agreement": the mean log probability that the path gives to a class drawn from the
        guide's prediction, so the negative cross-entropy of the two.
    Raises:
        InvalidSetting: norms are to be measured, and there is no batch to do it on, or one with a
            single value for each channel.
    """
    tallies = [Tally(task) for _ in architectures]
    agreed = [0.0] * len(architectures)

    def judge(i: int, batch: int, output: Any) -> None:
        targets = valid[batch][1]
        tallies[i].add(output, targets)
        if guide:
            agreed[i] -= float(F.cross_entropy(output, guide[batch])) * len(targets)

    _run(space, architectures, judge, valid, calibration, norms, shared)
    means = [tally.means() for tally in tallies]
    if not guide:
        return means
    samples = sum(len(targets) for _, targets in valid)
    return [{**each, "agreement": total / samples} for each, total in zip(means, agreed)]


def predictions(
    space: Space,
    architecture: Architecture,
    *,
    valid: Sequence[Batch],
    calibration: Sequence[Batch] = (),
    norms: NormMode = "recalibrate",
) -> list[Tensor]:
    """Return the class probabilities `[N, C, ...]` that a path gives for each batch of `valid`."""
    said: list[Tensor] = []

    def listen(index: int, batch: int, output: Tensor) -> None:
        said.append(output.softmax(1))

    _run(space, [architecture], listen, valid, calibration, norms, shared=False)
    return said


def _run(
    space: Space,
    architectures: Sequence[Architecture],
    visit: Callable[[int, int, Any], None],
    valid: Sequence[Batch],
    calibration: Sequence[Batch],
    norms: NormMode,
    shared: bool,
) -> None:
    """Run paths on each batch; visit(path, batch, output) is called as each is done."""
    walk = PrefixWalk(space, shared=shared)
    statistics = Norms(space.model, walk.prefix if shared else lambda: walk.path)
    with torch.no_grad(), evaluating(space.model), walk.installed():
        if norms == "recalibrate" and statistics:
            _measure(statistics, walk, architectures, calibration)
        with _normalised(statistics, norms):
            for batch, (inputs, _) in enumerate(valid):

                def seen(i: int, output: Any, batch: int = batch) -> None:
                    visit(i, batch, output)

                walk.population(architectures, inputs, seen)


def _measure(
    statistics: Norms,
    walk: PrefixWalk,
    architectures: Sequence[Architecture],
    calibration: Sequence[Batch],
) -> None:
    """Measure statistics; anew where meanwhile a decision was found that no forward shows.

    Every prefix begins with it from there on, so what was measured before is under other keys.
    """
    if not calibration:
        raise InvalidSetting(
            "norms='recalibrate' measures statistics, and no batches are given to do it on; give "
            "calibration=, or norms='batch'"
        )
    known = -1
    while known < walk.num_unseen:
        known = walk.num_unseen
        with statistics.measuring():
            for inputs, _ in calibration:
                walk.population(architectures, inputs, _ignore)


def _normalised(statistics: Norms, norms: NormMode) -> Any:
    if not statistics:
        return nullcontext()
    return statistics.by_batch() if norms == "batch" else statistics.using()


def _ignore(index: int, output: Any) -> None:
    """Calibration looks at no output."""
