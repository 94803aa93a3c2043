"""ProxylessNAS's arithmetic: two options drawn of each operation, one of them active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Option
from assay.space.structure import meets
from assay.strategies.learned.alphas import Alphas

__all__ = [
    "Drawn",
    "EntryAdam",
    "draw_step",
    "draw_two",
    "gate_gradient",
    "kept_apart",
    "score_gradients",
]

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


@dataclass
class Drawn:
    """What an architecture step runs, and which decisions it learns of.

    Attributes:
        pairs: Label -> positions of two options, the active one first, of each operation on the
            active path.
        single: Label -> option of each other decision on the active path.
        behind: Label -> option of each decision that only options that are held lead to. They run,
            and nothing is learned of them: no gradient of the loss reaches behind an option held.
    """

    pairs: dict[str, list[int]] = field(default_factory=dict)
    single: dict[str, Option] = field(default_factory=dict)
    behind: dict[str, Option] = field(default_factory=dict)


def draw_step(alphas: Alphas, rng: np.random.Generator) -> Drawn:
    """Draw two options of each operation on the active path, and one of all else that runs.

    Args:
        alphas: Chances of the options.
        rng: Where the draws come from.
    """
    drawn = Drawn()
    active: dict[str, Option] = {}
    mix: dict[str, dict[Option, float]] = {}
    for label, choice in alphas.space.choices.items():
        if not meets(choice.conditions, mix):
            continue
        learns = choice.active(active)
        if learns and choice.kind == "OneOf":
            at = list(draw_two(alphas.probabilities(label).numpy(), rng))
            q = torch.softmax(alphas.logits[label][at], 0).numpy()
            drawn.pairs[label] = at if rng.random() < q[0] else at[::-1]
            options = [choice.options[i] for i in drawn.pairs[label]]
        else:
            options = [choice.options[alphas.draw(label, rng)]]
            (drawn.single if learns else drawn.behind)[label] = options[0]
        if learns:
            active[label] = options[0]
        mix[label] = dict.fromkeys(options, 1.0)
    return drawn


def gate_gradient(gates: Tensor, logits: Tensor) -> Tensor:
    """Return the gradient of a loss by the logits of some options, given that by their gates.

    dL/dalpha_i = sum_j dL/dg_j q_j (delta_ij - q_i), with q the softmax over these options.

    Source: Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332, section 3.2.1, equation 4, and over
    two options as that section ends.

    Args:
        gates: dL/dg, `[n]`: 2 of a pair.
        logits: alpha, `[n]`.
    """
    q = torch.softmax(logits, 0)
    return q * (gates - (gates * q).sum())


def kept_apart(new: Tensor, old: Tensor) -> Tensor:
    """Return the new logits of a pair, shifted so that no other option's probability moves.

    The sum of exp(alpha) over the pair stays what it was.

    Source: Cai et al. 2019, arXiv:1812.00332, section 3.2.1.

    Args:
        new: `[2]`.
        old: `[2]`.
    """
    return new - torch.logsumexp(new, 0) + torch.logsumexp(old, 0)


def score_gradients(
    alphas: Alphas, drawn: Sequence[tuple[Mapping[str, Option], float]], baseline: float
) -> dict[str, Tensor]:
    """Estimate the gradient of the expected loss by the logits, from draws.

    The mean over the draws of (loss - baseline) grad log p, where the gradient of log p_c(o) by
    alpha_c is e_o - p_c.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", Machine Learning 8.

    Args:
        alphas: What was drawn from.
        drawn: For each path the options meant, and the loss that they had.
        baseline: What is taken from each loss; it may be anything that the draw did not influence.
    Returns:
        Label -> gradient `[number of options]`, for the decisions that were drawn.
    """
    found: dict[str, Tensor] = {}
    for options, loss in drawn:
        for label, option in options.items():
            by_logit = -alphas.probabilities(label)
            by_logit[alphas.space.choices[label].options.index(option)] += 1
            gain = (loss - baseline) / len(drawn)
            found[label] = found.get(label, torch.zeros_like(by_logit)) + gain * by_logit
    return found


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
