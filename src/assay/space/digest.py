"""What a space is, as a digest: equal choices, layers and code, equal digest, in every process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, fx, nn

from assay.space.structure import Choice
from assay.train.content import digest_of, written
from assay.train.teller import Teller, unplaced

__all__ = ["digest"]

_OWN = ("torch", "assay")  # whose code is known by its version
_TORCHS = frozenset(vars(nn.Module()))  # attributes, hooks and the mode among them


def digest(model: nn.Module, choices: Iterable[Choice]) -> str:
    """Return a hex digest of choices, parameters, layers, and the code of a user's own modules.

    Layers count as they print themselves, a user's own also by the plain values and what can be
    called among their attributes, also in tuples, lists and dicts, and by what their methods
    captured; a graph as the code that it stands for. So a study of a model that has changed since
    is known for another's.

    Args:
        model: With everything that is open in it.
        choices: Its decisions.
    """
    teller = _Teller()
    state = {  # where a module has extra state that is no tensor
        name: list(kept.shape) if isinstance(kept, Tensor) else _plain(kept, teller)
        for name, kept in model.state_dict().items()
    }
    told = [[c.label, c.kind, c.options] for c in choices]
    layers = [[name, *_layer(module, teller)] for name, module in model.named_modules()]
    return digest_of(told, state, layers)


class _Teller(Teller):
    """Tells what training sets by its shape alone, and captured constants by their bytes."""

    def tensor(self, tensor: Tensor) -> str:
        """Return a tensor `[...]` as text."""
        return str(list(tensor.shape)) if tensor.requires_grad else super().tensor(tensor)

    def state(self, module: nn.Module) -> Mapping[str, Any]:
        """Return the shapes of a module's tensors: its values may be drawn anew in each process."""
        state = module.state_dict()
        return {n: list(t.shape) for n, t in state.items() if isinstance(t, Tensor)}


def _layer(module: nn.Module, teller: Teller) -> list[Any]:
    """Return class and settings of a module; of one that is a user's own also what it does."""
    kind = type(module)
    told: list[Any] = [kind.__qualname__, unplaced(module.extra_repr())]
    if isinstance(module, fx.GraphModule):
        told.append(module.code)
    own = [k for k in kind.__mro__[:-1] if k.__module__.partition(".")[0] not in _OWN]
    if own:
        attributes = {k: v for k, v in vars(module).items() if k not in _TORCHS}
        told += [_plain(attributes, teller), *(written(k, teller) for k in own)]
    return told


def _plain(value: Any, teller: Teller) -> Any:
    """Return what of a value is set once, as the same in every process; None for nothing.

    Tensors and objects that a module keeps may change as it runs.
    """
    if callable(value) and not isinstance(value, nn.Module):
        return teller.told(value)
    if isinstance(value, tuple | list):
        return [kept for v in value if (kept := _plain(v, teller)) is not None] or None
    if isinstance(value, dict):
        pairs = ([_plain(key, teller), _plain(v, teller)] for key, v in value.items())
        return [pair for pair in pairs if None not in pair] or None
    return value if isinstance(value, bool | int | float | str) else None
