"""An ordinary torch module of only the chosen parts, with the weights they have in the supernet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.space.choices import CHOSEN
from assay.space.kept import copied
from assay.space.sizes import BUILDING, OpenSize
from assay.space.slicing import take
from assay.space.structure import Structure

__all__ = ["build"]


def build(
    model: nn.Module, structure: Structure, architecture: Architecture, *, renew: bool = False
) -> nn.Module:
    """Copy the parts of a model that an architecture keeps.

    One deep copy does it: its memo tells every choice which option to leave behind in its place,
    every open size which int to become, and holds the sliced copy of every tensor that shrinks.

    Args:
        model: The model with choices, with no path selected.
        structure: What `explore` found in it.
        architecture: A point of the space.
        renew: Let the layers that shrank draw new weights by their own `reset_parameters`, unless
            they are frozen.
    Returns:
        A module without any class of Assay's; it shares no memory with `model`.
    """
    values: dict[OpenSize, Any] = {r: int(r) for rs in structure.roots.values() for r in rs}
    for label, option in architecture.items():
        for root in structure.roots.get(label, ()):
            values[root] = option
    chosen = {
        id(module): option
        for label, option in architecture.items()
        for module in structure.modules.get(label, ())
    }
    layers = structure.open_layers(architecture)
    memo: dict[Any, Any] = {BUILDING: values, CHOSEN: chosen}
    for layer in layers:
        for name, pieces in layer.regions(values).items():
            whole = getattr(layer.layer, name)
            part = take(whole.detach(), pieces).clone()
            if isinstance(whole, nn.Parameter):
                part = nn.Parameter(part, requires_grad=whole.requires_grad)
            memo[id(whole)] = part
    built = copied(model, memo)
    for layer in layers if renew else ():
        reset = getattr(memo[id(layer.layer)], "reset_parameters", None)
        shrank = layer.shrinks and any(values[root] != int(root) for root in layer.roots)
        frozen = not any(p.requires_grad for p in layer.layer.parameters())
        if shrank and reset is not None and not frozen:
            reset()
    # The model may be trained with channels innermost; a network is handed out as torch lays it.
    return built.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]
