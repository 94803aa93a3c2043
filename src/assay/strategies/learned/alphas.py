"""What a learned search knows: a distribution over the options of each decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture, Option
from assay.contracts import History, Proposal
from assay.errors import InvalidStudy
from assay.space.space import Space
from assay.space.structure import Choice, Condition, still_asked

__all__ = ["Alphas", "Sigmoids", "chance_taken"]


class Alphas:
    """Logits over the options of each decision; decisions are drawn independently.

    p_c(o) = exp(alpha_c,o) / sum over o' of exp(alpha_c,o'); an architecture has the product over
    the decisions that it takes.

    Args:
        space: Whose decisions; all options are equally likely at first.
    Attributes:
        logits: Label -> alpha, `[number of options]`, float64.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.logits: dict[str, Tensor] = {
            label: torch.zeros(len(choice.options), dtype=torch.float64)
            for label, choice in space.choices.items()
        }

    def probabilities(self, label: str) -> Tensor:
        """Return p `[number of options]` of a decision; differentiable where its logits are."""
        return torch.softmax(self.logits[label], 0)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture."""

        def draw(choice: Choice) -> Option:
            return choice.options[self.draw(choice.label, rng)]

        return self.space.complete({}, draw)

    def draw(self, label: str, rng: np.random.Generator) -> int:
        """Draw the position of an option of a decision."""
        p = self.probabilities(label).detach().numpy()
        return int(rng.choice(len(p), p=p / p.sum()))

    def best(self) -> Architecture:
        """Return the architecture of the likeliest option of every decision."""
        return self.space.complete({}, lambda c: c.options[int(self.logits[c.label].argmax())])

    def propose(self, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Return the likeliest architecture, unless it was seen, and draws."""
        best = self.best()
        asked = [] if history.seen(self.space.canonical(best)) else [Proposal(best)]
        return asked + [Proposal(self.sample(rng)) for _ in range(n - len(asked))]

    def entropies(self) -> dict[str, float]:
        """Return the entropy of each decision in nats: log of the number of options at first."""
        found = {}
        for label in self.logits:
            p = self.probabilities(label).detach()
            found[label] = float(-(p * torch.log(p.clamp_min(1e-300))).sum())
        return found

    def entropy_share(self) -> float:
        """Return the entropy of what is drawn, as a share of that of uniform decisions; 1 at first.

        Both are sums over the decisions, each by its chance to be taken at all: what a decision
        would be that settled ones never lead to makes no draw differ. An option without any chance
        is none.
        """
        p = {label: self.probabilities(label).detach() for label in self.logits}
        taken = {label: float(chance_taken(self.space, label, p)) for label in p}
        largest = sum(
            taken[label] * math.log(int(torch.isfinite(alpha).sum()))
            for label, alpha in self.logits.items()
        )
        nats = sum(taken[label] * of for label, of in self.entropies().items())
        return nats / largest if largest else 1.0  # nothing is open, so nothing was settled

    def table(self) -> dict[str, list[float]]:
        """Return the probabilities of each decision's options by label, to four decimals."""
        return {
            label: [round(p, 4) for p in self.probabilities(label).detach().tolist()]
            for label in self.logits
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the logits by label."""
        return {label: alpha.detach().clone() for label, alpha in self.logits.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            InvalidStudy: it is of other decisions.
        """
        if {k: len(v) for k, v in state.items()} != {k: len(v) for k, v in self.logits.items()}:
            raise InvalidStudy(
                f"the saved distribution is over {', '.join(state)}, and this space has the "
                f"decisions {', '.join(self.logits)}; start again in another folder"
            )
        # In the order of the decisions, not of the file: what draws noise goes through them.
        self.logits = {label: state[label].detach().clone().double() for label in self.logits}


class Sigmoids(Alphas):
    """Independent weights sigmoid(alpha) of operations; drawn in proportion to them."""

    def probabilities(self, label: str) -> Tensor:
        """Return what each option of a decision is drawn by, `[number of options]`."""
        if not self._independent(label):
            return super().probabilities(label)
        weights = torch.sigmoid(self.logits[label])
        return weights / weights.sum()

    def table(self) -> dict[str, list[float]]:
        """Return the weights of operations, each from 0 to 1, and chances of inputs, by label."""
        weights = {
            label: [round(w, 4) for w in torch.sigmoid(alpha).tolist()]
            for label, alpha in self.logits.items()
            if self._independent(label)
        }
        return {**super().table(), **weights}

    def _independent(self, label: str) -> bool:
        return self.space.choices[label].kind == "OneOf"


def chance_taken(space: Space, label: str, p: Mapping[str, Tensor]) -> Tensor:
    """Return the probability that a decision is taken at all; differentiable in p.

    Args:
        space: Whose decision.
        label: Of the decision.
        p: Label -> probabilities `[number of options]` of each decision, all independent.
    """
    return _some_holds(space, frozenset(space.choices[label].conditions), p)


def _some_holds(space: Space, ways: frozenset[Condition], p: Mapping[str, Tensor]) -> Tensor:
    """Return the probability that all of some way's labels have options that lead on.

    Decision by decision: options that leave the same ways open are taken together.
    """
    if () in ways:
        return torch.ones((), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    if not ways:
        return total
    label = min(way[0][0] for way in ways)
    alike: dict[frozenset[Condition], list[int]] = {}
    for i, option in enumerate(space.choices[label].options):
        left = still_asked(label, option, ways)
        alike.setdefault(left, []).append(i)
    for left, at in alike.items():
        total = total + p[label][at].sum() * _some_holds(space, left, p)
    return total
