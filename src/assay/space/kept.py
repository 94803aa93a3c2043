"""What a forward leaves behind in a module, and how it comes along in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["detach_kept"]


def detach_kept(model: nn.Module) -> dict[Any, Any]:
    """Return a memo for `copy.deepcopy` that takes along what a forward computed and kept.

    torch copies no tensor that has a history, such as an activation kept as an attribute or the
    weight that `nn.utils.weight_norm` works out; a copy holds its value without the history.

    Args:
        model: What will be copied; tensors in tuples, lists and dicts of a module are found too.
    """
    kept = (t for module in model.modules() for t in _tensors(module.__dict__) if not t.is_leaf)
    return {id(t): t.detach().clone() for t in kept}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
