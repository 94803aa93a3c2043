"""Running a model with choices on an example; a failure names the module that it came from."""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import AssayError, InvalidSpace, LostLink
from assay.space.sizes import remake
from assay.train.splits import map_tensors

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["beside", "run"]


def run(space: Space, model: nn.Module, inputs: Any, architecture: Architecture) -> Any:
    """Call the model of a space, or a network built of it.

    Args:
        space: The space.
        model: What runs: its model with the architecture selected, or the network built of it.
        inputs: A tensor `[N, ...]`, a tuple (positional) or a dict (by keyword) of tensors; what a
            forward writes goes into a copy.
        architecture: What runs, for the message.
    Raises:
        LostLink: it fails with sizes below their largest; names the module.
        InvalidSpace: it fails with every size at its largest, so no size is to blame.
    """
    inputs = map_tensors(inputs, Tensor.clone)
    try:
        if isinstance(inputs, tuple):
            return model(*inputs)
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except AssayError:
        raise
    except Exception as error:
        raise _named(error, space, model, inputs, architecture) from error


def beside(model: nn.Module, inputs: Any) -> Any:
    """Return inputs on the device of a model; a model without tensors takes them as they are."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return inputs if tensor is None else _moved(inputs, tensor)


def _moved(inputs: Any, tensor: Tensor) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(tensor.device)
    if isinstance(inputs, dict):
        return {name: _moved(value, tensor) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return remake(inputs, [_moved(value, tensor) for value in inputs])
    return inputs


def _named(
    error: Exception, space: Space, model: nn.Module, inputs: Any, architecture: Architecture
) -> InvalidSpace:
    """Say of an error in a forward where it arose, on what, and what to do."""
    place = _raised_in(model, error) or type(model).__name__
    cause = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    said = f"{place}: the path {dict(architecture)} does not run ({cause})"
    if any(value != int(root) for root, value in space.sizes(architecture).items()):
        return LostLink(
            f"{said}; if a size was fixed here, hand it the Width or Kernel itself, or a size "
            "worked out of it by +, -, * or //"
        )
    return InvalidSpace(
        f"{said} on inputs of shape {_shapes(inputs)}; correct the model, or the data it is given"
    )


def _raised_in(model: nn.Module, error: BaseException) -> str:
    """Return the path of the innermost module whose code was under way."""
    paths = {id(module): path for path, module in model.named_modules()}
    running = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    inside = [paths[id(owner)] for owner in running if id(owner) in paths]
    return inside[-1] if inside else ""


def _shapes(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return list(inputs.shape)
    if isinstance(inputs, dict):
        return {name: _shapes(value) for name, value in inputs.items()}
    return tuple(map(_shapes, inputs)) if isinstance(inputs, tuple | list) else inputs
