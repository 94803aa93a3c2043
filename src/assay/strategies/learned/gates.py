"""ProxylessNAS's arithmetic: two options drawn of each decision, one of them active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["EntryAdam", "draw_two", "gate_gradient", "kept_apart"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def draw_two(p: Array, rng: np.random.Generator) -> tuple[int, int]:
    """Draw two different positions: the first by p, the second by p among the others.

    Args:
        p: Probabilities `[n]`, n of 2 or more, all above 0.
        rng: Where the draws come from.
    """
    first = int(rng.choice(len(p), p=p / p.sum()))
    rest = p.copy()
    rest[first] = 0.0
    second = int(rng.choice(len(p), p=rest / rest.sum()))
    return first, second


def gate_gradient(gates: Tensor, logits: Tensor) -> Tensor:
    """Return the gradient of a loss by the logits of a pair, given that by its binary gates.

    dL/dalpha_i = sum_j dL/dg_j q_j (delta_ij - q_i), with q the softmax over the pair.

    Source: Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332, equation 4 of section 3.2.1; over two
    options as in section 3.2.2.

    Args:
        gates: dL/dg, `[2]`.
        logits: alpha of the pair, `[2]`.
    """
    q = torch.softmax(logits, 0)
    return q * (gates - (gates * q).sum())


def kept_apart(new: Tensor, old: Tensor) -> Tensor:
    """Return the new logits of a pair, shifted so that no other option's probability moves.

    The sum of exp(alpha) over the pair stays what it was.

    Source: Cai et al. 2019, arXiv:1812.00332, section 3.2.2.

    Args:
        new: `[2]`.
        old: `[2]`.
    """
    return new - torch.logsumexp(new, 0) + torch.logsumexp(old, 0)


class EntryAdam:
    """Adam on single entries of the logits: an entry that was not drawn is left as it is.

    Each entry counts its own steps. Its moments neither decay nor move while it is not drawn.

    Source: Kingma, Ba 2015, arXiv:1412.6980, with beta_1 = 0 as in the released code of
    ProxylessNAS; differs: dense Adam would decay the moments of all entries at every step.

    Args:
        sizes: Label -> number of options.
        lr: Learning rate.
        betas: Decay of the first and of the second moment.
    """

    def __init__(
        self, sizes: Mapping[str, int], lr: float, betas: tuple[float, float] = (0.0, 0.999)
    ) -> None:
        self._lr = lr
        self._betas = betas
        self._state = {label: torch.zeros(3, n, dtype=torch.float64) for label, n in sizes.items()}

    def step(self, label: str, at: list[int], gradient: Tensor) -> Tensor:
        """Return what to add to the entries `at` of a decision's logits, `[len(at)]`.

        Args:
            label: The decision.
            at: Positions drawn.
            gradient: Of the loss, by these entries.
        """
        count, mean, square = self._state[label]
        one, two = self._betas
        count[at] += 1
        mean[at] = one * mean[at] + (1 - one) * gradient
        square[at] = two * square[at] + (1 - two) * gradient**2
        corrected = mean[at] / (1 - one ** count[at])
        scale = torch.sqrt(square[at] / (1 - two ** count[at])) + 1e-8
        move: Tensor = -self._lr * corrected / scale
        return move

    def state_dict(self) -> dict[str, Tensor]:
        """Return steps, first and second moments `[3, options]` by label."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` returned; the tensors are copied."""
        self._state = {label: v.detach().clone() for label, v in state.items()}
