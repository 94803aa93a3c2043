"""Wider and narrower layers, with everything that shares their channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph.channels import Group, Run
from assay.weights.morph.flow import OUTPUT, Flow, trace
from assay.weights.morph.layers import Layer
from assay.weights.morph.rewrite import copied, rewrite, wider, widest

__all__ = ["shrink", "thin", "widen"]


def widen(
    model: nn.Module, layer: str, width: int, *, rng: np.random.Generator, noise: float = 0.0
) -> nn.Module:
    """Return a copy of a model with a wider layer that computes the same in eval mode.

    New channels copy random old ones, and whoever reads a channel that is now there several times
    divides its weight by their number. All layers whose outputs are added or multiplied to this
    one's are widened alike; concatenation, flattening, depthwise and grouped convolutions and
    squeeze-excite are followed.

    Source: Chen, Goodfellow, Shlens 2015, "Net2Net: Accelerating Learning via Knowledge Transfer",
    arXiv:1511.05641, on Net2WiderNet; differs: whatever shares the channels is found on the
    graph, and the noise falls on the new copies alone.

    Args:
        model: Left as it is; torch.fx must be able to trace it.
        layer: Module path of a layer that makes the channels.
        width: Its outputs after, at least as many as now.
        rng: Draws which channels are copied, and the noise.
        noise: Deviation of what is added to the weights that make a new copy, as a multiple of the
            deviation of the layer's weights; breaks their symmetry and the equality.
    Raises:
        InvalidSetting: no such layer, fewer channels than now, or a width its groups do not divide.
        UnsupportedLayer: the function would change; the message says where and why.
    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        >>> wide = widen(net, "0", 5, rng=np.random.default_rng(0))
        >>> x = torch.ones(4, 3, dtype=torch.float64)
        >>> wide[2].in_features, torch.allclose(wide(x), net(x), atol=1e-9)
        (5, True)
    """
    if not noise >= 0:
        raise InvalidSetting(f"noise={noise!r} is a deviation: give 0 or more")
    flow, run, channels = _opened(model, layer, width)
    group = run.group.root
    if channels < group.size:
        raise InvalidSetting(
            f"{layer!r} has {group.size * run.times} outputs, more than {width}; use shrink"
        )
    if group.obstacles:
        raise UnsupportedLayer(
            f"{layer!r} cannot be widened without changing the function: {group.obstacles[0]}"
        )
    rewrite(flow, {group: wider(group, channels, rng)}, noise=noise, rng=rng)
    return flow.model


def shrink(model: nn.Module, layer: str, width: int) -> nn.Module:
    """Return a copy of a model with a narrower layer; it keeps what is weighed most.

    The channels kept are those with the largest L1 norm of all weights that read them. The
    function changes.

    Source: Cai et al. 2020, "Once-for-All", arXiv:1908.09791, section 3; differs: a channel's
    norm is summed over all its readers.

    Args:
        model: Left as it is; torch.fx must be able to trace it.
        layer: Module path of a layer that makes the channels.
        width: Its outputs after, at most as many as now.
    Raises:
        InvalidSetting: no such layer, more channels than now, or a width its groups do not divide.
        UnsupportedLayer: something that cannot be narrowed holds the channels, and why.
    """
    flow, run, channels = _opened(model, layer, width)
    group = run.group.root
    if channels > group.size:
        raise InvalidSetting(
            f"{layer!r} has {group.size * run.times} outputs, fewer than {width}; use widen"
        )
    if group.fixed:
        raise UnsupportedLayer(f"{layer!r} cannot be narrowed: {group.fixed[0]}")
    rewrite(flow, {group: widest(group, channels, flow)})
    return flow.model


def thin(model: nn.Module, share: float) -> nn.Module:
    """Return a copy of a new model with a share of the channels of all layers, to be trained.

    All but the model's outputs: where a single layer cannot have fewer the model is refused, since
    two models of which one is cut and the other is not cannot be compared. Whatever holds channels
    together keeps together: added layers, parts of grouped convolutions. Weights are those of the
    first channels; where sums have fewer terms they are larger, so that sums vary as before.

    Source: Howard et al. 2017, "MobileNets", arXiv:1704.04861, section 3.3, on the width
    multiplier; differs: a new model is cut rather than made, so that it can be any.

    Args:
        model: With weights as they are initialised; is left as it is. torch.fx must be able to
            trace it.
        share: Of the channels, in (0, 1]; at least one of each part is left, and two of what a norm
            averages over.
    Raises:
        InvalidSetting: no such share.
        UnsupportedLayer: torch.fx cannot trace it, or a layer cannot have fewer channels; the
            message says which and why.
    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> [layer.weight.shape[0] for layer in thin(net, 0.5)[::2]]
        [4, 4]
    """
    if not 0 < share <= 1:
        raise InvalidSetting(f"share={share!r} of the channels must be more than 0, at most 1")
    flow = trace(copied(model))
    groups = _all_groups(flow)
    inputs = {path: _num_inputs(layer) for path, layer in flow.layers.items()}
    rewrite(flow, {group: _first(group, share) for group in groups if not group.fixed})
    with torch.no_grad():
        for path, layer in flow.layers.items():
            if layer.mixes and layer.reads is not None:
                layer.module.weight.mul_(math.sqrt(inputs[path] / _num_inputs(layer)))
    return flow.model


def _all_groups(flow: Flow) -> list[Group]:
    """Return the groups of a model; all can have fewer channels, but for its outputs.

    Raises:
        UnsupportedLayer: they cannot.
    """
    for path, module in flow.model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and path not in flow.layers and not isinstance(module, nn.PReLU):
            raise _uncut(path, f"the channels of a {type(module).__name__} cannot be followed")
        if own and not any(parameter.requires_grad for parameter in own):
            raise _uncut(path, "it is frozen")
    groups: dict[Group, None] = {}
    for path, layer in flow.layers.items():
        for run in layer.makes.runs if layer.makes is not None else ():
            groups[run.group.root] = None
            reasons = run.group.root.fixed
            if reasons and OUTPUT not in reasons:
                raise _uncut(path, reasons[0])
    return list(groups)


def _uncut(path: str, why: str) -> UnsupportedLayer:
    return UnsupportedLayer(f"{path or 'the network itself'!r} cannot have fewer channels: {why}")


def _first(group: Group, share: float) -> torch.Tensor:
    """Return the map that keeps the first channels of each part."""
    old = group.size // group.parts
    least = min(old, 2 if group.averaged else 1)  # the average of one is itself
    kept = torch.arange(max(least, round(share * old)))
    return (torch.arange(group.parts)[:, None] * old + kept).flatten()


def _num_inputs(layer: Layer) -> int:
    """Return how many terms each sum of a layer has, at each place of a kernel."""
    return int(layer.module.weight.shape[1]) if layer.mixes else 1


def _opened(model: nn.Module, layer: str, width: int) -> tuple[Flow, Run, int]:
    """Return the flow of a copy, what the layer makes, and the channels that the width means."""
    flow = trace(copied(model))
    run = flow.run(layer)
    step = run.times * run.group.root.parts
    if width < 1 or width % step:
        raise InvalidSetting(f"the width of {layer!r} must be a multiple of {step}, not {width}")
    return flow, run, width // run.times
