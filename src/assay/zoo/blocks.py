"""Blocks of torch's own layers, for ready spaces.

What a space builds must hold no class of Assay's, so a residual sum is a graph of torch.fx written
node by node: an ordinary `torch.fx.GraphModule`, which copies, pickles, compiles and exports.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from assay.errors import InvalidSetting

__all__ = [
    "act_conv_norm",
    "at_least",
    "conv_norm_act",
    "factorized_reduction",
    "inverted_bottleneck",
    "named",
    "residual",
    "wired",
]


def at_least(space: str, least: int = 1, **counts: int) -> None:
    """Refuse counts that are too small.

    Args:
        space: What the message calls the space.
        least: The smallest that fits.
        counts: The options, by name.
    Raises:
        InvalidSetting: the first that is smaller.
    """
    for name, value in counts.items():
        if value < least:
            raise InvalidSetting(f"{space} needs {name} of at least {least}, not {value}")


def named(**modules: nn.Module) -> nn.Sequential:
    """Return an `nn.Sequential` whose parts have names."""
    return nn.Sequential(OrderedDict(modules))


def residual(body: nn.Module) -> fx.GraphModule:
    """Return the module that adds a body's output to its input.

    Args:
        body: Keeps the shape of its input.
    """

    def wire(graph: fx.Graph, x: fx.Node) -> fx.Node:
        return graph.call_function(operator.add, (x, graph.call_module("body", (x,))))

    return wired(wire, "x", body=body)


def conv_norm_act(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, act: bool = True
) -> list[nn.Module]:
    """Return convolution, batch norm and, if wanted, ReLU.

    Args:
        channels: Input channels, open or plain.
        out: Output channels, open or plain.
        kernel: Its side, odd; the padding keeps the size at stride 1.
        stride: Of the convolution.
        groups: Of the convolution.
        act: Whether a ReLU follows.
    """
    conv = nn.Conv2d(
        channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out)]
    return [*layers, nn.ReLU()] if act else layers


def inverted_bottleneck(
    channels: int, out: int, *, kernel: int, expansion: int, stride: int = 1
) -> nn.Sequential:
    """Return the inverted bottleneck of MobileNetV2, without the sum around it.

    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    arXiv:1801.04381, section 3; differs: ReLU in place of ReLU6.

    Args:
        channels: Input channels, open or plain.
        out: Output channels, open or plain.
        kernel: Side of the depthwise convolution, odd.
        expansion: Hidden channels are `channels * expansion`; with 1 there is no layer to expand.
        stride: Of the depthwise convolution.
    """
    hidden = channels * expansion if expansion > 1 else channels
    expand = conv_norm_act(channels, hidden) if expansion > 1 else []
    return nn.Sequential(
        *expand,
        *conv_norm_act(hidden, hidden, kernel, stride=stride, groups=hidden),
        *conv_norm_act(hidden, out, act=False),
    )


def act_conv_norm(channels: int, out: int, kernel: int = 1, *, stride: int = 1) -> list[nn.Module]:
    """Return ReLU, convolution and batch norm, the order of cells.

    Args:
        channels: Input channels, open or plain.
        out: Output channels, open or plain.
        kernel: Its side, odd; the padding keeps the size at stride 1.
        stride: Of the convolution.
    """
    return [nn.ReLU(), *conv_norm_act(channels, out, kernel, stride=stride, act=False)]


def factorized_reduction(channels: int, out: int) -> fx.GraphModule:
    """Return the module that halves the side by two 1x1 convolutions, one a pixel further on.

    Together they see every pixel of a diagonal, where one of stride 2 would see every other. An odd
    side is rounded up.

    Source: Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
    arXiv:1802.03268, released code.

    Args:
        channels: Input channels.
        out: Output channels, 2 or more; half of them from each convolution.
    """

    def wire(graph: fx.Graph, x: fx.Node) -> fx.Node:
        y = graph.call_module("act", (x,))
        shifted = graph.call_module("shift", (y,))
        halves = [graph.call_module("here", (y,)), graph.call_module("there", (shifted,))]
        return graph.call_module("norm", (graph.call_function(torch.cat, (halves, 1)),))

    return wired(
        wire,
        "x",
        act=nn.ReLU(),
        shift=nn.ZeroPad2d((-1, 1, -1, 1)),  # zeros come in at the far end, so odd sides fit
        here=nn.Conv2d(channels, out // 2, 1, stride=2, bias=False),
        there=nn.Conv2d(channels, out - out // 2, 1, stride=2, bias=False),
        norm=nn.BatchNorm2d(out),
    )


def wired(wire: Callable[..., Any], *inputs: str, **parts: nn.Module) -> fx.GraphModule:
    """Return the module whose forward is a graph.

    Args:
        wire: Called with the graph and a placeholder for each input; writes the graph down and
            returns its output.
        inputs: Names of the inputs.
        parts: The submodules that the graph calls, by name.
    """
    root = nn.Module()
    for name, part in parts.items():
        root.add_module(name, part)
    graph = fx.Graph()
    graph.output(wire(graph, *[graph.placeholder(name) for name in inputs]))
    return fx.GraphModule(root, graph)
