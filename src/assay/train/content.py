"""What a task is made of, as a digest: equal content, equal digest, in every process."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from assay.options import options_of
from assay.train.splits import InMemory, Loaded, Split, Streamed, leaves

__all__ = ["digest_of", "named", "unplaced", "written"]


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
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def named(thing: Any) -> str:
    """Return what names a callable in every process: where it is defined, and its settings.

    A lambda has no name of its own and goes by what it does; a module also by its tensors, such as
    the weights of classes in a loss.
    """
    if isinstance(thing, functools.partial):
        return f"{named(thing.func)} with {_told(thing.args)} {_told(thing.keywords)}"
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(thing, FunctionType) and thing.__name__ == "<lambda>":
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        caught = [v for v in cells if isinstance(v, bool | int | float | str)]
        return f"{name} {digest_of(*_body(thing.__code__), _defaults(thing), caught)}"
    options = {} if kind is thing else options_of(thing)
    settings = [f"{key}={_told(value)}" for key, value in options.items()]
    if isinstance(thing, nn.Module) and thing.state_dict():
        settings.append(f"tensors={_digest_of_tensors(thing)}")
    return f"{name}({', '.join(settings)})" if settings else name


def unplaced(text: str) -> str:
    """Return a repr without the addresses of objects, which are others in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def written(kind: type) -> list[Any]:
    """Return what the methods of a class do; what documents them does not count."""
    parts = [getattr(part, "fget", None) or getattr(part, "__func__", part)
             for part in vars(kind).values()]  # fmt: skip
    methods = {part.__name__: part for part in parts if isinstance(part, FunctionType)}
    return [[name, _body(m.__code__, m.__doc__), _defaults(m)]
            for name, m in sorted(methods.items())]  # fmt: skip


def _defaults(function: FunctionType) -> str:
    """Return what the arguments of a function are by default, those by keyword included."""
    return f"{_told(function.__defaults__)} {_told(function.__kwdefaults__)}"


def _told(value: Any) -> str:
    """Return a value as text that is the same in each process; what can be called by its name."""
    if callable(value):
        return named(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{k!r}: {_told(v)}' for k, v in value.items()))}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_told, value))})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_told, value)))}}}"
    return unplaced(repr(value))


def _body(code: CodeType, doc: str | None = None) -> list[Any]:
    """Return what a function does: its instructions, the names and the constants in them."""
    constants = [
        _body(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset)
        else c for c in code.co_consts if doc is None or c != doc
    ]  # fmt: skip
    return [code.co_code, code.co_names, code.co_freevars, constants]


def _digest_of_tensors(module: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in module.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


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


def _bytes(tensor: Tensor) -> Any:
    """Return a view of a tensor's bytes; NumPy has no bfloat16 of its own."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
