"""New weights: for a network trained from scratch, and for the whole model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.build import build
from assay.space.structure import explore

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["fresh", "reset"]


def fresh(space: Space, architecture: Architecture, seed: int) -> nn.Module:
    """Build an architecture with weights drawn anew, as if it had been written by hand.

    The model's factory draws them, custom schemes included; a layer that shrank is reset by its
    own `reset_parameters`, because the scale of an initialisation depends on the layer's size. A
    model that was given as an instance has no factory: every layer that can is reset, and all else
    is as it was given, see `reset`.

    Args:
        space: The space; it is left as it is.
        architecture: A point of it.
        seed: Same seed, same weights; torch's global generator is left as it was.
    """
    with _seeded(seed):
        if space.factory is not None:
            twin = space.factory()
            return build(twin, explore(twin), architecture, renew=True)
        with _as_given(space):
            built = space.build(architecture)
        _reset_layers(built)
        return built


def reset(space: Space, seed: int) -> None:
    """Draw the weights of a space's own model anew, in place.

    A model that was given as an instance takes up again the weights that it came with: those that
    it had when `fresh` or `reset` was asked of its space for the first time.
    """
    if space.factory is None:
        space.model.load_state_dict(_given(space))
        return
    with _seeded(seed):
        space.model.load_state_dict(space.factory().state_dict())


def _given(space: Space) -> Mapping[str, Any]:
    """Return the state of an instance as it was given, which is kept before it is changed."""
    if space.given is None:
        space.given = copy.deepcopy(space.model.state_dict())
    return space.given


@contextmanager
def _as_given(space: Space) -> Iterator[None]:
    """Within: the model is in the state it was given in; then in its own again."""
    own = copy.deepcopy(space.model.state_dict())
    space.model.load_state_dict(_given(space))
    try:
        yield
    finally:
        space.model.load_state_dict(own)
        space.select(space.selected)  # what is selected may hold copies


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(derive(seed, "init").integers(2**63)))
        yield


def _reset_layers(model: nn.Module) -> None:
    for module in model.modules():
        reset_parameters = getattr(module, "reset_parameters", None)
        if callable(reset_parameters):
            reset_parameters()
