"""One rule for all widths: rows are copied by a map of channels, columns copied and shared out.

With g from new to old channels, whoever makes a channel j computes what made g(j), and whoever
reads it weighs it by one over the number of new channels that share g(j). A map that repeats
channels widens; one that leaves some out narrows, and then every share is one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.weights.morph.channels import Axis, Group, Picks
from assay.weights.morph.flow import Flow
from assay.weights.morph.layers import Layer

__all__ = ["copied", "disturbed", "picked", "put", "rewrite", "wider", "widest"]

Maps = Mapping[Group, Tensor]
"""Root of a group -> old channel of each new one, int64 `[new]`."""


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model; what its modules keep of their last call is detached.

    Args:
        model: Left as it is. torch refuses to copy a tensor that a gradient goes through, such as
            a feature that is kept, or the weight of a pruned layer.
    """
    kept = [t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in kept if not t.is_leaf})


def wider(group: Group, width: int, rng: np.random.Generator) -> Tensor:
    """Return a Net2Wider map: the old channels, and copies of random ones after them.

    In a group of equal parts each part keeps its own channels and grows by as many copies.

    Source: Chen, Goodfellow, Shlens 2015, "Net2Net: Accelerating Learning via Knowledge Transfer",
    arXiv:1511.05641, on Net2WiderNet.

    Args:
        group: What is widened, its root.
        width: Channels after; a multiple of the group's parts.
        rng: Draws the copies.
    Returns:
        Old channel of each new one, int64 `[width]`.
    """
    old, new = group.size // group.parts, width // group.parts
    parts = [
        start + np.concatenate([np.arange(old), rng.integers(old, size=new - old)])
        for start in range(0, group.size, old)
    ]
    return torch.from_numpy(np.concatenate(parts))


def widest(group: Group, width: int, flow: Flow) -> Tensor:
    """Return the map that keeps the channels which their readers weigh most.

    Source: Cai et al. 2020, "Once-for-All", arXiv:1908.09791, section 3: channels sorted by the
    L1 norm of the weights that read them.

    Args:
        group: What is narrowed, its root.
        width: Channels after; a multiple of the group's parts.
        flow: Where its readers are.
    Returns:
        Old channel of each new one, ascending, int64 `[width]`.
    """
    norms = _importance(group, flow).reshape(group.parts, -1)
    best = norms.argsort(dim=1, descending=True, stable=True)[:, : width // group.parts]
    starts = torch.arange(group.parts)[:, None] * norms.shape[1]
    return (best.sort(dim=1).values + starts).flatten()


def _importance(group: Group, flow: Flow) -> Tensor:
    """Sum the L1 norms of all that reads each channel, float64 `[size]`."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for layer in flow.layers.values():
        if not layer.mixes or layer.reads is None:
            continue
        weight = layer.module.weight.detach().double().cpu().abs()
        groups = getattr(layer.module, "groups", 1)
        norms = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(2).sum(2)
        pieces = norms.flatten().split([r.group.size * r.times for r in layer.reads.runs])
        for run, piece in zip(layer.reads.runs, pieces):
            if run.group.root is group:
                total += piece.reshape(run.group.size, run.times).sum(1)
    return total


def rewrite(
    flow: Flow, maps: Maps, *, noise: float = 0.0, rng: np.random.Generator | None = None
) -> None:
    """Change the width of groups in every layer that makes, carries or reads them, in place.

    Args:
        flow: Of the model that is changed.
        maps: Root of a group -> old channel of each new one `[new]`.
        noise: Deviation of what is added to the weights that make a new copy, as a multiple of the
            deviation of the layer's weights.
        rng: Draws the noise.
    """
    for layer in flow.layers.values():
        rows, columns = _picks(layer.makes, maps), _picks(layer.reads, maps)
        if rows is None and columns is None:
            continue
        tensors = picked(layer, rows, columns)
        if noise and rng is not None and rows is not None and layer.mixes:
            tensors["weight"] = disturbed(tensors["weight"], rows.copies, noise, rng)
        put(layer.module, tensors)
        _resize(layer, rows, columns)


def _picks(axis: Axis | None, maps: Maps) -> Picks | None:
    if axis is None or not any(run.group.root in maps for run in axis.runs):
        return None
    unchanged = [maps.get(r.group.root, torch.arange(r.group.size)) for r in axis.runs]
    return Picks.along(axis, unchanged)


def picked(layer: Layer, rows: Picks | None, columns: Picks | None) -> dict[str, Tensor]:
    """Return a layer's tensors with outputs and inputs taken from old positions.

    Args:
        layer: Left as it is.
        rows: Of what it makes; None leaves them.
        columns: Of what it reads; None leaves them. Passed over where the layer does not mix.
    Returns:
        Name -> tensor, for the tensors along channels: `[rows, columns / groups, ...]` or `[rows]`.
    """
    module, found = layer.module, {}
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers()]:
        new = tensor.detach()
        if new.ndim > 1 and layer.mixes and columns is not None:
            new = _read(new, columns, getattr(module, "groups", 1))
        if new.ndim and rows is not None:
            new = new.index_select(0, rows.source.to(new.device))
        found[name] = new.clone()
    return found


def _read(weight: Tensor, columns: Picks, groups: int) -> Tensor:
    """Take columns of a weight `[out, in / groups, ...]` and share them out."""
    source = columns.source.to(weight.device).reshape(groups, -1)
    shape = (1, -1, *[1] * (weight.ndim - 2))
    shares = columns.share.to(weight).reshape(groups, -1)
    taken = [
        part.index_select(1, own - i * weight.shape[1]) * share.reshape(shape)
        for i, (part, own, share) in enumerate(zip(weight.chunk(groups), source, shares))
    ]
    return torch.cat(taken)


def disturbed(weight: Tensor, copies: Tensor, noise: float, rng: np.random.Generator) -> Tensor:
    """Return a weight with noise on the rows that are copies, so that training tells them apart.

    Args:
        weight: `[out, ...]`.
        copies: Which rows repeat another one, bool `[out]`.
        noise: Deviation of the noise, as a multiple of the weight's.
        rng: Draws it.
    """
    drawn = torch.from_numpy(rng.standard_normal(tuple(weight.shape))).to(weight)
    drawn[~copies.to(weight.device)] = 0.0
    return weight + noise * weight.std() * drawn


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module new tensors in the place of its own, of any shape.

    Args:
        module: Changed in place.
        tensors: Name of a parameter or buffer -> tensor `[...]`.
    """
    for name, tensor in tensors.items():
        own = module._parameters.get(name)
        if own is not None:
            module._parameters[name] = nn.Parameter(tensor, requires_grad=own.requires_grad)
        else:
            module._buffers[name] = tensor


def _resize(layer: Layer, rows: Picks | None, columns: Picks | None) -> None:
    """Let a layer's own sizes say what its tensors are."""
    module: Any = layer.module
    if isinstance(module, nn.LayerNorm) and rows is not None:
        module.normalized_shape = (len(rows.source),)
    if rows is not None:
        for name in ("out_channels", "out_features", "num_features", "num_channels"):
            _set(module, name, len(rows.source))
        if isinstance(module, nn.PReLU):
            module.num_parameters = len(rows.source)
    if columns is not None:
        for name in ("in_channels", "in_features"):
            _set(module, name, len(columns.source))
        if not layer.mixes:
            _set(module, "groups", len(columns.source))


def _set(module: nn.Module, name: str, size: int) -> None:
    if name in vars(module):
        setattr(module, name, size)
