"""A model called with other tensors in the place of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["standing_in"]


def standing_in(model: nn.Module, named: Mapping[str, Tensor]) -> Callable[..., Any]:
    """Return what calls a model with tensors in the place of its parameters and buffers.

    `functional_call` alone leaves them behind in a module that lies at two places of the model: it
    puts them in once for each name of it. Here each place that holds a tensor is named once.

    Args:
        model: It has its own tensors again after each call.
        named: Name in `named_parameters` or `named_buffers` -> what stands in, `[...]` of the same
            shape, everywhere where the tensor of that name is.
    """
    own = chain(model.named_parameters(), model.named_buffers())
    instead = {id(tensor): named[name] for name, tensor in own if name in named}
    places = {name: instead[id(tensor)] for name, tensor in _places(model) if id(tensor) in instead}

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, places, args, kwargs, tie_weights=False)

    return call


def _places(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each place that holds a tensor, under the first name of its module."""
    for path, module in model.named_modules():
        parts = (module.named_parameters, module.named_buffers)
        for part in parts:
            yield from part(path, recurse=False, remove_duplicate=False)
