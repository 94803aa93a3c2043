"""What each kind of layer does to channels: makes them, carries them one by one, or mixes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from assay.weights.morph.channels import Axis, Group, Run

if TYPE_CHECKING:
    from assay.weights.morph.flow import Reader

__all__ = ["LAYERS", "SECOND", "Layer", "holders", "hooked"]

SECOND = (nn.BatchNorm1d, nn.SyncBatchNorm, nn.PReLU)
"""Layers that take dimension 1 for channels, in tensors of any rank: of two it is the last."""

_PLACES: Mapping[type[nn.Module], int] = {
    **dict.fromkeys((nn.BatchNorm2d, nn.InstanceNorm2d), -3),
    **dict.fromkeys((nn.BatchNorm3d, nn.InstanceNorm3d), -4),
    nn.InstanceNorm1d: -2,
}
"""Layers that take tensors of one rank -> where these have their channels."""


@dataclass(frozen=True)
class Layer:
    """A layer with tensors along channels.

    Attributes:
        path: Module path.
        module: The layer.
        reads: Channels it reads; None where they cannot change.
        makes: Channels it makes; those it reads, if it treats each channel by itself.
        mixes: Whether each output sums over inputs, as in convolutions that are not depthwise.
    """

    path: str
    module: Any
    reads: Axis | None
    makes: Axis | None
    mixes: bool


def hooked(layer: nn.Module) -> str:
    """Say that a hook may make a layer's weight, so that it cannot be resized; "" if none does.

    Args:
        layer: With a weight of its own, as all of `LAYERS`.
    """
    if not layer._forward_pre_hooks and "weight" in layer._parameters:
        return ""
    return (
        "has a hook that may make its weight, as pruned and weight-normed layers have: remove it "
        "first (prune.remove, remove_weight_norm, remove_spectral_norm)"
    )


def holders(model: nn.Module) -> dict[int, list[str]]:
    """Return by the id of each parameter and buffer the paths of all modules that have it."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            found.setdefault(id(tensor), []).append(path)
    return found


def _linear(reader: Reader, node: fx.Node, layer: nn.Linear) -> Layer:
    reads = reader.incoming(node, layer.in_features, -1)
    makes = Axis(-1, (Run(Group(layer.out_features)),))
    return Layer(str(node.target), layer, reads, makes, mixes=True)


def _conv(reader: Reader, node: fx.Node, layer: Any) -> Layer:
    dim, groups, path = -1 - len(layer.kernel_size), layer.groups, str(node.target)
    reads = reader.incoming(node, layer.in_channels, dim)
    if 1 < groups == layer.in_channels:
        return _depthwise(path, layer, reads, dim)
    made = Group(layer.out_channels)
    made.divide(groups)
    if groups > 1 and reads is not None:
        if len(reads.runs) > 1 or reads.runs[0].times > 1:
            reads.fix(f"{path} groups the channels of several layers")
        for run in reads.runs:
            run.group.divide(groups)
    return Layer(path, layer, reads, Axis(dim, (Run(made),)), mixes=True)


def _depthwise(path: str, layer: Any, reads: Axis | None, dim: int) -> Layer:
    """Its outputs are the channels that it reads, each once or a few times."""
    times = layer.out_channels // layer.in_channels
    if reads is None:
        makes = Axis(dim, (Run(Group(layer.out_channels)),))
        makes.fix(f"{path} makes them of channels that are given")
    else:
        makes = Axis(dim, tuple(replace(run, times=run.times * times) for run in reads.runs))
    return Layer(path, layer, reads, makes, mixes=False)


def _norm(reader: Reader, node: fx.Node, layer: Any) -> Layer:
    size = layer.num_parameters if isinstance(layer, nn.PReLU) else layer.num_features
    axis = reader.incoming(node, size, _PLACES.get(type(layer)))
    return Layer(str(node.target), layer, axis, axis, mixes=False)


def _layer_norm(reader: Reader, node: fx.Node, layer: nn.LayerNorm) -> Layer:
    axis = reader.incoming(node, layer.normalized_shape[-1], -1)
    if axis is not None and len(layer.normalized_shape) > 1:
        axis.fix(f"{reader.name(node)} weighs each of their positions by itself")
    return _averaging(reader, node, layer, axis)


def _group_norm(reader: Reader, node: fx.Node, layer: nn.GroupNorm) -> Layer:
    axis = reader.incoming(node, layer.num_channels)
    if axis is not None and len(axis.runs) > 1:
        axis.fix(f"{reader.name(node)} groups the channels of several layers")
    elif axis is not None and axis.runs[0].group.size % layer.num_groups:
        axis.fix(f"{reader.name(node)} groups positions of a channel")
    elif axis is not None:
        axis.runs[0].group.divide(layer.num_groups)
    return _averaging(reader, node, layer, axis)


def _averaging(reader: Reader, node: fx.Node, layer: nn.Module, axis: Axis | None) -> Layer:
    """A norm over channels carries them, but copies would count twice in its statistics."""
    for run in axis.runs if axis is not None else ():
        run.group.average(f"{reader.name(node)} averages over them, and copies count twice")
    return Layer(str(node.target), layer, axis, axis, mixes=False)


LAYERS: Mapping[type[nn.Module], Callable[[Reader, fx.Node, Any], Layer]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    nn.Linear: _linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.PReLU), _norm),
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}
"""Class -> how a call of it is read."""
