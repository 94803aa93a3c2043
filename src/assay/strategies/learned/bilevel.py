"""The mathematics of DARTS' two levels: what a mix loses, and the gradient of that by alpha.

A loss is a function of alpha, by label, and of the weights, by name; `second_order` knows nothing
else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from assay.contracts import Mix
from assay.space.space import Space
from assay.train.splits import Batch, map_tensors
from assay.train.standing import standing_in
from assay.train.task import Task, call_model

__all__ = ["by_alpha", "drawn_gate", "mixed_loss", "second_order", "zero_one"]

Named: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[[Named, Named], Tensor]

_FAR = 0.01  # length of the step to either side


def mixed_loss(
    space: Space,
    task: Task,
    batch: Batch,
    mix: Mix,
    weights: Named | None = None,
    *,
    call: Callable[..., Any] = call_model,
) -> Tensor:
    """Return the training loss of a mix on a batch, a scalar; the mix stays selected.

    Args:
        space: Of the supernet.
        task: Names the loss.
        batch: Inputs `[N, ...]` and targets `[N, ...]`; what a forward writes goes into a copy.
        mix: What is activated; its weights may have a graph.
        weights: Stand for the model's parameters of these names; None for its own.
        call: Passes inputs through a model.
    """
    inputs, targets = batch
    space.select(mix)
    run = space.model if weights is None else standing_in(space.model, weights)
    return task.training_loss(call(run, map_tensors(inputs, Tensor.clone)), targets, 0.0)


def by_alpha(loss: Tensor, alphas: Named) -> dict[str, Tensor]:
    """Return the gradient of a scalar by each alpha, `[number of options]`; 0 where it has none."""
    found = torch.autograd.grad(loss, list(alphas.values()), materialize_grads=True)
    return dict(zip(alphas, found))


def second_order(
    train: Loss, valid: Loss, alphas: Named, weights: Named, xi: float
) -> dict[str, Tensor]:
    """Return the gradient by each alpha of L_val(w', alpha), w' = w - xi d/dw L_train(w, alpha).

    With g = d/dw' L_val(w', alpha) and w± = w ± eps g, eps = 0.01 / |g|, it is

        d/dalpha L_val - xi (d/dalpha L_train(w+, alpha) - d/dalpha L_train(w-, alpha)) / 2 eps,

    exact where L_train is quadratic.

    Source: Liu, Simonyan, Yang 2019, arXiv:1806.09055, equations 7 and 8.

    Args:
        train: L_train.
        valid: L_val.
        alphas: Label -> alpha `[number of options]`, with `requires_grad`.
        weights: Name -> w of any shape `[...]`, with `requires_grad`.
        xi: Rate of the inner step.
    """
    fixed = {label: alpha.detach() for label, alpha in alphas.items()}
    inner = torch.autograd.grad(
        train(fixed, weights), list(weights.values()), materialize_grads=True
    )
    ahead = {
        name: (w - xi * g).detach().requires_grad_() for (name, w), g in zip(weights.items(), inner)
    }
    leaves = [*alphas.values(), *ahead.values()]
    found = torch.autograd.grad(valid(alphas, ahead), leaves, materialize_grads=True)
    direct, outer = dict(zip(alphas, found)), found[len(alphas) :]
    norm = float(torch.stack([(g.double() ** 2).sum() for g in outer]).sum().sqrt())
    if norm == 0.0:
        return direct
    eps = _FAR / norm
    plus, minus = (
        by_alpha(train(alphas, _moved(weights, outer, sign * eps)), alphas) for sign in (1.0, -1.0)
    )
    return {k: g - xi * (plus[k] - minus[k]) / (2 * eps) for k, g in direct.items()}


def _moved(weights: Named, along: tuple[Tensor, ...], by: float) -> dict[str, Tensor]:
    return {name: (w + by * g).detach() for (name, w), g in zip(weights.items(), along)}


def drawn_gate(alpha: Tensor, noise: Tensor, temperature: float) -> tuple[int, Tensor]:
    """Return the position that is drawn, and its gate: a scalar 1 with the gradient of a softmax.

    Where the noise is Gumbel's, a position is drawn with its probability p = softmax(alpha). The
    gradient is that of softmax((log p + noise) / temperature) at the position.

    Source: Dong, Yang 2019, arXiv:1910.04465, section 3.2, equations 3 to 5.

    Args:
        alpha: `[number of options]`.
        noise: `[number of options]`.
        temperature: Of the softmax whose gradient is taken; the draw does not depend on it.
    """
    soft = torch.softmax((torch.log_softmax(alpha, 0) + noise) / temperature, 0)
    at = int(soft.argmax())
    return at, 1.0 + (soft[at] - soft[at].detach())  # exactly 1


def zero_one(alphas: Named) -> Tensor:
    """Return -mean((sigmoid(alpha) - 0.5)^2) over all entries, a scalar: 0 where all are unsure.

    Source: Chu et al. 2020, "Fair DARTS", arXiv:1911.12126, section 4.2.

    Args:
        alphas: Label -> alpha `[number of options]`.
    """
    gates = torch.sigmoid(torch.cat(list(alphas.values())))
    return -((gates - 0.5) ** 2).mean()
