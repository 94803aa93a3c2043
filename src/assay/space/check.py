"""Whether a model's paths run, and equal the networks that `build` makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import InvalidSpace, LostLink
from assay.space.extremes import call
from assay.space.space import Space

__all__ = ["check_paths"]


def check_paths(space: Space, inputs: Any, architectures: Sequence[Architecture]) -> None:
    """Run paths of the model on an example and compare each with its built network.

    Args:
        space: The space; its selection is undone, its mode and weights are left as they are.
        inputs: A batch `[N, ...]`, or a tuple or dict of tensors, on the model's device.
        architectures: The paths to run; take the largest, the smallest and a few random ones.
    Raises:
        LostLink: a path fails where an open size turned into a plain number; names the module.
        InvalidSpace: a path and its built network differ.
    """
    mode = space.model.training
    space.model.eval()
    try:
        with torch.no_grad():
            for architecture in architectures:
                _check_path(space, inputs, architecture)
    finally:
        space.select(None)
        space.model.train(mode)


def _check_path(space: Space, inputs: Any, architecture: Architecture) -> None:
    space.select(architecture)
    with _named_failures(space.model, architecture):
        path = call(space.model, inputs)
    built = space.build(architecture)
    with _named_failures(built, architecture):
        network = call(built, inputs)
    for one, other in zip(_tensors(path), _tensors(network), strict=True):
        scale = float(one.detach().abs().max().clamp(min=1.0)) if one.numel() else 1.0
        gap = float((one - other).detach().abs().max()) if one.numel() else 0.0
        if not gap <= 1e-3 * scale:
            raise InvalidSpace(
                f"the path {dict(architecture)} and the network built from it differ by {gap:.3g}; "
                "does forward() depend on something beside its inputs and submodules?"
            )


@contextmanager
def _named_failures(model: nn.Module, architecture: Architecture) -> Iterator[None]:
    """Within: an error in a forward is raised again with the path of the module it came from."""
    under_way: list[str] = []
    hooks = []
    for path, module in model.named_modules():

        def enter(_m: Any, _args: Any, path: str = path) -> None:
            under_way.append(path)

        def leave(_m: Any, _args: Any, _out: Any) -> None:
            under_way.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    except RuntimeError as error:
        path = under_way[-1] if under_way and under_way[-1] else type(model).__name__
        raise LostLink(
            f"{path}: the path {dict(architecture)} does not run ({_first_line(error)}); "
            "if a size was fixed here, hand it the Width or Kernel itself, or a size worked out "
            "of it by +, -, * or //"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
