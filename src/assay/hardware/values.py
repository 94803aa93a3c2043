"""What of a call's arguments and results matters to shapes, as objects compared by identity.

Of a tensor of floats that is its shape, and where else it is given. Integers and booleans are kept
as they are: they may be lengths, counts or places in a table, so code that is run on others in
their place may fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from assay.space.sizes import remake

__all__ = ["Given", "Values", "mapped"]


class Given:
    """Arguments or a result: shapes, types and strides of floating tensors, all else as it is.

    Made by `Values`, which makes only one of a kind: equal ones are the same object, so they are
    quick keys.

    Attributes:
        value: A tensor, or nested tuples, lists and dicts; its floating tensors hold zeros. One
            that was given in several places is one object in all of them.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def fresh(self) -> Any:
        """Return the value with new tensor objects; floating ones of a kind share their memory."""
        # What code writes in place into floats does not matter; other values must stay.
        return _each(self.value, lambda t: _copy(t) if _by_value(t) else t.detach())


class Values:
    """Makes one `Given` for each kind of value."""

    def __init__(self) -> None:
        self._known: dict[Any, Given] = {}
        self._tensors: dict[Any, Tensor] = {}
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

    def handed_on(self, arguments: Given, args: Any, output: Any) -> bool:
        """Return whether a call returned its only argument: that very object, as it was.

        Args:
            arguments: Of the call.
            args: The objects that stood for its positional arguments.
            output: What it returned.
        """
        only = self.sole(arguments)
        return only is not None and output is args[0] and self.of(output) is only

    def of(self, value: Any) -> Given:
        """Return the one that stands for all values like this.

        Args:
            value: A tensor, or nested tuples, lists and dicts of tensors and others. What is not
                hashable stands for itself alone.
        """
        key = _key(value, {})
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Given(_each(value, self._kept))
        return known

    def _kept(self, tensor: Tensor) -> Tensor:
        key = _key(tensor, {})
        if key not in self._tensors:
            self._tensors[key] = _copy(tensor)
        return self._tensors[key].detach()  # an object of its own, in the memory of its kind


def _key(value: Any, seen: dict[int, int]) -> Any:
    """Return what tells values apart; `seen` numbers their tensors, to know one given twice."""
    if isinstance(value, Tensor):
        values = value.detach().numpy().tobytes() if _by_value(value) else b""
        number = seen.setdefault(id(value), len(seen))
        return (Tensor, number, tuple(value.shape), value.dtype, value.stride(), values)
    if isinstance(value, tuple | list):
        return (type(value), *(_key(item, seen) for item in value))
    if isinstance(value, dict):
        return (type(value), *((name, _key(item, seen)) for name, item in value.items()))
    try:
        hash(value)
    except TypeError:
        return (type(value), id(value))  # `Given` holds it, so the id is not used again
    return (type(value), value)


def _by_value(tensor: Tensor) -> bool:
    floats = tensor.is_floating_point() or tensor.is_complex()
    return not floats and tensor.numel() > 0


def _copy(tensor: Tensor) -> Tensor:
    """Return a tensor that lies like another in memory of its own; one of floats holds zeros."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()) if n)
    if _by_value(tensor):
        memory = tensor.detach().as_strided((last + 1,), (1,)).clone()
    else:
        memory = torch.zeros(last + 1, dtype=tensor.dtype)
    return memory.as_strided(tensor.shape, tensor.stride())


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with every tensor in it changed once, however often it is given."""
    changed: dict[int, Tensor] = {}

    def once(tensor: Tensor) -> Tensor:
        if id(tensor) not in changed:
            changed[id(tensor)] = change(tensor)
        return changed[id(tensor)]

    return mapped(value, once)


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return a value with every tensor in it, `[...]` of any shape, changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return remake(value, [mapped(item, change) for item in value])
    if isinstance(value, dict):
        return remake(value, {name: mapped(item, change) for name, item in value.items()})
    return value
