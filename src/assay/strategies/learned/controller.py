"""An LSTM that takes a space's decisions one after another, each knowing those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture, Option
from assay.errors import InvalidSpace
from assay.space.space import Space
from assay.space.structure import Choice

__all__ = ["Controller", "refuse_alike"]


class Controller(nn.Module):
    """A distribution over all architectures of a space, by the chain rule over its decisions.

    Decisions come in the order of the space, each after those that it depends on; one that is not
    reached is passed over. The input of a step is the embedding of the option taken before, its
    output is h. A head of its own gives the logits of each decision. Where options are sets of
    what is read, the logit of a set is the sum over its members j of

        s_j = v . tanh(W_prev h_j + W_curr h),

    with h_j the output of the step that followed j's own decision. So a connection that is either
    there or not is there by sigmoid(s_j), s_j divided and bounded as any logit is, and sets of a
    fixed size have the chances that such connections have if that many are there. The `reads` of a
    choice names what its options read: option -> names, that of a decision being its label. Where
    it says nothing, the positions of an `Inputs` are what its options read. A vector of its own is
    the h_j of what no decision made.

    Source: Zoph, Le 2017, "Neural Architecture Search with Reinforcement Learning",
    arXiv:1611.01578, sections 3.1 and 3.3; differs: one step for each decision of any space, so
    connections of one layer know those decided before them.

    Args:
        space: The space.
        hidden: Units of each LSTM layer.
        layers: LSTM layers.
        temperature: What the logits are divided by.
        bound: Of the logits, which then become bound * tanh(logits / temperature), each s_j before
            it is added; 0 for none.
        seed: Of the weights, drawn uniformly from -0.08 to 0.08.
    Raises:
        InvalidSpace: the `reads` of a choice lack an option, or are the same for two.
    """

    def __init__(
        self,
        space: Space,
        *,
        hidden: int = 35,
        layers: int = 2,
        temperature: float = 1.0,
        bound: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.temperature = temperature
        self.bound = bound
        total = sum(len(choice.options) for choice in space.choices.values())
        self.embedding = nn.Embedding(total + 1, hidden)
        self.cells = nn.ModuleList([nn.LSTMCell(hidden, hidden) for _ in range(layers)])
        self._reads = {la: reads for la in space.choices if (reads := _reads(space, la))}
        headed = {la: c for la, c in space.choices.items() if la not in self._reads}
        self.heads = nn.ModuleList([nn.Linear(hidden, len(c.options)) for c in headed.values()])
        if self._reads:
            read = [name for reads in self._reads.values() for name in _names(reads)]
            self.attention = _Attention(hidden, list(dict.fromkeys(read)))
        starts = np.cumsum([1, *(len(c.options) for c in space.choices.values())])
        self._starts = dict(zip(space.choices, map(int, starts)))
        self._heads = dict(zip(headed, self.heads))
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

    def log_prob(
        self, architecture: Architecture, steps: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the log-probability of an architecture, a scalar differentiable in the weights.

        Args:
            architecture: A point of the space.
            steps: What `steps` returned for it, if that was asked for already.
        """
        logs = self.steps(architecture) if steps is None else steps
        options = {label: self.space.choices[label].options for label in logs}
        taken = [logs[label][options[label].index(architecture[label])] for label in logs]
        return torch.stack(taken).sum()

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
        """Return where the entropy of the steps to `best` is between its least and its largest.

        The least, 0 without a bound, is that of steps that are as sure of one option as it allows.
        """
        steps = self.taken_in(self.best())
        least = sum(self._least_nats(label) for label in steps)
        span = sum(math.log(len(p)) for p in steps.values()) - least
        nats = sum(float(_nats(p)) for p in steps.values())
        return max(0.0, nats - least) / span if span > 0 else 0.0

    def _least_nats(self, label: str) -> float:
        if not self.bound:
            return 0.0
        own = [(str(i),) for i in range(len(self.space.choices[label].options))]
        reads = self._reads.get(label, own)  # what has a head has a score for each option
        names = _names(reads)
        members = torch.tensor([[r.count(n) for n in names] for r in reads]).double()
        sure = self.bound * (2 * members - 1)  # [options, names]: scores that favour one option
        return float(_nats(torch.softmax(members @ sure.T, 0)).min())

    def _walk(
        self, choose: Callable[[Choice, Tensor], int]
    ) -> tuple[Architecture, dict[str, Tensor]]:
        taken: dict[str, Option] = {}
        steps: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}  # of the step that followed a decision
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        at = 0
        for label, choice in self.space.choices.items():
            if not choice.active(taken):
                continue
            x = self.embedding(torch.tensor([at]))
            for i, cell in enumerate(self.cells):
                states[i] = state = cell(x, states[i])
                x = state[0]
            if taken:
                outputs[next(reversed(taken))] = x[0]
            logits = self._logits(label, x[0], outputs)
            steps[label] = torch.log_softmax(logits, 0)
            position = choose(choice, logits.detach())
            taken[label] = choice.options[position]
            at = self._starts[label] + position
        return Architecture(taken), steps

    def _logits(self, label: str, x: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits `[options]` of a decision from the output `[hidden]` of its step."""
        if label not in self._reads:
            return self._bounded(self._heads[label](x))
        reads = self._reads[label]
        names = _names(reads)
        scores = dict(zip(names, self._bounded(self.attention(names, x, outputs))))
        return torch.stack([sum((scores[n] for n in read), x.new_zeros(())) for read in reads])

    def _bounded(self, scores: Tensor) -> Tensor:
        scores = scores / self.temperature
        return self.bound * torch.tanh(scores) if self.bound else scores


class _Attention(nn.Module):
    """How much a decision is drawn to each of the things that it may read.

    Args:
        hidden: Units of what is compared.
        names: Of all that any decision may read.
    """

    def __init__(self, hidden: int, names: Sequence[str]) -> None:
        super().__init__()
        self.before = nn.Linear(hidden, hidden, bias=False)  # W_prev
        self.now = nn.Linear(hidden, hidden, bias=False)  # W_curr
        self.score = nn.Linear(hidden, 1, bias=False)  # v
        self.given = nn.Embedding(len(names), hidden)
        self._at = {name: i for i, name in enumerate(names)}

    def forward(self, names: Sequence[str], x: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each name, `[len(names)]`.

        Args:
            names: What this decision may read.
            x: Output `[hidden]` of its step.
            outputs: That of the step after each decision so far.
        """
        given = self.given.weight
        read = torch.stack([outputs.get(name, given[self._at[name]]) for name in names])
        scores: Tensor = self.score(torch.tanh(self.before(read) + self.now(x)))[:, 0]
        return scores


def refuse_alike(space: Space) -> None:
    """Refuse a space in which what its options read does not tell those of a choice apart.

    Args:
        space: The space.
    Raises:
        InvalidSpace: the `reads` of a choice lack an option, or are the same for two.
    """
    for label in space.choices:
        _reads(space, label)


def _reads(space: Space, label: str) -> list[tuple[str, ...]]:
    """Return the names of what each option of a decision reads; nothing where it reads nothing."""
    options = space.choices[label].options
    for site in space.structure.modules.get(label, ())[:1]:
        told: Mapping[Option, tuple[str, ...]] | None = getattr(site, "reads", None)
        if told is not None:
            _refuse_unlike(label, told, options)
            return [told[option] for option in options]
    return [tuple(f"{label}[{i}]" for i in o) for o in options if isinstance(o, tuple)]


def _refuse_unlike(
    label: str, told: Mapping[Option, tuple[str, ...]], options: Sequence[Option]
) -> None:
    """Refuse a choice whose `reads` lack an option, or give two what makes their chances equal."""
    by_reads: dict[tuple[str, ...], list[Option]] = {}
    for option in options:
        if option not in told:
            raise InvalidSpace(
                f"choice {label!r} has reads for {', '.join(map(repr, told))}, and none for its "
                f"option {option!r}; give () where an option reads nothing"
            )
        by_reads.setdefault(tuple(sorted(told[option])), []).append(option)
    for names, alike in by_reads.items():
        if len(alike) > 1:
            raise InvalidSpace(
                f"choice {label!r}: its options {' and '.join(map(repr, alike))} read the same, "
                f"{names}, so a controller cannot tell them apart; choose what is read and the "
                "operation in two choices"
            )


def _nats(p: Tensor) -> Tensor:
    """Return the entropy of probabilities `[options, ...]`, `[...]`."""
    return -(p * p.clamp_min(1e-300).log()).sum(0)


def _names(reads: Sequence[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for read in reads for name in read))
