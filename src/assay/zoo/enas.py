"""The two spaces of ENAS: a whole network with skip connections, and a cell stacked many times."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.zoo.blocks import act_conv_norm, at_least, factorized_reduction, named, wired
from assay.zoo.enas_cell import in_order, paths, pooling, separable, stages

__all__ = ["LAYER_OPERATIONS", "macro", "micro"]

LAYER_OPERATIONS = ("conv3", "conv5", "sep3", "sep5", "avg3", "max3")
"""What a layer of the macro space can be."""


def macro(
    *,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    layers: int = 6,
    channels: int = 16,
) -> Space:
    """Make the macro space: each layer one of six operations, and any skip connections.

    Layer k computes an operation of the layer before, adds the outputs of those earlier layers
    that it is connected to (the stem is layer 0), and normalises the sum. Each possible connection
    is a decision of its own, "apart" or "skip", as the paper's controller draws them: 6^L
    2^(L (L - 1) / 2) networks of L layers. After one third and two thirds of the layers the
    resolution is halved and the channels doubled.

    Source: Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
    arXiv:1802.03268, section 2.3; differs: skips are added to a layer's output, as in the released
    shared model, where the text concatenates them to its input; one that crosses a halving has a
    factorised reduction of its own; channels double in the search too.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        layers: L; the paper has 12.
        channels: Of the first layers, even; the paper has 36.
    Raises:
        InvalidSetting: a count below 1, or an odd number of channels.
    Example:
        >>> macro(layers=4).size == 6**4 * 2**6
        True
    """
    _check("enas-macro", input_shape, num_classes=num_classes, layers=layers, channels=channels)

    def model() -> nn.Module:
        return _network(input_shape, num_classes, channels, *_layers(layers, channels))

    def remake(**options: Any) -> Space:
        as_here: dict[str, Any] = {
            "input_shape": input_shape, "num_classes": num_classes, "layers": layers,
            "channels": channels,
        }  # fmt: skip
        return macro(**{**as_here, **options})

    return Space(model, remake=remake)


def micro(
    *,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    nodes: int = 3,
    cells: int = 1,
    channels: int = 16,
) -> Space:
    """Make the micro space: a normal and a reduction cell, stacked.

    A cell reads the outputs of the two cells before it, states 0 and 1. Each of its nodes, states
    2, 3, ..., adds two sides, a and b, each an operation of an earlier state. The states that no
    node reads are added, and a 1x1 convolution makes the output of them. Three stages of normal
    cells, with a reduction cell between them, share the decisions. The two sides of a node are
    interchangeable, and have one canonical order.

    Source: Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
    arXiv:1802.03268, section 2.4; differs: what no node reads is added, not concatenated, so that
    networks differ in what was decided alone; a reduction cell halves its inputs and then has
    stride 1, as in the released shared model, where the paper's operations have stride 2.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        nodes: Of a cell, its inputs left aside; the paper has 5.
        cells: Normal cells of each stage; the paper has 2 while it searches, 5 after.
        channels: Of the first stage, even; the paper has 20 while it searches, 36 after.
    Raises:
        InvalidSetting: a count below 1, or an odd number of channels.
    Example:
        >>> micro(nodes=2).size == ((2 * 5) ** 2 * (3 * 5) ** 2) ** 2
        True
    """
    _check("enas-micro", input_shape, num_classes=num_classes, nodes=nodes, cells=cells,
           channels=channels)  # fmt: skip

    def model() -> nn.Module:
        return _network(input_shape, num_classes, channels, *stages(nodes, cells, channels))

    def remake(**options: Any) -> Space:
        as_here: dict[str, Any] = {
            "input_shape": input_shape, "num_classes": num_classes, "nodes": nodes,
            "cells": cells, "channels": channels,
        }  # fmt: skip
        return micro(**{**as_here, **options})

    return Space(model, canonical=in_order, remake=remake, cheap={"cells": 1}, features=paths)


def _check(space: str, input_shape: tuple[int, int, int], **counts: int) -> None:
    at_least(space, input_shape=min(input_shape), **counts)
    if counts["channels"] % 2:
        raise InvalidSetting(
            f"{space} needs an even number of channels, whose halves a reduction makes, not "
            f"{counts['channels']}"
        )


def _network(
    input_shape: tuple[int, int, int], num_classes: int, channels: int, body: nn.Module, wide: int
) -> nn.Module:
    stem = (nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    return named(
        stem=nn.Sequential(*stem),
        body=body,
        act=nn.ReLU(),
        pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier=nn.Linear(wide, num_classes),
    )


# --- operations -----------------------------------------------------------------------------------


def _layer_operation(name: str, channels: int) -> nn.Module:
    """Return an operation behind the 1x1 convolution that every layer begins with."""
    before, kernel = act_conv_norm(channels, channels), int(name[-1])
    if name.startswith("conv"):
        return nn.Sequential(*before, *act_conv_norm(channels, channels, kernel))
    if name.startswith("sep"):
        return nn.Sequential(*before, *separable(channels, kernel))
    return nn.Sequential(*before, pooling(name))


# --- macro: a graph in which each skip connection is a choice -------------------------------------


def _layers(layers: int, channels: int) -> tuple[nn.Module, int]:
    """Return the layers behind the stem, and the channels they end with."""
    halved = (layers // 3 + 1, 2 * layers // 3 + 1)  # layers before which the side is halved
    widths = [channels]  # of the stem and of each layer
    parts: dict[str, nn.Module] = {}
    for k in range(1, layers + 1):
        before = widths[-1]
        wide = 2 * before if k in halved and k > 1 else before
        if wide > before:
            parts[f"reduce{k}"] = factorized_reduction(before, wide)
        operations = {name: _layer_operation(name, wide) for name in LAYER_OPERATIONS}
        parts[f"op{k}"] = OneOf(operations, label=f"layer{k}.op")
        for j in range(k - 1):
            label, read = f"layer{k}.from{j}", f"layer{j}.op" if j else "stem"
            chosen = OneOf(apart=_untouched(), skip=_added(widths[j], wide), label=label)
            chosen.reads = {"apart": (), "skip": (read,)}
            parts[f"from{j}_to{k}"] = chosen
        parts[f"norm{k}"] = nn.BatchNorm2d(wide)
        widths.append(wide)

    def wire(graph: fx.Graph, stem: fx.Node) -> fx.Node:
        outputs = [stem]
        for k in range(1, layers + 1):
            y = outputs[-1]
            for name in (f"reduce{k}", f"op{k}"):
                y = graph.call_module(name, (y,)) if name in parts else y
            for j in range(k - 1):
                y = graph.call_module(f"from{j}_to{k}", (y, outputs[j]))
            outputs.append(graph.call_module(f"norm{k}", (y,)))
        return outputs[-1]

    return wired(wire, "stem", **parts), widths[-1]


def _untouched() -> fx.GraphModule:
    """Return the module (y, x) -> y."""
    return wired(lambda graph, y, x: y, "y", "x")


def _added(channels: int, out: int) -> fx.GraphModule:
    """Return the module (y, x) -> y + x, with x halved as often as its channels need doubling."""
    parts: dict[str, nn.Module] = {}
    while channels < out:
        parts[f"reduce{len(parts) + 1}"] = factorized_reduction(channels, 2 * channels)
        channels *= 2

    def wire(graph: fx.Graph, y: fx.Node, x: fx.Node) -> fx.Node:
        for name in parts:
            x = graph.call_module(name, (x,))
        return graph.call_function(operator.add, (y, x))

    return wired(wire, "y", "x", **parts)
