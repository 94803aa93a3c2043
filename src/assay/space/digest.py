"""What a space is, as a digest: equal choices, layers and code, equal digest, in every process."""

from __future__ import annotations

from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import fx, nn

from assay.space.structure import Choice
from assay.train.content import digest_of, named, unplaced, written

__all__ = ["digest"]

_OWN = ("torch", "assay")  # whose code is known by its version
_TORCHS = frozenset(vars(nn.Module()))  # attributes, hooks and the mode among them


def digest(model: nn.Module, choices: Iterable[Choice]) -> str:
    """Return a hex digest of choices, parameters, layers, and the code of a user's own modules.

    Layers count as they print themselves, a user's own also by the plain values and the functions
    among their attributes, also in tuples, lists and dicts; a graph as the code that it stands for.
    So a study of a model that has changed since is known for another's.

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
    if isinstance(module, fx.GraphModule):
        told.append(module.code)
    own = [k for k in kind.__mro__[:-1] if k.__module__.partition(".")[0] not in _OWN]
    if own:
        attributes = {k: v for k, v in vars(module).items() if k not in _TORCHS}
        told += [_plain(attributes), *(written(k) for k in own)]
    return told


def _plain(value: Any) -> Any:
    """Return what of a value is the same in every process, functions by name; None for nothing."""
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return named(value)
    if isinstance(value, tuple | list):
        return [kept for v in value if (kept := _plain(v)) is not None] or None
    if isinstance(value, dict):
        pairs = ([_plain(key), _plain(v)] for key, v in value.items())
        return [pair for pair in pairs if None not in pair] or None
    return value if isinstance(value, bool | int | float | str) else None
