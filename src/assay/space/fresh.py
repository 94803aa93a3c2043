"""New weights: for a network trained from scratch, and for the whole model."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSpace
from assay.space.build import build
from assay.space.kept import copied
from assay.space.structure import explore
from assay.train.frozen import frozen_parts
from assay.train.splits import drawing

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["fresh", "made", "reset"]


def fresh(space: Space, architecture: Architecture, seed: int) -> nn.Module:
    """Build an architecture with weights drawn anew, as if it had been written by hand.

    The model's factory draws them, custom schemes included; a layer that shrank is reset by its
    own `reset_parameters`, because the scale of an initialisation depends on the layer's size. A
    model that was given as an instance has no factory: every layer that can is reset, and all else
    is as it was given, see `reset`. So is what is frozen, since no training would bring it back.

    Args:
        space: The space; it is left as it is.
        architecture: A point of it.
        seed: Same seed, same weights, whether torch, NumPy or Python draws them; their global
            generators are left as they were.
    Raises:
        InvalidSpace: the factory returns what is not new.
    """
    with _seeded(seed):
        if space.factory is not None:
            twin = _twin(space, space.factory)
            return build(twin, explore(twin), architecture, renew=True)
        with _as_given(space):
            built = space.build(architecture)
        _reset_layers(built)
        return built


def reset(space: Space, seed: int) -> None:
    """Draw the weights of a space's own model anew, in place.

    A model that was given as an instance takes up again the weights that it came with: those that
    it had when `fresh` or `reset` was asked of its space for the first time.

    Raises:
        InvalidSpace: the factory returns what is not new.
    """
    if space.factory is None:
        space.model.load_state_dict(_given(space))
        return
    with _seeded(seed):
        space.model.load_state_dict(_twin(space, space.factory).state_dict())


def made(model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """Return a copy of a model, or what a callable makes.

    Args:
        model: A module, which stays as it is, or a function without arguments that makes one.
    Raises:
        InvalidSpace: it cannot be called without arguments, or makes no module.
    """
    if isinstance(model, nn.Module):
        lazy = any(map(is_lazy, (*model.parameters(), *model.buffers())))
        return model if lazy else copied(model, {})  # what is lazy is refused when it is explored
    try:
        made = model()
    except TypeError as error:
        if len(traceback.extract_tb(error.__traceback__)) > 1:  # raised by the model's own code
            raise
        raise InvalidSpace(
            f"{model!r} is neither an nn.Module nor a callable without arguments ({error}); give a "
            "module, or a function that makes one, such as lambda: Net(width=16)"
        ) from error
    if not isinstance(made, nn.Module):
        raise InvalidSpace(
            f"{model!r} made no nn.Module but {type(made).__name__}; let it return the module"
        )
    return made


def _twin(space: Space, factory: Callable[[], nn.Module]) -> nn.Module:
    """Make the model anew, and see that what is to be trained is new: the frozen may be shared."""
    twin = factory()
    own = set(map(id, space.model.parameters()))
    for name, parameter in twin.named_parameters():
        if parameter.requires_grad and id(parameter) in own:
            raise InvalidSpace(
                f"{name}: the factory returns a part that was there before, which would be trained "
                "by every network at once; make or load it inside the factory, or give "
                "copy.deepcopy(...) of it"
            )
    return twin


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
    with drawing("init", seed):
        torch.manual_seed(int(derive(seed, "init").integers(2**63)))  # of every device
        yield


def _reset_layers(model: nn.Module) -> None:
    """Reset every layer that can be; what is frozen keeps its values."""
    kept = {tensor: tensor.detach().clone() for tensor in _frozen(model)}
    for module in model.modules():
        reset_parameters = getattr(module, "reset_parameters", None)
        if callable(reset_parameters):
            reset_parameters()
    with torch.no_grad():
        for tensor, value in kept.items():
            tensor.copy_(value)


def _frozen(model: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters that take no gradient, and the buffers of parts that have only such."""
    yield from (p for p in model.parameters() if not p.requires_grad)
    for part in frozen_parts(model):
        yield from part.buffers()
