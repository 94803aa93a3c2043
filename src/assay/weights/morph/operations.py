"""What operations without tensors of their own do to channels.

Positions are counted as in `[N, channels, ...]`, since the rank of a tensor follows from where its
channels are counted from the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn
from torch.nn import functional as F

from assay.weights.morph import shapes
from assay.weights.morph.channels import PLAIN, Axis
from assay.weights.morph.shapes import argument

if TYPE_CHECKING:
    from assay.weights.morph.flow import Reader

__all__ = ["MODULES", "OPERATIONS", "keeps_samples", "meet"]

Value: TypeAlias = Axis | None
_Rule: TypeAlias = "Callable[[Reader, fx.Node], Value]"


def meet(reader: Reader, node: fx.Node) -> Value:
    """Tensors that meet element by element have the same channels, or a single one for all."""
    axes = [axis for axis in reader.axes(node) if axis is not PLAIN]
    known = [axis for axis in axes if axis is not None]
    if not known:
        return None if axes else PLAIN
    widest = max(known, key=lambda axis: not _is_single(axis))
    singles = [a for a in known if _is_single(a) != _is_single(widest) and a.dim == widest.dim]
    for axis in singles:
        axis.fix(f"{reader.name(node)} takes the single one for all channels")
    if len(known) < len(axes):
        reader.fix(node, f"{reader.name(node)} meets a tensor whose channels are given")
    elif not all(widest.tie(axis) for axis in known if axis not in singles):
        return reader.fix(node, f"{reader.name(node)} meets channels in another order")
    return widest


def _is_single(axis: Axis) -> bool:
    return axis.length == 1 and not any(run.spread for run in axis.runs)


def _spatial(dim: int) -> _Rule:
    """Return the rule of what treats each channel by itself, and finds them at a dimension."""

    def rule(reader: Reader, node: fx.Node) -> Value:
        axis = reader.axes(node)[0]
        return axis if axis is None or axis.dim == dim else reader.fix(node)

    return rule


def _concatenate(reader: Reader, node: fx.Node) -> Value:
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    dim = argument(node, 1, "dim", 0)
    axes = [reader.values[item] for item in _listed(tensors)]
    known = [axis for axis in axes if axis is not None and axis is not PLAIN]
    same = len({axis.dim for axis in known}) == 1 and len(known) == len(axes)
    if not same or dim not in (1, known[0].dim):
        return reader.fix(node)
    return Axis(known[0].dim, tuple(run for axis in known for run in axis.runs))


def _flatten(reader: Reader, node: fx.Node) -> Value:
    dims = argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)
    return shapes.flat(reader, node, dims)


def _flatten_module(reader: Reader, node: fx.Node) -> Value:
    module: Any = reader.module(node)
    return shapes.flat(reader, node, (module.start_dim, module.end_dim))


def _reduce(reader: Reader, node: fx.Node) -> Value:
    """A mean, sum or maximum over all positions of each channel."""
    axis = reader.axes(node)[0]
    if axis is None:
        return None
    positions = -axis.dim - 1
    dims = [d for d in _listed(argument(node, 1, "dim")) if isinstance(d, int)]
    over = sorted(d % (positions + 2) for d in dims)
    if positions < 1 or over != list(range(2, positions + 2)):
        reader.has_rows |= axis.dim == -1
        return reader.fix(node)
    return axis if argument(node, 2, "keepdim", False) else replace(axis, dim=-1)


def _index(reader: Reader, node: fx.Node) -> Value:
    """An index `[:, :, None, None]` adds positions; of a shape it is a number."""
    axis, places = reader.axes(node)[0], node.args[1]
    tensor = shapes.shape_of(node.args[0])
    if tensor is not None:
        return shapes.length(reader, node, tensor, places)
    if axis is None or axis is PLAIN:
        return axis
    second = places[1:2] if isinstance(places, tuple) else ()
    reader.has_rows |= axis.dim == -1 and second not in ((), (slice(None),))
    added = len(places) - 2 if isinstance(places, tuple) else 0
    if axis.dim != -1 or added < 1 or places != (slice(None), slice(None), *[None] * added):
        return reader.fix(node)
    return replace(axis, dim=-1 - added)


def _unsqueeze(reader: Reader, node: fx.Node) -> Value:
    axis = reader.axes(node)[0]
    if axis is None or argument(node, 1, "dim") not in (-1, 1 - axis.dim):
        return reader.fix(node)
    return replace(axis, dim=axis.dim - 1)


def _pick(reader: Reader, node: fx.Node) -> Value:
    """What moves dimensions, or takes some places of one, is not followed, and may be of rows."""
    axis = reader.axes(node)[0]
    reader.has_rows |= axis is not None and axis.dim == -1
    return reader.fix(node, f"{reader.name(node)} has no rule")


def _number(reader: Reader, node: fx.Node) -> Value:
    return PLAIN


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _everywhere(*names: str) -> Iterable[Any]:
    """Name operations as methods, and as functions of torch and torch.nn.functional."""
    for name in names:
        yield name
        yield from (getattr(home, name) for home in (torch, F) if hasattr(home, name))


MODULES: Mapping[type[nn.Module], _Rule] = {
    **dict.fromkeys((
        nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
        nn.Mish, nn.Softplus, nn.Softsign, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish,
        nn.Hardsigmoid, nn.LogSigmoid, nn.Threshold, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
        nn.Dropout3d, nn.AlphaDropout,
    ), meet),
    **dict.fromkeys((
        nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d,
    ), _spatial(-2)),
    **dict.fromkeys((
        nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d,
        nn.ReflectionPad2d, nn.Upsample, nn.UpsamplingNearest2d,
    ), _spatial(-3)),
    **dict.fromkeys((
        nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d,
    ), _spatial(-4)),
    nn.Flatten: _flatten_module,
}  # fmt: skip
"""Class of a module without tensors -> what it does to channels."""

OPERATIONS: Mapping[Any, _Rule] = {
    **dict.fromkeys(_everywhere(
        "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum", "where",
        "neg", "abs", "exp", "square", "sqrt", "clamp", "clamp_", "clamp_min", "relu", "relu_",
        "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid",
        "tanh", "hardtanh", "hardswish", "hardsigmoid", "dropout", "dropout2d", "contiguous",
        "clone", "detach", "to", "float", "double", "zeros_like", "ones_like", "expand_as",
    ), meet),
    **dict.fromkeys((
        operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv,
        operator.floordiv, operator.neg, torch.sigmoid, torch.tanh,
    ), meet),
    **dict.fromkeys(_everywhere("mean", "sum", "amax"), _reduce),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concatenate),
    **dict.fromkeys(_everywhere("flatten"), _flatten),
    **dict.fromkeys(_everywhere("reshape", "view"), shapes.view),
    **dict.fromkeys(_everywhere("unsqueeze"), _unsqueeze),
    **dict.fromkeys(_everywhere(
        "transpose", "swapaxes", "permute", "movedim", "select", "narrow", "index_select",
        "unbind", "chunk", "split", "max", "min", "median", "prod", "std", "var",
    ), _pick),
    **dict.fromkeys((
        F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate,
    ), _spatial(-3)),
    "dim": _number,
    "size": shapes.size,
    operator.getitem: _index,
    getattr: shapes.attribute,
}  # fmt: skip
"""Function, or name of a method -> what it does to channels."""


def keeps_samples(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node treats each sample by itself, though its channels may not be known.

    Args:
        node: Of an operation, or the call of a module.
        module: What is called.
    """
    rule = OPERATIONS.get(node.target) if module is None else MODULES.get(type(module))
    return rule is meet
