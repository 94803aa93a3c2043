"""What a value is, as text: equal where values are equal, in every process."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.options import options_of

__all__ = ["Teller", "bytes_of", "unplaced"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEEPEST = 12
_LONGEST = 1000  # characters; longer text goes by its digest, lest it grow with each that holds it


class Teller:
    """Tells values as text without addresses: functions by what they do, tensors by their bytes.

    A function at the top of a module goes by its name, one that was made within another also by
    its code, its defaults and what it captured. Objects go by their class and the options that
    they were made with, a module also by its state. A subclass may tell some of it otherwise.
    """

    def __init__(self) -> None:
        self._above: list[int] = []  # what is being told: it may hold itself
        self._known: dict[int, tuple[Any, str]] = {}

    def told(self, value: Any) -> str:
        """Return a value as text; what lies too deep in it goes by its class."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._above:
            return f"the {len(self._above) - self._above.index(id(value))}. above"
        if len(self._above) == _DEEPEST:
            return _name(type(value))
        self._above.append(id(value))
        try:
            text = self._anew(value)
        finally:
            self._above.pop()
        text = text if len(text) <= _LONGEST else _digest(text)
        self._known[id(value)] = value, text  # with the value, lest another be given its id
        return text

    def does(self, function: FunctionType) -> list[Any]:
        """Return what a function does: its code, its defaults and what it captured.

        What documents it does not count, nor the class that `super()` captures.
        """
        code = function.__code__
        defaults = f"{self.told(function.__defaults__)} {self.told(function.__kwdefaults__)}"
        caught = [
            f"{name}={self._content(cell)}"
            for name, cell in zip(code.co_freevars, function.__closure__ or ())
            if name != "__class__"
        ]
        return [_body(code, function.__doc__), defaults, *([caught] if caught else [])]

    def tensor(self, tensor: Tensor) -> str:
        """Return a tensor `[...]` as text."""
        kind = f"{tensor.dtype} {tuple(tensor.shape)}"
        if tensor.layout != torch.strided or tensor.is_meta:
            return kind
        return f"{kind} {_digest(bytes_of(tensor))}"

    def held(self, thing: Any) -> Mapping[str, Any]:
        """Return what of an object counts beside its class: name -> value."""
        return options_of(thing)

    def state(self, module: nn.Module) -> Mapping[str, Any]:
        """Return what of a module's state counts: name -> tensor `[...]` or value."""
        return module.state_dict()

    def _anew(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, Mapping):
            pairs = sorted(f"{self.told(key)}: {self.told(v)}" for key, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, tuple | list):
            return f"({', '.join(map(self.told, value))})"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(map(self.told, value)))}}}"
        if isinstance(value, ModuleType):  # its repr tells a path
            return value.__name__
        if callable(value):
            return self._callable(value)
        return self._object(value) if _placed(value) else repr(value)

    def _array(self, array: np.ndarray[Any, Any]) -> str:
        if array.dtype.hasobject:  # whose bytes are addresses
            return self.told(array.tolist())
        return f"{array.dtype} {array.shape} {_digest(array.tobytes())}"

    def _callable(self, thing: Any) -> str:
        if isinstance(thing, functools.partial):
            given = f"{self.told(thing.args)} {self.told(thing.keywords)}"
            return f"{self.told(thing.func)} with {given}"
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, MethodType | BuiltinFunctionType):
            return self._method(thing)
        if hasattr(thing, "__qualname__"):
            return _name(thing)
        told = self._object(thing)
        # such as an `operator.itemgetter`, which has its options nowhere but in its repr
        plain = told == _name(type(thing)) and not isinstance(thing, nn.Module)
        return told if not plain or _placed(thing) else f"{told} {thing!r}"

    def _function(self, function: FunctionType) -> str:
        name = _name(function)
        made_within = "<" in function.__qualname__  # <locals>, <lambda>
        if not made_within and not function.__closure__:
            return name
        return f"{name} {_digest(repr(self.does(function)))}"

    def _method(self, method: Any) -> str:
        owner = getattr(method, "__self__", None)
        name = self.told(method.__func__) if isinstance(method, MethodType) else _name(method)
        return name if owner is None or isinstance(owner, ModuleType | type) else (
            f"{name} of {self.told(owner)}"
        )  # fmt: skip

    def _object(self, thing: Any) -> str:
        settings = [f"{key}={self.told(value)}" for key, value in self.held(thing).items()]
        if isinstance(thing, nn.Module) and (state := self.state(thing)):
            settings.append(f"state={_digest(self.told(dict(state)))}")
        name = _name(type(thing))
        return f"{name}({', '.join(settings)})" if settings else name

    def _content(self, cell: CellType) -> str:
        try:
            return self.told(cell.cell_contents)
        except ValueError:  # of Python: what is defined later is not there yet
            return "nothing"


def unplaced(text: str) -> str:
    """Return a repr without the addresses of objects, which are others in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def bytes_of(tensor: Tensor) -> Any:
    """Return a view of the bytes of a tensor `[...]`; NumPy has no bfloat16 of its own."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _placed(value: Any) -> bool:
    return " at 0x" in repr(value)


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', None)}:{kind.__qualname__}"


def _body(code: CodeType, doc: str | None) -> list[Any]:
    """Return what a function does: its instructions, the names and the constants in them."""
    constants = [c for c in code.co_consts if doc is None or c != doc]
    return [code.co_code, code.co_names, code.co_freevars, list(map(_constant, constants))]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _body(value, None)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def _digest(content: Any) -> str:
    content = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(content, digest_size=16).hexdigest()
