"""A network of torch's own layers as a tree of the calls that make it.

The tree is what `source` writes out. A layer's arguments are read back from its attributes, which
torch's layers name after their constructors' parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import fx, nn

from assay.errors import ExportRefused

__all__ = ["REQUIRED", "Made", "Value", "read_layers"]

Value: TypeAlias = "bool | int | float | str | tuple[Any, ...] | None"
"""What an argument of a layer may be."""

REQUIRED = "(required)"
"""Stands for the default of a parameter that has none."""

_SPREAD = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}
"""Parameters for which one number means the same in every dimension."""


@dataclass(frozen=True)
class Made:
    """How a module is made: a layer by its arguments, or a container by its children.

    Attributes:
        kind: Name in torch.nn, such as "Conv2d" or "Sequential"; "GraphModule" for a graph.
        arguments: Of a layer: parameter -> value, in the constructor's order.
        defaults: Parameter -> the value that need not be written, or `REQUIRED`.
        children: Name -> how it is made.
        graph: What a "GraphModule" computes.
    """

    kind: str
    arguments: dict[str, Value] = field(default_factory=dict)
    defaults: dict[str, Value] = field(default_factory=dict)
    children: dict[str, Made] = field(default_factory=dict)
    graph: fx.Graph | None = None

    @property
    def is_layer(self) -> bool:
        """Whether it is made by arguments alone."""
        return self.kind not in ("Sequential", "GraphModule")

    def walk(self) -> Iterator[Made]:
        """Yield itself and everything inside, from the outside in."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def read_layers(module: nn.Module, path: str = "") -> Made:
    """Say how a network is made.

    Args:
        module: Of torch's own layers, `nn.Sequential` and `fx.GraphModule`.
        path: Of the module in the network, for messages.
    Raises:
        ExportRefused: another class, or an argument that cannot be told; names the path.
    """
    if type(module) is nn.Sequential:
        return Made("Sequential", children=_children(module, path))
    if isinstance(module, fx.GraphModule):
        if any(True for _ in module.named_parameters(recurse=False)):
            raise _refusal(path, module, "a graph with parameters of its own")
        return Made("GraphModule", children=_children(module, path), graph=module.graph)
    kind = type(module).__name__
    if any(True for _ in module.children()) or getattr(nn, kind, None) is not type(module):
        raise _refusal(path, module, "no layer of torch.nn, Sequential or fx.GraphModule")
    arguments, defaults = _arguments(module, path)
    return Made(kind, arguments, defaults)


def _children(module: nn.Module, path: str) -> dict[str, Made]:
    # `named_children` skips a layer that stands in a second place, which has to be made there too.
    return {
        name: read_layers(child, f"{path}.{name}".lstrip("."))
        for name, child in module._modules.items()
        if child is not None
    }


def _arguments(layer: nn.Module, path: str) -> tuple[dict[str, Value], dict[str, Value]]:
    arguments: dict[str, Value] = {}
    defaults: dict[str, Value] = {}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if name in ("device", "dtype") or name.startswith("_"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if type(layer).__init__ in (nn.Module.__init__, nn.Identity.__init__):
                continue  # it takes none, or keeps nothing of what it is given
            raise _refusal(path, layer, f"its constructor hides its parameters in *{name}")
        if name == "bias":
            value: Any = layer.bias is not None
        elif hasattr(layer, name):
            value = getattr(layer, name)
        else:
            raise _refusal(path, layer, f"its argument {name!r} cannot be read back")
        if not _is_literal(value):
            raise _refusal(path, layer, f"its argument {name}={value!r} cannot be written")
        arguments[name] = _narrow(name, value)
        required = parameter.default is parameter.empty
        defaults[name] = REQUIRED if required else _narrow(name, parameter.default)
    return arguments, defaults


def _narrow(name: str, value: Any) -> Value:
    if name in _SPREAD and isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]  # type: ignore[no-any-return]
    return tuple(value) if isinstance(value, tuple) else value


def _is_literal(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_literal, value))
    return value is None or type(value) in (bool, int, float, str)


def _refusal(path: str, module: nn.Module, reason: str) -> ExportRefused:
    where = path or "the network"
    return ExportRefused(f"no source for {where}, a {type(module).__name__}: {reason}")
