"""A task on other samples: less data, each class alike, at a lower resolution; or two halves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.train.splits import Batch, InMemory, Split, Streamed, map_tensors
from assay.train.task import Task

__all__ = ["halved", "proxy_task"]

_Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class _Resized:
    """A split whose images are scaled, batch by batch, on the device that they are used on."""

    def __init__(self, split: Split, factor: float) -> None:
        self.split = split
        self.factor = factor

    def __len__(self) -> int:
        return len(self.split)

    @property
    def num_batches(self) -> int | None:
        """Batches of an epoch, where the split has its own; else None."""
        return getattr(self.split, "num_batches", None)

    def train_batches(
        self, size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        for inputs, targets in self.split.train_batches(
            size, seed=seed, start=start, device=device
        ):
            yield map_tensors(inputs, self._resize), targets

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        for inputs, targets in self.split.batches(size, device=device, limit=limit):
            yield map_tensors(inputs, self._resize), targets

    def _resize(self, images: Tensor) -> Tensor:
        """Average over areas; tensors that are no images `[N, C, H, W]` stay."""
        if images.ndim != 4 or not images.is_floating_point():
            return images
        size = [max(1, round(self.factor * side)) for side in images.shape[2:]]
        return F.interpolate(images, size=size, mode="area")


def proxy_task(
    task: Task,
    *,
    data: float = 1.0,
    resolution: float = 1.0,
    augment: bool = True,
    seed: int = 0,
) -> Task:
    """Return a task with a share of the training samples and images of a share of the side.

    The validation split keeps its samples, and the test split is left out: a proxy opens none.
    The returned task shares the tensors of the given one where it can.

    Args:
        task: The task proper; itself is returned where nothing is made smaller.
        data: Share of the training samples, in (0, 1]; of classes in memory each alike.
        resolution: Share of the side of images `[N, C, H, W]`, in (0, 1]. An augmentation that has
            a method `scaled(resolution)` is replaced by what this returns.
        augment: Whether training batches are augmented as the task's own.
        seed: Names the samples kept.
    Raises:
        InvalidSetting: a share out of range, or fewer samples asked of a DataLoader.
    """
    for name, value in (("data", data), ("resolution", resolution)):
        if not 0 < value <= 1:
            raise InvalidSetting(f"{name}={value!r} is a share: give more than 0 and at most 1")
    augmentation = task.augment if augment else None
    if data == 1 and resolution == 1 and augmentation is task.augment:
        return task
    train, valid = task.train, task.valid
    if data < 1:
        train = _fewer(train, data, seed, classes=task.classes)
    if resolution < 1:
        train, valid = _Resized(train, resolution), _Resized(valid, resolution)
        scaled = getattr(augmentation, "scaled", None)
        augmentation = augmentation if scaled is None else scaled(resolution)
    return Task(
        train, valid, loss=None if task.classes else task.loss, metrics=task.metrics,
        score=task.score, augment=augmentation, name=f"{task.name} (proxy)",
        num_classes=task.num_classes, class_names=task.class_names,
    )  # fmt: skip


def halved(task: Task, *, seed: int = 0) -> Task:
    """Return a task that trains on one half of the training samples and validates on the other.

    Of classes in memory each is divided alike. The validation and test splits are left out.

    Args:
        task: The task proper.
        seed: Names the halves.
    Raises:
        InvalidSetting: a DataLoader, or too few samples to divide.
    """
    kept = _chosen(task.train, 0.5, seed, task.classes)
    left = np.setdiff1d(np.arange(len(task.train)), kept)
    if len(left) < 2:
        num = len(task.train)
        raise InvalidSetting(f"the training split has {num} samples, too few for two halves")
    return task.over(_taken(task.train, kept), _taken(task.train, left))


def _fewer(split: Split, share: float, seed: int, *, classes: bool) -> Split:
    return _taken(split, _chosen(split, share, seed, classes))


def _taken(split: Split, numbers: _Numbers) -> Split:
    """Return the samples of some numbers, in order."""
    if isinstance(split, _Resized):
        return _Resized(_taken(split.split, numbers), split.factor)
    if isinstance(split, InMemory):
        kept = torch.from_numpy(numbers)
        inputs: Any = map_tensors(split.inputs, lambda t: t[kept])
        return InMemory(inputs, split.targets[kept], split.prepare)
    assert isinstance(split, Streamed)
    return Streamed(torch.utils.data.Subset(split.dataset, numbers.tolist()))


def _chosen(split: Split, share: float, seed: int, classes: bool) -> _Numbers:
    """Return the numbers of the samples kept, in order; of classes at least one of each.

    Raises:
        InvalidSetting: the samples of this split have no numbers.
    """
    if isinstance(split, _Resized):
        return _chosen(split.split, share, seed, classes)
    if not isinstance(split, InMemory | Streamed):
        raise InvalidSetting(
            f"a share of {share:g} needs samples that can be chosen by number, but the training "
            f"split is a {type(split).__name__}; give the Task a Dataset or arrays"
        )
    rng = derive(seed, "fewer samples")
    groups = [np.arange(len(split))]
    if classes and (labels := _labels(split)) is not None:
        groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    fewest = 2 if len(groups) == 1 else 1  # from one sample nothing is learned
    kept = [rng.permutation(group)[: max(fewest, round(share * len(group)))] for group in groups]
    return np.sort(np.concatenate(kept))


def _labels(split: InMemory | Streamed) -> _Numbers | None:
    """Return the class of each sample, where it is known without reading the samples.

    Of a data set that is read sample by sample by its `targets`, as those of torchvision have them.
    """
    told: Any = split.targets if isinstance(split, InMemory) else None
    if isinstance(split, Streamed):
        told = getattr(split.dataset, "targets", None)
    try:
        labels = np.asarray(told)
    except (TypeError, ValueError):  # targets of another kind
        return None
    known = labels.shape == (len(split),) and labels.dtype.kind in "iu"
    return labels.astype(np.int64) if known else None
