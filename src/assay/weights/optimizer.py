"""Updates of the part of a supernet that a step's paths ran, and of nothing else.

torch's own functional SGD and AdamW do the arithmetic, on views: where a path used the first 32 of
64 channels, only these entries of the weight, of its momentum and of its decay move. Where paths of
one step used parts that make up no box, each entry is in one view of several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from assay.space.sizes import OpenSize, Pieces
from assay.space.slicing import Box, OpenLayer, boxes, remember
from assay.train.recipe import Recipe

__all__ = ["PathOptimizer"]

_Parts: TypeAlias = "tuple[Box, ...] | None"
"""Disjoint parts of a parameter; None is all of it."""

_WHOLE = (None,)


class PathOptimizer:
    """SGD or AdamW over the active parts of a model's parameters.

    A parameter that no path of the step ran has no gradient and is left alone, decay included. Of
    one that some path ran in part, the entries that the step's paths ran are updated, each once.

    Args:
        model: The model with choices.
        recipe: Names the optimiser and its settings; parameters of fewer than two dimensions are
            not decayed, as in the plain training loop.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._params = dict(model.named_parameters())
        self._recipe = recipe
        self._parts: dict[int, _Parts] = {}  # by the id of the parameter
        # By layer, and by the values that it reads.
        self._known: dict[OpenLayer, dict[tuple[int, ...], list[tuple[int, _Parts]]]] = {}
        self._state: dict[str, dict[str, Tensor]] = {}

    def activate(self, layers: Iterable[OpenLayer], values: Mapping[OpenSize, int]) -> None:
        """Add the parts that a path of this step runs; call once for each path."""
        for layer in layers:
            of_layer = self._known.setdefault(layer, {})
            key = tuple([values[root] for root in layer.roots])
            active = of_layer.get(key)
            if active is None:
                active = remember(of_layer, key, _active(layer, values))
            for param, parts in active:
                known = param in self._parts
                self._parts[param] = _joined(self._parts[param], parts) if known else parts

    def zero_grad(self) -> None:
        """Drop all gradients and forget the step's paths."""
        for param in self._params.values():
            param.grad = None
        self._parts = {}

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
        moving = [(n, p, box) for n, p in group for box in self._parts.get(id(p)) or _WHOLE]
        params = [_part(p.detach(), box) for _, p, box in moving]
        grads = [_part(p.grad, box) for _, p, box in moving if p.grad is not None]

        def state(key: str) -> list[Tensor]:
            return [_part(self._buffer(n, p, key), box) for n, p, box in moving]

        if self._recipe.optimizer == "sgd":
            momenta: list[Tensor | None] = list(state("momentum"))
            sgd(
                params, grads, momenta, foreach=True, weight_decay=decay,
                momentum=self._recipe.momentum, lr=lr, dampening=0.0, nesterov=True,
                maximize=False,
            )  # fmt: skip
        else:
            steps = self._steps(moving)
            adamw(
                params, grads, state("mean"), state("square"), [], steps, foreach=True,
                amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=decay, eps=1e-8,
                maximize=False,
            )  # fmt: skip

    def _steps(self, moving: list[tuple[str, nn.Parameter, Box | None]]) -> list[Tensor]:
        """Return the counters that AdamW will raise, one for each part.

        Every step counts for the whole parameter, so that the bias correction is defined; and
        once, so that all its parts but the first are given copies.
        """
        steps: dict[str, Tensor] = {}
        return [
            steps[n].clone() if n in steps else steps.setdefault(n, self._buffer(n, p, "step"))
            for n, p, _ in moving
        ]

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


def _active(layer: OpenLayer, values: Mapping[OpenSize, int]) -> list[tuple[int, _Parts]]:
    """Return, for each parameter of a layer by its id, the parts that run at some values."""
    params = layer.layer._parameters
    return [
        (id(param), _parts(pieces, param.shape))
        for name, pieces in layer.regions(values).items()
        if (param := params.get(name)) is not None
    ]


def _parts(pieces: tuple[Pieces, ...], shape: torch.Size) -> _Parts:
    runs = tuple(_merged(of_dim) for of_dim in pieces)
    whole = all(
        len(of_dim) == 1 and of_dim[0].stop - of_dim[0].start == n for of_dim, n in zip(runs, shape)
    )
    return None if whole else tuple(boxes(runs))


def _merged(runs: Pieces) -> Pieces:
    """Return runs, given in order, with those that touch made one."""
    merged: list[slice] = []
    for run in runs:
        if merged and merged[-1].stop == run.start:
            run = slice(merged.pop().start, run.stop)
        merged.append(run)
    return tuple(merged)


def _joined(held: _Parts, more: _Parts) -> _Parts:
    """Return disjoint parts that hold what either holds, and nothing else."""
    if held is None or more is None:
        return None
    kept = [box for box in held if all(_without(box, other) for other in more)]
    added = list(more)
    for box in kept:
        added = [rest for other in added for rest in _without(other, box)]
    return (*kept, *added)


def _without(box: Box, other: Box) -> list[Box]:
    """Return disjoint boxes that make up what a box holds and another does not."""
    if any(a.stop <= b.start or b.stop <= a.start for a, b in zip(box, other)):
        return [box]
    rest = []
    for dim, (a, b) in enumerate(zip(box, other)):
        before, inside = slice(a.start, b.start), slice(max(a.start, b.start), min(a.stop, b.stop))
        for side in (before, slice(b.stop, a.stop)):
            if side.start < side.stop:
                rest.append((*box[:dim], side, *box[dim + 1 :]))
        box = (*box[:dim], inside, *box[dim + 1 :])
    return rest
