"""Splits of a data set: endless training batches that can start anywhere, and one pass.

The batch of a step is a function of (seed, step) alone, so a resumed training sees what the
uninterrupted one would have seen. Where a user's own code draws while it reads a sample, its
draws from torch's, NumPy's and Python's global generators are made a function of these too.
"""

from __future__ import annotations

import math
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from assay.cost import derive
from assay.errors import InvalidTask

__all__ = [
    "Batch",
    "InMemory",
    "Inputs",
    "Loaded",
    "Split",
    "Stream",
    "Streamed",
    "drawing",
    "evened",
    "leaves",
    "map_tensors",
]

Inputs: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor]"
"""What a network is called with: each tensor `[N, ...]`."""

Batch: TypeAlias = "tuple[Inputs, Tensor]"
"""Inputs and targets, each `[N, ...]`."""

Prepare: TypeAlias = Callable[[Any], Any]

_MOST_BYTES_ON_ACCELERATOR = 2 << 30


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
        """Yield `limit` samples (by default all) once, always the same in the same order.

        No batch has more than `size` samples, unless the split has batches of its own.
        """
        ...


class _Indexed(ABC):
    """Batches by index, for splits that can fetch any samples."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, indices: Tensor, device: str, *names: object) -> Batch:
        """Return the samples of some indices `[n]`; the names say whose draws reading them makes.

        Args:
            indices: Numbers of samples.
            device: Torch device of the batch.
            names: Of the draws, see `assay.cost.derive`.
        """

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
            indices = torch.from_numpy(order[i * size : (i + 1) * size])
            yield self.fetch(indices, device, seed, step)
            step += 1

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """See `Split`; mixed, since data often comes sorted by class, in batches of even sizes."""
        order = derive(0, "pass").permutation(len(self))[:limit]
        if not len(order):
            return
        for i, numbers in enumerate(np.array_split(order, math.ceil(len(order) / size))):
            yield self.fetch(torch.from_numpy(numbers), device, 0, i)


class InMemory(_Indexed):
    """Tensors in memory; small images stay uint8 there and become floats on the device.

    An accelerator gets a copy of its own, once, of sets up to 2 GiB.

    Args:
        inputs: `[N, ...]`, or a tuple or dict of such.
        targets: `[N, ...]`.
        prepare: Applied to the inputs of a batch on the device, such as normalisation; by default
            uint8 becomes floats in 0 to 1, and floats become float32.
    """

    def __init__(self, inputs: Any, targets: Tensor, prepare: Prepare | None = None) -> None:
        self.inputs = inputs
        self.targets = targets
        self.prepare: Prepare = prepare if prepare is not None else _floats
        self._copies: dict[str, tuple[Any, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the copies behind: they can be made anew wherever it is sent."""
        return {**self.__dict__, "_copies": {}}

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, indices: Tensor, device: str, *names: object) -> Batch:
        """Return the samples of some indices `[n]`; nothing is drawn."""
        inputs, targets = self._near(device)
        indices = indices.to(targets.device)
        chosen = map_tensors(inputs, lambda t: t.index_select(0, indices).to(device))
        return self.prepare(chosen), _targets(targets.index_select(0, indices).to(device))

    def _near(self, device: str) -> tuple[Any, Tensor]:
        here = (self.inputs, self.targets)
        if device == "cpu" or device in self._copies:
            return self._copies.get(device, here)
        if sum(t.nbytes for t in leaves(here)) > _MOST_BYTES_ON_ACCELERATOR:
            return here
        self._copies[device] = (_moved(self.inputs, device), self.targets.to(device))
        return self._copies[device]


