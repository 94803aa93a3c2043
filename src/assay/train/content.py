"""What a task is made of, as a digest: equal content, equal digest, in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from assay.train.splits import InMemory, Loaded, Split, Streamed, leaves
from assay.train.teller import Teller, bytes_of

__all__ = ["digest_of", "named", "written"]


def digest_of(*parts: Any) -> str:
    """Return a hex digest of splits, and of anything else by its `repr`.

    A split in memory counts with all its bytes; a data set that is streamed or loaded with its
    length and its first and last sample, as they come in batches; a split of the user's own with
    its length.

    Args:
        parts: Splits, and values whose `repr` is the same in every process.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if not hasattr(part, "train_batches"):
            digest.update(repr(part).encode())
            continue
        digest.update(f"{type(part).__name__} of {len(part)}".encode())
        for tensor in _tensors(part):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(bytes_of(tensor))
    return digest.hexdigest()


def named(thing: Any) -> str:
    """Return what names a callable in every process: where it is defined, and its settings.

    A function that was made within another has no name of its own and goes by what it does and
    what it captured; a module also by its state, such as the weights of classes in a loss.
    """
    return Teller().told(thing)


def written(kind: type, teller: Teller | None = None) -> list[Any]:
    """Return what the methods of a class do; what documents them does not count.

    Args:
        kind: The class; what decorates a method counts beside the method itself.
        teller: Tells their defaults and what they captured; by default as for a task.
    """
    teller = teller or Teller()
    parts = [getattr(part, "fget", None) or getattr(part, "__func__", part)
             for part in vars(kind).values()]  # fmt: skip
    methods = {part.__name__: part for part in parts if isinstance(part, FunctionType)}
    return [[name, *teller.does(function)]
            for name, m in sorted(methods.items()) for function in _undressed(m)]  # fmt: skip


def _undressed(function: Any) -> Iterator[FunctionType]:
    while isinstance(function, FunctionType):
        yield function
        function = getattr(function, "__wrapped__", None)


def _tensors(split: Split) -> list[Tensor]:
    if isinstance(split, InMemory):
        settings = getattr(split.prepare, "__dict__", {})
        constants = [v for v in settings.values() if isinstance(v, Tensor)]
        return [*leaves(split.inputs), split.targets, *constants]
    if isinstance(split, Streamed):
        return list(leaves([split.fetch(torch.tensor([i]), "cpu") for i in _ends(split)]))
    if isinstance(split, Loaded):
        return list(leaves([split.sample(i) for i in _ends(split.loader.dataset)]))
    return []


def _ends(numbered: Any) -> tuple[int, int]:
    return 0, len(numbered) - 1
