"""Wider and narrower layers, with everything that shares their channels."""

from __future__ import annotations

import numpy as np
from torch import nn

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph.channels import Run
from assay.weights.morph.flow import Flow, trace
from assay.weights.morph.rewrite import copied, rewrite, wider, widest

__all__ = ["shrink", "widen"]


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


def _opened(model: nn.Module, layer: str, width: int) -> tuple[Flow, Run, int]:
    """Return the flow of a copy, what the layer makes, and the channels that the width means."""
    flow = trace(copied(model))
    run = flow.run(layer)
    step = run.times * run.group.root.parts
    if width < 1 or width % step:
        raise InvalidSetting(f"the width of {layer!r} must be a multiple of {step}, not {width}")
    return flow, run, width // run.times
