"""An LSTM that takes a space's decisions one after another, each knowing those before it."""

from __future__ import annotations

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
        seed: Of the weights, drawn uniformly from -0.08 to 0.08.
    """

    def __init__(self, space: Space, *, hidden: int = 35, layers: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.space = space
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

    def judge(self, architecture: Architecture) -> tuple[Tensor, Tensor]:
        """Return the log-probability of an architecture, and the entropy of the steps to it.

        Both are scalars, differentiable in the weights.
        """

        def follow(choice: Choice, logits: Tensor) -> int:
            return choice.options.index(architecture[choice.label])

        _, log_prob, entropy = self._walk(follow)
        return log_prob, entropy

    def _walk(self, choose: Callable[[Choice, Tensor], int]) -> tuple[Architecture, Tensor, Tensor]:
        taken: dict[str, Option] = {}
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        log_prob = entropy = torch.zeros(())
        at = 0
        for label, choice in self.space.choices.items():
            if not choice.active(taken):
                continue
            x = self.embedding(torch.tensor([at]))
            for i, cell in enumerate(self.cells):
                states[i] = state = cell(x, states[i])
                x = state[0]
            logits = self._heads[label](x)[0]
            logs = torch.log_softmax(logits, 0)
            position = choose(choice, logits.detach())
            log_prob = log_prob + logs[position]
            entropy = entropy - (logs.exp() * logs).sum()
            taken[label] = choice.options[position]
            at = self._starts[label] + position
        return Architecture(taken), log_prob, entropy
