"""What asks for the sizes of a tensor, and what lays a tensor out anew by them."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx

from assay.weights.morph.channels import PLAIN, Axis

if TYPE_CHECKING:
    from assay.weights.morph.flow import Reader

__all__ = ["argument", "attribute", "flat", "length", "shape_of", "size", "view"]

Value: TypeAlias = Axis | None

_VIEWS = ("view", "reshape", torch.reshape)
_NUMBER = "their number is used as a number"


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, given by its place or by its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def attribute(reader: Reader, node: fx.Node) -> Value:
    """Of a tensor's attributes its shape tells how many channels there are; some tell nothing."""
    if node.args[1] == "shape":
        return _shape(reader, node)
    return PLAIN if node.args[1] in ("ndim", "dtype", "device") else reader.fix(node)


def size(reader: Reader, node: fx.Node) -> Value:
    """A size is a shape, or a part of one."""
    place = argument(node, 1, "dim")
    return _shape(reader, node) if place is None else length(reader, node, node.args[0], place)


def _shape(reader: Reader, node: fx.Node) -> Value:
    """A shape is made of numbers; who takes it whole takes that of the channels."""
    axis = reader.axes(node)[0]
    if axis is not None and any(user.target is not operator.getitem for user in node.users):
        axis.fix(_NUMBER)
    return PLAIN


def shape_of(node: Any) -> Any:
    """Return the tensor whose whole shape a node is; None of another node or value."""
    if not isinstance(node, fx.Node):
        return None
    of_attribute = node.target is getattr and node.args[1] == "shape"
    of_method = node.target == "size" and argument(node, 1, "dim") is None
    return node.args[0] if of_attribute or of_method else None


def length(reader: Reader, node: fx.Node, tensor: Any, place: Any) -> Value:
    """A size is a number. That of the channels is their axis, at no dimension, if only views are
    given it: these can tell what they do with it.
    """
    axis = reader.values[tensor]
    if axis is None or not _holds_channels(axis, place):
        return PLAIN
    if isinstance(place, int) and all(user.target in _VIEWS for user in node.users):
        return replace(axis, dim=0)
    axis.fix(_NUMBER)
    return PLAIN


def _holds_channels(axis: Axis, place: Any) -> bool:
    """Whether a place of a tensor's shape is, or may be, the number of its channels."""
    ranks = (1 - axis.dim,) if axis.dim < -1 else range(2, 6)  # or [N, rows, channels]
    if isinstance(place, int):
        place = slice(place, place + 1 or None)
    if not isinstance(place, slice) or fx.Node in map(type, (place.start, place.stop)):
        return True
    return any(rank + axis.dim in range(rank)[place] for rank in ranks)


def flat(reader: Reader, node: fx.Node, dims: tuple[Any, Any]) -> Value:
    """All dimensions but the first become one, in which each channel is a block."""
    axis = reader.axes(node)[0]
    if axis is None:
        return None
    reader.has_rows |= axis.dim == -1
    if axis.dim == -1 and dims == (1, -1):
        return axis
    if dims != (1, -1) or any(run.spread for run in axis.runs):
        return reader.fix(node)
    return Axis(-1, tuple(replace(run, spread=node.name) for run in axis.runs))


def view(reader: Reader, node: fx.Node) -> Value:
    """A view as `[n, -1]` or `[n, channels]` is a flatten, and `[n, channels, 1, 1]` adds
    positions, where n is the number of samples; another one is not followed.
    """
    axis, shape = reader.axes(node)[0], node.args[1:]
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if axis is None or len(sizes) < 2 or not _takes_all(reader, axis, sizes[1]):
        return reader.fix(node)
    if not _counts_samples(reader, sizes[0], node.args[0]):
        return reader.fix(
            node, f"{reader.name(node)} may split or merge the batch; flatten(1) does not"
        )
    if len(sizes) == 2:
        return flat(reader, node, (1, -1)) if sizes[1] == -1 else replace(axis, dim=-1)
    if axis.dim != -1 or any(side != 1 for side in sizes[2:]):
        return reader.fix(node)
    return replace(axis, dim=1 - len(sizes))


def _takes_all(reader: Reader, axis: Axis, width: Any) -> bool:
    """Whether a size is that of all channels and positions: -1, or a number of channels as many.

    These are tied, since the number is right as long as both are as many.
    """
    if not isinstance(width, fx.Node):
        return bool(width == -1)
    told = reader.values[width]
    if told is None or told.dim != 0 or any(run.spread for run in (*axis.runs, *told.runs)):
        return False
    return axis.tie(replace(told, dim=axis.dim))


def _counts_samples(reader: Reader, number: Any, tensor: Any) -> bool:
    """Whether a number was asked of a tensor with the same samples along dimension 0."""
    if not isinstance(number, fx.Node) or len(number.args) < 1:
        return False
    source: Any = number.args[0]
    if number.target is operator.getitem:
        source = shape_of(source)
    place = argument(number, 1, "dim")
    asked = number.target in (operator.getitem, "size") and place == 0 and source is not None
    return asked and reader.samples[source] is reader.samples[tensor]
