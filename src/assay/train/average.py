"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from assay.errors import InvalidStudy

__all__ = ["Average"]


class Average:
    """An exponential moving average of all that a module's state holds; integers are copied.

    The decay of update n = 1, 2, ... is min(decay, (1 + n) / (10 + n)), so that the first steps do
    not linger.

    Args:
        module: Its weights and buffers as they are begin the average.
        decay: How much of the average an update keeps, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._updates = 0
        names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        names |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
        state = module.state_dict()  # with extra state, and without buffers that are not kept
        self._kept = {k: v.detach().clone() for k, v in state.items() if k in names}
        # Walking the state anew takes longer than the average itself.
        live = [(_home(module, name), kept) for name, kept in self._kept.items()]
        self._floats = [(home, kept) for home, kept in live if kept.is_floating_point()]
        self._others = [(home, kept) for home, kept in live if not kept.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        if self._floats:
            live = [tensors[name] for (tensors, name), _ in self._floats]
            torch._foreach_lerp_([kept for _, kept in self._floats], live, 1.0 - decay)
        for (tensors, name), kept in self._others:
            kept.copy_(tensors[name])

    def apply(self) -> None:
        """Put the average in the place of the weights."""
        self._module.load_state_dict(self._kept, strict=False)  # extra state is not averaged

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within: the module has the average; after, its own weights again."""
        state = self._module.state_dict()
        own = {name: state[name].clone() for name in self._kept}
        self.apply()
        try:
            yield
        finally:
            self._module.load_state_dict(own, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the average by name, and the number of updates."""
        return {**{f"weights.{k}": v for k, v in self._kept.items()}, "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; the tensors are copied.

        Raises:
            InvalidStudy: it was saved without an average, or of another network.
        """
        if set(state) != {"updates", *(f"weights.{k}" for k in self._kept)}:
            raise InvalidStudy(
                f"the saved training has averages of {len(state)} tensors where this network has "
                f"{len(self._kept) + 1}; use the recipe and the network that it was saved with"
            )
        for name, kept in self._kept.items():
            kept.copy_(state[f"weights.{name}"])
        self._updates = int(state["updates"])


def _home(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Return the dict that holds a tensor of the state, and its key there."""
    path, _, key = name.rpartition(".")
    owner = module.get_submodule(path)
    return (owner._parameters if key in owner._parameters else owner._buffers), key
