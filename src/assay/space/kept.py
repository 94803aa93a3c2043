"""What a forward leaves behind in a module, and how it comes along in a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["copied"]


def copied(model: nn.Module, memo: dict[Any, Any]) -> nn.Module:
    """Return a deep copy that takes along what a forward computed and kept.

    torch copies no tensor that has a history, such as an activation kept as an attribute or the
    weight that `nn.utils.weight_norm` works out; the copy holds its value without the history.

    Args:
        model: Tensors in tuples, lists and dicts of its modules are found too.
        memo: As of `copy.deepcopy`, which fills it.
    """
    told = dict(memo)
    try:
        return copy.deepcopy(model, memo)
    except RuntimeError:  # of torch, for a tensor with a history; few models have any
        memo.clear()
        memo.update(told | _without_history(model))
        return copy.deepcopy(model, memo)


def _without_history(model: nn.Module) -> dict[Any, Any]:
    kept = (t for module in model.modules() for t in _tensors(module.__dict__) if not t.is_leaf)
    return {id(t): t.detach().clone() for t in kept}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
