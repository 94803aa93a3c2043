"""What of a call's arguments and results matters to shapes, as objects compared by identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Given", "Values", "mapped"]


class Given:
    """Arguments or a result: shapes, types and strides of tensors, other values as they are.

    Made by `Values`, which makes only one of a kind: equal ones are the same object, so they are
    quick keys.

    Attributes:
        value: A tensor, or nested tuples, lists and dicts; its tensors hold zeros.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def fresh(self) -> Any:
        """Return the value with new tensor objects; all of a kind share their memory."""
        return mapped(self.value, Tensor.detach)


class Values:
    """Makes one `Given` for each kind of value."""

    def __init__(self) -> None:
        self._known: dict[Any, Given] = {}
        self._zeros: dict[Any, Tensor] = {}
        self._arguments: dict[Given, Given] = {}

    def argument(self, result: Given) -> Given:
        """Return the arguments of a call that takes a result as its only argument."""
        known = self._arguments.get(result)
        if known is None:
            known = self._arguments[result] = self.of(((result.value,), {}))
        return known

    def sole(self, arguments: Given) -> Given | None:
        """Return the only argument of a call, None if there are others."""
        args, kwargs = arguments.value
        return self.of(args[0]) if len(args) == 1 and not kwargs else None

    def of(self, value: Any) -> Given:
        """Return the one that stands for all values like this.

        Args:
            value: A tensor, or nested tuples, lists and dicts of tensors and others. What is not
                hashable stands for itself alone.
        """
        key = _key(value)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Given(mapped(value, self._zero))
        return known

    def _zero(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._zeros:
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()) if n)
            memory = torch.zeros(last + 1, dtype=tensor.dtype)
            self._zeros[key] = memory.as_strided(tensor.shape, tensor.stride())
        return self._zeros[key]


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (Tensor, tuple(value.shape), value.dtype, value.stride())
    if isinstance(value, tuple | list):
        return (type(value), *map(_key, value))
    if isinstance(value, dict):
        return (dict, *((name, _key(item)) for name, item in value.items()))
    try:
        hash(value)
    except TypeError:
        return (type(value), id(value))  # `Given` holds it, so the id is not used again
    return (type(value), value)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with every tensor in it, `[...]` of any shape, changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        items = [mapped(item, change) for item in value]
        # a named tuple takes its items one by one
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    return value
