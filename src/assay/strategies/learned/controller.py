"""An LSTM that takes a space's decisions one after another, each knowing those before it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture, Option
from assay.space.space import Space
from assay.space.structure import Choice

__all__ = ["Controller"]


class Controller(nn.Module):
    """A distribution over all architectures of a space, by the chain rule over its decisions.

    Decisions come in the order of the space, each after those that it depends on; one that is not
    reached is passed over. The input of a step is the embedding of the option taken before; a head
    of its own gives the logits of each decision.

    Source: Zoph, Le 2017, "Neural Architecture Search with Reinforcement Learning",
    arXiv:1611.01578, section 3.1; differs: one step for each decision of any space, and which
    predecessors a node reads is one decision, not a set of independent ones (section 3.3).

    Args:
        space: The space.
        hidden: Units of each LSTM layer.
        layers: LSTM layers.
        bound: Of the logits, which become bound * tanh(logits); 0 for none.
        seed: Of the weights, drawn uniformly from -0.08 to 0.08.
    """

    def __init__(
        self,
        space: Space,
        *,
        hidden: int = 35,
        layers: int = 2,
        bound: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.bound = bound
        total = sum(len(choice.options) for choice in space.choices.values())
        self.embedding = nn.Embedding(total + 1, hidden)
        self.cells = nn.ModuleList([nn.LSTMCell(hidden, hidden) for _ in range(layers)])
        self.heads = nn.ModuleList(
            [nn.Linear(hidden, len(choice.options)) for choice in space.choices.values()]
        )
        starts = np.cumsum([1, *(len(c.options) for c in space.choices.values())])
        self._starts = dict(zip(space.choices, map(int, starts)))
        self._heads = dict(zip(space.choices, self.heads))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.08, 0.08, generator=generator)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture."""

        def draw(choice: Choice, logits: Tensor) -> int:
            p = torch.softmax(logits.double(), 0).numpy()
            return int(rng.choice(len(p), p=p / p.sum()))

        with torch.no_grad():
            return self._walk(draw)[0]

    def best(self) -> Architecture:
        """Return the architecture of the likeliest option of every decision, one after another."""
        with torch.no_grad():
            return self._walk(lambda choice, logits: int(logits.argmax()))[0]

    def judge(self, architecture: Architecture) -> tuple[Tensor, Tensor]:
        """Return the log-probability of an architecture, and the entropy of the steps to it.

        Both are scalars, differentiable in the weights.
        """
        log_prob = entropy = torch.zeros(())
        for label, logs in self.steps(architecture).items():
            position = self.space.choices[label].options.index(architecture[label])
            log_prob = log_prob + logs[position]
            entropy = entropy - (logs.exp() * logs).sum()
        return log_prob, entropy

    def steps(self, architecture: Architecture) -> dict[str, Tensor]:
        """Return log-probabilities `[options]` of each step to an architecture, by label.

        They are differentiable in the weights.
        """

        def follow(choice: Choice, logits: Tensor) -> int:
            return choice.options.index(architecture[choice.label])

        return self._walk(follow)[1]

    def taken_in(self, architecture: Architecture) -> dict[str, Tensor]:
        """Return the probabilities `[options]` of each step to an architecture, by label."""
        with torch.no_grad():
            steps = self.steps(architecture)
        return {label: torch.softmax(logs.double(), 0) for label, logs in steps.items()}

    def table(self) -> dict[str, list[float]]:
        """Return the probabilities on the way to `best` by label, to four decimals."""
        steps = self.taken_in(self.best())
        return {label: [round(x, 4) for x in p.tolist()] for label, p in steps.items()}

    def entropy_share(self) -> float:
        """Return the entropy of the steps to `best` as a share of the largest possible."""
        steps = self.taken_in(self.best()).values()
        nats = sum(float(-(p * p.clamp_min(1e-300).log()).sum()) for p in steps)
        return nats / sum(math.log(len(p)) for p in steps) if nats else 0.0

    def _walk(
        self, choose: Callable[[Choice, Tensor], int]
    ) -> tuple[Architecture, dict[str, Tensor]]:
        taken: dict[str, Option] = {}
        steps: dict[str, Tensor] = {}
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        at = 0
        for label, choice in self.space.choices.items():
            if not choice.active(taken):
                continue
            x = self.embedding(torch.tensor([at]))
            for i, cell in enumerate(self.cells):
                states[i] = state = cell(x, states[i])
                x = state[0]
            logits = self._heads[label](x)[0]
            if self.bound:
                logits = self.bound * torch.tanh(logits)
            steps[label] = torch.log_softmax(logits, 0)
            position = choose(choice, logits.detach())
            taken[label] = choice.options[position]
            at = self._starts[label] + position
        return Architecture(taken), steps
