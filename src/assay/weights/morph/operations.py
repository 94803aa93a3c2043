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

from assay.weights.morph.channels import PLAIN, Axis

if TYPE_CHECKING:
    from assay.weights.morph.flow import Reader

__all__ = ["MODULES", "OPERATIONS"]

Value: TypeAlias = Axis | None
_Rule: TypeAlias = "Callable[[Reader, fx.Node], Value]"


def _meet(reader: Reader, node: fx.Node) -> Value:
    """Tensors that meet element by element have the same channels."""
    axes = [axis for axis in reader.axes(node) if axis is not PLAIN]
    known = [axis for axis in axes if axis is not None]
    if not known:
        return None if axes else PLAIN
    if len(known) < len(axes):
        reader.fix(node, f"{reader.name(node)} meets a tensor whose channels are given")
    elif not all(known[0].tie(axis) for axis in known[1:]):
        return reader.fix(node, f"{reader.name(node)} meets channels in another order")
    return known[0]


def _spatial(dim: int) -> _Rule:
    """Return the rule of what treats each channel by itself, and finds them at a dimension."""

    def rule(reader: Reader, node: fx.Node) -> Value:
        axis = reader.axes(node)[0]
        return axis if axis is None or axis.dim == dim else reader.fix(node)

    return rule


def _concatenate(reader: Reader, node: fx.Node) -> Value:
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    dim = _argument(node, 1, "dim", 0)
    axes = [reader.values[item] for item in _listed(tensors)]
    known = [axis for axis in axes if axis is not None and axis is not PLAIN]
    same = len({axis.dim for axis in known}) == 1 and len(known) == len(axes)
    if not same or dim not in (1, known[0].dim):
        return reader.fix(node)
    return Axis(known[0].dim, tuple(run for axis in known for run in axis.runs))


def _flatten(reader: Reader, node: fx.Node) -> Value:
    return _flat(
        reader, node, (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
    )


def _flatten_module(reader: Reader, node: fx.Node) -> Value:
    module: Any = reader.module(node)
    return _flat(reader, node, (module.start_dim, module.end_dim))


def _flat(reader: Reader, node: fx.Node, dims: tuple[Any, Any]) -> Value:
    axis = reader.axes(node)[0]
    if axis is None or (axis.dim == -1 and dims == (1, -1)):
        return axis
    if dims != (1, -1) or any(run.spread for run in axis.runs):
        return reader.fix(node)
    return Axis(-1, tuple(replace(run, spread=node.name) for run in axis.runs))


def _view(reader: Reader, node: fx.Node) -> Value:
    """A view as `[n, -1]` is a flatten; another one is not followed."""
    shape = node.args[1:]
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    flat = len(sizes) == 2 and sizes[1] == -1
    return _flat(reader, node, (1, -1)) if flat else reader.fix(node)


def _reduce(reader: Reader, node: fx.Node) -> Value:
    """A mean, sum or maximum over all positions of each channel."""
    axis = reader.axes(node)[0]
    if axis is None:
        return None
    positions = -axis.dim - 1
    dims = [d for d in _listed(_argument(node, 1, "dim")) if isinstance(d, int)]
    reader.has_rows |= axis.dim == -1 and dims in ([1], [-2])
    over = sorted(d % (positions + 2) for d in dims)
    if positions < 1 or over != list(range(2, positions + 2)):
        return reader.fix(node)
    return axis if _argument(node, 2, "keepdim", False) else replace(axis, dim=-1)


def _index(reader: Reader, node: fx.Node) -> Value:
    """An index `[:, :, None, None]` adds positions; of a shape it is a number."""
    axis, places = reader.axes(node)[0], node.args[1]
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
    if axis is None or _argument(node, 1, "dim") not in (-1, 1 - axis.dim):
        return reader.fix(node)
    return replace(axis, dim=axis.dim - 1)


def _transpose(reader: Reader, node: fx.Node) -> Value:
    axis = reader.axes(node)[0]
    reader.has_rows |= axis is not None and axis.dim == -1
    return reader.fix(node)


def _attribute(reader: Reader, node: fx.Node) -> Value:
    known = node.args[1] in ("shape", "ndim", "dtype", "device")
    return PLAIN if known else reader.fix(node)


def _number(reader: Reader, node: fx.Node) -> Value:
    return PLAIN


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


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
    ), _meet),
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
        "clone", "detach", "to", "zeros_like", "ones_like",
    ), _meet),
    **dict.fromkeys((
        operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv,
        operator.floordiv, operator.neg, torch.sigmoid, torch.tanh,
    ), _meet),
    **dict.fromkeys(_everywhere("mean", "sum", "amax"), _reduce),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concatenate),
    **dict.fromkeys(_everywhere("flatten"), _flatten),
    **dict.fromkeys(_everywhere("reshape", "view"), _view),
    **dict.fromkeys(_everywhere("unsqueeze"), _unsqueeze),
    **dict.fromkeys(_everywhere("transpose", "swapaxes", "permute", "movedim"), _transpose),
    **dict.fromkeys((
        F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate,
    ), _spatial(-3)),
    **dict.fromkeys(("size", "dim"), _number),
    operator.getitem: _index,
    getattr: _attribute,
}  # fmt: skip
"""Function, or name of a method -> what it does to channels."""
