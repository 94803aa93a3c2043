"""Splits of a data set: endless training batches that can start anywhere, and one pass in order.

The batch of a step is a function of (seed, step) alone, so a resumed training sees what the
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from assay.cost import derive

__all__ = ["Batch", "InMemory", "Inputs", "Loaded", "Split", "Streamed"]

Inputs: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor]"
"""What a network is called with: each tensor `[N, ...]`."""

Batch: TypeAlias = "tuple[Inputs, Tensor]"
"""Inputs and targets, each `[N, ...]`."""

Prepare: TypeAlias = Callable[[Any], Any]


class Split(Protocol):
    """A set of samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def train_batches(
        self, size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        """Yield batches without end, shuffled anew each epoch, from step `start` on."""
        ...

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """Yield the first `limit` samples (by default all) once, in order."""
        ...


class _Indexed:
    """Batches by index, for splits that can fetch any samples."""

    prepare: Prepare

    def __len__(self) -> int:
        raise TypeError  # pragma: no cover - abstract

    def fetch(self, indices: Tensor, device: str) -> Batch:
        """Return the samples of some indices."""
        raise TypeError  # pragma: no cover - abstract

    def train_batches(
        self, size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        """See `Split`; the samples that do not fill a batch are left out of an epoch."""
        size = min(size, len(self))
        per_epoch = len(self) // size
        step, order = start, np.empty(0, dtype=np.int64)
        while True:
            epoch, i = divmod(step, per_epoch)
            if i == 0 or order.size == 0:
                order = derive(seed, "order", epoch).permutation(len(self))
            yield self.fetch(torch.from_numpy(order[i * size : (i + 1) * size]), device)
            step += 1

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """See `Split`."""
        end = len(self) if limit is None else min(limit, len(self))
        for start in range(0, end, size):
            yield self.fetch(torch.arange(start, min(start + size, end)), device)


class InMemory(_Indexed):
    """Tensors in memory; small images stay uint8 there and become floats on the device.

    Args:
        inputs: `[N, ...]`, or a tuple or dict of such.
        targets: `[N, ...]`.
        prepare: Applied to the inputs of a batch on the device, such as normalisation.
    """

    def __init__(self, inputs: Any, targets: Tensor, prepare: Prepare = lambda x: x) -> None:
        self.inputs = inputs
        self.targets = targets
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, indices: Tensor, device: str) -> Batch:
        """Return the samples of some indices."""
        inputs = map_tensors(self.inputs, lambda t: t[indices].to(device))
        return self.prepare(inputs), self.targets[indices].to(device)


class Streamed(_Indexed):
    """A map-style data set that is read sample by sample.

    Args:
        dataset: Its items are `(inputs, target)`.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def fetch(self, indices: Tensor, device: str) -> Batch:
        """Return the samples of some indices."""
        inputs, targets = default_collate([self.dataset[int(i)] for i in indices])
        return _moved(inputs, device), torch.as_tensor(targets).to(device)


class Loaded:
    """A DataLoader of the user's own; its order and batch size are its own.

    Resuming reads past the batches that were seen, and is exact if the loader repeats itself.

    Args:
        loader: Its batches are `(inputs, targets)`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def train_batches(
        self, size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        """See `Split`; the loader is begun anew whenever it ends."""
        step = 0
        while True:
            for inputs, targets in self.loader:
                if step >= start:
                    yield _moved(inputs, device), targets.to(device)
                step += 1

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """See `Split`."""
        left = len(self) if limit is None else limit
        for inputs, targets in self.loader:
            if left <= 0:
                return
            n = min(left, len(targets))
            cut = map_tensors(_moved(inputs, device), lambda t, n=n: t[:n])  # type: ignore[misc]
            yield cut, targets[:n].to(device)
            left -= n


def map_tensors(inputs: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """Apply f to a tensor, or to each of a tuple or dict of tensors."""
    if isinstance(inputs, tuple | list):
        return tuple(map_tensors(item, f) for item in inputs)
    if isinstance(inputs, dict):
        return {key: map_tensors(item, f) for key, item in inputs.items()}
    return f(inputs)


def _moved(inputs: Any, device: str) -> Any:
    return map_tensors(inputs, lambda t: t.to(device))
