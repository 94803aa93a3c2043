"""Whether a model's paths run, and equal the networks that `build` makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from assay.architecture import Architecture
from assay.errors import InvalidSpace
from assay.space.forward import beside, run
from assay.space.space import Space
from assay.train.modes import evaluating

__all__ = ["check_paths"]

_TOLERANCE = 1e-3
"""Relative to the largest output, or 1: above rounding, below any wrong part of a tensor."""


def check_paths(space: Space, inputs: Any, architectures: Sequence[Architecture]) -> None:
    """Run paths of the model on an example and compare each with its built network.

    Args:
        space: The space; its selection is undone, its mode and weights are left as they are.
        inputs: A batch `[N, ...]`, or a tuple or dict of tensors, on any device.
        architectures: The paths to run; take the largest, the smallest and a few random ones.
    Raises:
        LostLink: a path fails where an open size turned into a plain number; names the module.
        InvalidSpace: a path does not run even so, which names the module too, or a path and its
            built network differ.
    """
    inputs = beside(space.model, inputs)
    try:
        with torch.no_grad(), evaluating(space.model):
            for architecture in architectures:
                _check_path(space, inputs, architecture)
    finally:
        space.select(None)


def _check_path(space: Space, inputs: Any, architecture: Architecture) -> None:
    space.select(architecture)
    path = list(_tensors(run(space, space.model, inputs, architecture)))
    built = space.build(architecture)
    network = list(_tensors(run(space, built, inputs, architecture)))
    if (difference := _difference(path, network)) is not None:
        raise InvalidSpace(
            f"the path {dict(architecture)} and the network built from it differ {difference}; "
            "does forward() depend on something beside its inputs and submodules?"
        )


def _difference(path: list[Tensor], network: list[Tensor]) -> str | None:
    if [t.shape for t in path] != [t.shape for t in network]:
        return f"in shape, {_shapes(path)} and {_shapes(network)}"
    for one, other in zip(path, network):
        if torch.equal(one, other):
            continue
        wide = torch.complex128 if one.is_complex() else torch.float64
        gap = float((one.to(wide) - other.to(wide)).abs().max())
        if not gap <= _TOLERANCE * max(float(one.to(wide).abs().max()), 1.0):
            return f"by {gap:.3g}"
    return None


def _shapes(tensors: Sequence[Tensor]) -> list[list[int]]:
    return [list(t.shape) for t in tensors]


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)
