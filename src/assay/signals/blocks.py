"""The parts of a network that follow one another, and the feature maps that they hand on.

The blocks that papers speak of have no name in an ordinary module. They are taken for the children
of the network and of the `nn.Sequential`s of blocks in it: a stage is opened, a block is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor, nn

__all__ = ["FeatureMap", "feature_maps", "is_connection", "listening", "map_of", "parts"]

Calls: TypeAlias = "list[tuple[nn.Module, Tensor]]"
"""Modules with what they returned, in the order of their calls."""


@dataclass(frozen=True)
class FeatureMap:
    """What a part of the network hands on.

    Attributes:
        tensor: Channels on some axis, `[N, channels, ...]` or `[N, ..., channels]`.
        axis: Of the channels.
    """

    tensor: Tensor
    axis: int


def is_connection(parameter: Tensor) -> bool:
    """Whether a parameter `[...]` connects units, as biases and scales do not: it has two axes.

    So counted are the weights of linear, convolutional, recurrent and attention layers alike.
    """
    return parameter.dim() >= 2


def parts(network: nn.Module) -> list[nn.Module]:
    """Return the modules that follow one another, stages opened and blocks left whole."""
    inner = list(network.children())
    while len(inner) == 1 and inner[0]._modules:  # a network around a network
        network = inner[0]
        inner = list(network.children())
    return list(_chain(network))


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) or _is_stage(child):
            yield from _chain(child)
        else:
            yield child


def _is_stage(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and any(inner._modules for inner in module)


@contextmanager
def listening(modules: Sequence[nn.Module]) -> Iterator[Calls]:
    """Within: calls of modules that return a tensor `[N, channels, ...]` are taken down."""
    calls: Calls = []

    def take_down(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() > 1:
            calls.append((module, output))

    hooks = [module.register_forward_hook(take_down) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def feature_maps(calls: Calls) -> tuple[FeatureMap, ...]:
    """Return a map for each call of a part with weights, but the last, which makes the output.

    Norms and activations that follow at the same shape belong to the part before them.

    Args:
        calls: Of `parts`, with outputs `[N, ...]`.
    """
    maps: list[FeatureMap] = []
    for module, output in calls:
        if any(map(is_connection, module.parameters())):
            maps.append(map_of(module, output))
        elif maps and maps[-1].tensor.shape == output.shape:
            maps[-1] = replace(maps[-1], tensor=output)
    return tuple(maps[:-1])


def map_of(module: nn.Module, output: Tensor) -> FeatureMap:
    """Return an output as a map: channels last after a linear layer, on the second axis otherwise.

    Args:
        module: With weights; its last layer that has some decides.
        output: `[N, channels, ...]` or `[N, ..., channels]`.
    """
    layers = [m for m in module.modules() if any(map(is_connection, m.parameters(recurse=False)))]
    return FeatureMap(output, output.dim() - 1 if isinstance(layers[-1], nn.Linear) else 1)