class Streamed(_Indexed):
    """A map-style data set that is read sample by sample, for what does not fit into memory.

    Args:
        dataset: Its items are `(inputs, target)`.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def fetch(self, indices: Tensor, device: str, *names: object) -> Batch:
        """Return the samples of some indices `[n]`; what reading them draws is fixed by `names`."""
        with drawing(*names):
            inputs, targets = default_collate([self.dataset[int(i)] for i in indices])
        return _ready(inputs, targets, device)


class Loaded:
    """A DataLoader of the user's own; its order and the size of its batches are its own.

    Its draws (shuffling, the base seed of its workers, a generator that it was given) are fixed by
    seed and epoch. A resumed epoch is read again up to where it was. This is exact unless a
    sampler keeps a state of its own from epoch to epoch.

    Args:
        loader: Its batches are `(inputs, targets)`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        """Return the samples of an epoch, where the loader groups them itself.

        Otherwise (a batch sampler of the user's own, or none) only the data set's length is known.
        """
        loader = self.loader
        groups = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        sampler = getattr(groups, "sampler", None)
        if not isinstance(groups, BatchSampler) or not isinstance(sampler, Sized):
            return len(loader.dataset)  # type: ignore[arg-type]
        num = len(sampler)
        return num - num % groups.batch_size if groups.drop_last else num

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return len(self.loader)

    def sample(self, number: int) -> Batch:
        """Return a sample of the data set as the batch that the loader makes of it alone."""
        loader = self.loader
        with drawing():
            item = loader.dataset[number]
            batch = loader.collate_fn(item if loader.batch_sampler is None else [item])
        inputs, targets = batch
        return _ready(inputs, targets, "cpu")

    def train_batches(
        self, size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        """See `Split`; the loader is begun anew whenever it ends, and `size` is not heeded.

        Raises:
            InvalidTask: an epoch has fewer batches than the loader's length says.
        """
        num = self.num_batches
        epoch, skipped = divmod(start, num)
        while True:
            read = 0
            for read, (inputs, targets) in enumerate(self._epoch(seed, epoch), 1):
                if read > skipped:
                    yield _ready(inputs, targets, device)
            if read < num:
                raise InvalidTask(
                    f"an epoch of the DataLoader has {read} batches, and its length is {num}; let "
                    "len() of its batch sampler or sampler tell what it yields"
                )
            epoch, skipped = epoch + 1, 0

    def batches(
        self, size: int, *, device: str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """See `Split`; `size` is not heeded."""
        left = sys.maxsize if limit is None else limit
        for some, classes in self._epoch(0, 0):
            if left <= 0:
                return
            inputs, targets = _ready(some, classes, device)
            n = min(left, len(targets))
            yield map_tensors(inputs, lambda t, n=n: t[:n]), targets[:n]  # type: ignore[misc]
            left -= n

    def _epoch(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yield the loader's batches of one epoch, all its draws fixed by seed and epoch."""
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(int(derive(seed, "loader", epoch).integers(2**62)))
        groups = self.loader.batch_sampler
        told = (self.loader.sampler, groups, getattr(groups, "sampler", None))
        for sampler in {id(one): one for one in told}.values():  # each once
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        with drawing(seed, "loader", epoch):
            batches = iter(self.loader)
        for i in range(len(self.loader)):
            with drawing(seed, "loader", epoch, i):  # samplers draw when the first is asked for
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class Stream:
    """Batches of a split by number; those in order come from one iterator."""

    def __init__(self) -> None:
        self._next = -1
        self._batches: Iterator[Batch] = iter(())

    def at(self, number: int, split: Split, size: int, seed: int, device: str) -> Batch:
        """Return a batch of at most so many samples."""
        if number != self._next:
            size = min(size, len(split))
            self._batches = split.train_batches(size, seed=seed, start=number, device=device)
        self._next = number + 1
        return next(self._batches)


def evened(batches: Iterable[Batch], size: int) -> list[Batch]:
    """Return the same samples, in order, in batches whose sizes differ by at most one.

    So none has too few samples for statistics of its own. Samples that differ in shape from batch
    to batch cannot be put together, and stay as they are.

    Args:
        batches: `(inputs [N, ...], targets [N, ...])`.
        size: Most samples of a batch; where it is one or two, up to three, since none has a
            single sample where there are more.
    """
    given = list(batches)
    num = sum(len(targets) for _, targets in given)
    count = max(1, min(math.ceil(num / size), num // 2))
    wanted = [num // count + (i < num % count) for i in range(count)]
    shapes = {tuple(t.shape[1:] for t in leaves(batch)) for batch in given}
    if len(shapes) != 1 or [len(targets) for _, targets in given] == wanted:
        return given
    inputs, targets = _joined(given)
    ends = np.cumsum(wanted).tolist()
    return [
        (map_tensors(inputs, lambda t, a=a, b=b: t[a:b]), targets[a:b])  # type: ignore[misc]
        for a, b in zip([0, *ends], ends)
    ]


def _joined(parts: Sequence[Any]) -> Any:
    """Put the samples of several inputs, or batches, of one structure one after the other."""
    first = parts[0]
    if isinstance(first, tuple | list):
        return tuple(_joined(items) for items in zip(*parts))
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in first}
    return torch.cat(list(parts))


def map_tensors(inputs: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """Apply f to a tensor `[N, ...]`, or to each of a tuple or dict of tensors."""
    if isinstance(inputs, tuple | list):
        return tuple(map_tensors(item, f) for item in inputs)
    if isinstance(inputs, Mapping):  # such as a tokenizer's
        return {key: map_tensors(item, f) for key, item in inputs.items()}
    return f(inputs)


def leaves(inputs: Any) -> Iterator[Tensor]:
    """Yield the tensors `[N, ...]` of a tensor, tuple or dict, in order."""
    if isinstance(inputs, tuple | list | Mapping):
        for item in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from leaves(item)
    else:
        yield inputs


def _ready(inputs: Any, targets: Any, device: str) -> Batch:
    """Return a batch that a user's code made, on a device.

    Raises:
        InvalidTask: the targets are several tensors, or not as many as the samples.
    """
    if any(isinstance(t, Tensor) and t.ndim for t in leaves(targets) if t is not targets):
        raise InvalidTask(
            f"targets are a {type(targets).__name__} of tensors; give targets as one tensor, such "
            "as torch.stack(..., -1)"
        )
    moved = _moved(map_tensors(inputs, torch.as_tensor), device)
    wanted = _targets(torch.as_tensor(targets).to(device))
    for tensor in leaves(moved):
        if tensor.shape[:1] != wanted.shape[:1]:
            raise InvalidTask(
                f"a batch has inputs {tuple(tensor.shape)} and targets {tuple(wanted.shape)}; both "
                "must begin with the number of samples"
            )
    return _floats(moved), wanted


def _moved(inputs: Any, device: str) -> Any:
    return map_tensors(inputs, lambda t: t.to(device))


def _floats(inputs: Any) -> Any:
    """Make uint8 floats in 0 to 1, and floats torch's default type; other integers stay."""
    return map_tensors(inputs, _float)


def _float(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.get_default_dtype()).div_(255.0)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _targets(targets: Tensor) -> Tensor:
    """Make floats torch's default type, and classes and masks int64."""
    return targets.to(torch.get_default_dtype() if targets.is_floating_point() else torch.int64)


@contextmanager
def drawing(*names: object) -> Iterator[None]:
    """Within: the global generators are at a state fixed by the names; after, where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    draw = int(derive(0, "reading", *names).integers(2**32))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw)
            random.seed(draw)
            np.random.seed(draw)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
