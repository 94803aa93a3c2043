"""Updates of the part of a supernet that a step's paths ran, and of nothing else.

torch's own functional SGD and AdamW do the arithmetic, on views: where a path used the first 32 of
64 channels, only these entries of the weight, of its momentum and of its decay move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from assay.space.sizes import OpenSize
from assay.space.slicing import Box, OpenLayer
from assay.train.recipe import Recipe

__all__ = ["PathOptimizer"]


class PathOptimizer:
    """SGD or AdamW over the active parts of a model's parameters.

    A parameter that no path of the step ran has no gradient and is left alone, decay included. Of
    one that some path ran in part, the smallest box that holds the parts of all the step's paths
    is updated.

    Args:
        model: The model with choices.
        recipe: Names the optimiser and its settings; parameters of fewer than two dimensions are
            not decayed, as in the plain training loop.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._params = dict(model.named_parameters())
        self._recipe = recipe
        self._boxes: dict[int, Box | None] = {}  # None is all of it
        self._state: dict[str, dict[str, Tensor]] = {}

    def activate(self, layers: Iterable[OpenLayer], values: Mapping[OpenSize, int]) -> None:
        """Add the parts that a path of this step runs; call once for each path."""
        for layer in layers:
            params = layer.layer._parameters
            for name, box in layer.bounds(values).items():
                key = id(params[name])
                self._boxes[key] = _around(self._boxes[key], box) if key in self._boxes else box

    def zero_grad(self) -> None:
        """Drop all gradients and forget the step's paths."""
        for param in self._params.values():
            param.grad = None
        self._boxes = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the active parts.

        Args:
            lr: Learning rate of this step.
        """
        moving = [(n, p) for n, p in self._params.items() if p.grad is not None]
        for decay in (True, False):
            group = [(n, p) for n, p in moving if (p.ndim > 1) == decay]
            if group:
                self._update(group, lr, self._recipe.weight_decay if decay else 0.0)

    def _update(self, group: list[tuple[str, nn.Parameter]], lr: float, decay: float) -> None:
        boxes = [self._boxes.get(id(p)) for _, p in group]
        params = [_part(p.detach(), box) for (_, p), box in zip(group, boxes)]
        grads = [_part(p.grad, box) for (_, p), box in zip(group, boxes) if p.grad is not None]

        def state(key: str) -> list[Tensor]:
            return [_part(self._buffer(n, p, key), box) for (n, p), box in zip(group, boxes)]

        if self._recipe.optimizer == "sgd":
            momenta: list[Tensor | None] = list(state("momentum"))
            sgd(
                params, grads, momenta, foreach=True, weight_decay=decay,
                momentum=self._recipe.momentum, lr=lr, dampening=0.0, nesterov=True,
                maximize=False,
            )  # fmt: skip
        else:
            # Every step counts for the whole parameter, so that the bias correction is defined.
            steps = [self._buffer(n, p, "step") for n, p in group]
            adamw(
                params, grads, state("mean"), state("square"), [], steps, foreach=True,
                amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=decay, eps=1e-8,
                maximize=False,
            )  # fmt: skip

    def _buffer(self, name: str, param: Tensor, key: str) -> Tensor:
        buffers = self._state.setdefault(name, {})
        if key not in buffers:
            fresh = torch.zeros(()) if key == "step" else torch.zeros_like(param)
            buffers[key] = fresh.detach()
        return buffers[key]

    def state_dict(self) -> dict[str, Any]:
        """Return the buffers, flat: "name/key" -> tensor."""
        return {f"{n}/{k}": t for n, buffers in self._state.items() for k, t in buffers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._state = {}
        for key, value in state.items():
            name, _, kind = key.rpartition("/")
            like = self._params[name]
            device = torch.device("cpu") if kind == "step" else like.device
            if kind == "step":
                kept = value.to(device).clone()
            else:  # in the parameter's memory format, as it was before it was saved
                kept = torch.empty_like(like).copy_(value)
            self._state.setdefault(name, {})[kind] = kept.detach()


def _part(tensor: Tensor, box: Box | None) -> Tensor:
    return tensor if box is None else tensor[box]


def _around(one: Box | None, other: Box | None) -> Box | None:
    if one is None or other is None:
        return None
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other))
