"""torch's optimisers behind what the training loop asks of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from assay.errors import InvalidSpace
from assay.train.recipe import Recipe

__all__ = ["Optimizer", "TorchOptimizer"]


class Optimizer(Protocol):
    """What the loop asks of an optimiser."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        ...

    def step(self, lr: float) -> None:
        """Update the parameters at a learning rate."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        ...


class TorchOptimizer:
    """torch's SGD or AdamW as the recipe says; norms and biases are not decayed.

    A parameter without a gradient is left alone: neither decayed nor moved by its momentum.

    Args:
        module: Whose parameters move.
        recipe: Names the optimiser and its settings.
    Raises:
        InvalidSpace: nothing of the module can be trained.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        self._by_name = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not self._by_name:
            raise InvalidSpace(
                f"nothing of {type(module).__name__} can be trained: it has no parameter that "
                "requires a gradient; add a layer that learns, or unfreeze one by "
                "requires_grad_(True)"
            )
        self._names = {id(p): n for n, p in self._by_name.items()}
        self._optimizer = _optimizer(list(self._by_name.values()), recipe)

    def zero_grad(self) -> None:
        """Drop all gradients, so that what a step does not use is not decayed either."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Update at a learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the buffers as "parameter/buffer" -> tensor."""
        return {
            f"{self._names[id(p)]}/{key}": value
            for p, buffers in self._optimizer.state.items()
            for key, value in buffers.items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; the tensors are copied."""
        self._optimizer.state.clear()
        for key, value in state.items():
            name, _, kind = key.rpartition("/")
            parameter = self._by_name[name]
            # A file knows no memory format: take the parameter's, or sums come out otherwise.
            like = value.cpu() if kind == "step" else parameter
            buffers = self._optimizer.state[parameter]
            buffers[kind] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, foreach=True)
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=True
    )
