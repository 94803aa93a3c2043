"""What a space is, as a digest: equal choices, layers and code, equal digest, in every process."""

from __future__ import annotations

from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from assay.space.structure import Choice
from assay.train.content import digest_of, named, unplaced, written

__all__ = ["digest"]

_OWN = ("torch", "assay")  # whose code is known by its version


def digest(model: nn.Module, choices: Iterable[Choice]) -> str:
    """Return a hex digest of choices, parameters, layers, and the code of a user's own modules.

    Layers count as they print themselves, a user's own also by the plain values and the functions
    among their attributes. So a study of a model that has changed since is known for another's.

    Args:
        model: With everything that is open in it.
        choices: Its decisions.
    """
    tensors = {n: list(t.shape) for n, t in model.state_dict().items()}
    told = [[c.label, c.kind, c.options] for c in choices]
    layers = [[name, *_layer(module)] for name, module in model.named_modules()]
    return digest_of(told, tensors, layers)


def _layer(module: nn.Module) -> list[Any]:
    """Return class and settings of a module; of one that is a user's own also what it does."""
    kind = type(module)
    told: list[Any] = [kind.__qualname__, unplaced(module.extra_repr())]
    own = [k for k in kind.__mro__[:-1] if k.__module__.partition(".")[0] not in _OWN]
    if own:
        told += [_values(module), *(written(k) for k in own)]
    return told


def _values(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that are plain values, and what names those that are functions."""
    found: dict[str, Any] = {}
    for key, value in vars(module).items():
        if isinstance(value, FunctionType | BuiltinFunctionType):
            found[key] = named(value)
        elif isinstance(value, bool | int | float | str) and key != "training":
            found[key] = value
    return found
