"""NAS-RL: a controller is rewarded for the scores of what it proposes.

Known weakness: it forgets nothing and explores little once it is sure; it needs hundreds of scores,
and published gains over random search are small at equal cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import History, Learning, Proposal, Trial
from assay.errors import InvalidSetting, NotFinite
from assay.space.space import Space
from assay.strategies.learned.controller import Controller, refuse_alike
from assay.strategies.learned.ranges import refuse_out_of_range
from assay.strategies.learned.tightest import Measure, Tightest
from assay.strategies.learned.trace import Trace

__all__ = ["Reinforce"]

_LONGEST = 1.0  # gradient


@dataclass
class Reinforce:
    """Draws from an LSTM controller that REINFORCE trains on the scores so far, any estimator's.

    After every `batch` trials the controller takes one Adam step along

        1/m sum_k (R_k - b) grad log P(a_k),    R = r - entropy * log P(a),

    with r the first objective to the power of `power` (its sign kept), in deviations from the mean
    of all so far, and b the moving average of R. So what is climbed is E[R], whose second term is
    the entropy of P. A trial over a limit has the least r of its batch, 0 while nothing was scored,
    less the share of its value that is over, 1 - limit / value; a failed one has that least. A
    gradient longer than 1 is cut to that length. The search asks for no more than is learned from
    at once (`at_once`), so a batch was drawn by the controller that learns from it.
    The controller is a function of the history: a resumed search trains the same one again.

    Source: Zoph, Le 2017, "Neural Architecture Search with Reinforcement Learning",
    arXiv:1611.01578, sections 3.1 to 3.3; differs: r is standardised, since scores have any unit
    (`power=3` gives the paper's cube of an accuracy before that); the entropy is in the reward; lr
    is for some hundred trials (the paper's is 0.0006); P is that of the canonical architecture; and
    with `clip` the gain is PPO's (Schulman et al. 2017, arXiv:1707.06347, equation 7) over `epochs`
    steps a batch.

    Args:
        hidden: Units of each LSTM layer.
        layers: LSTM layers.
        temperature: What the controller's logits are divided by.
        lr: Learning rate of Adam.
        batch: Trials of one update.
        baseline: Decay of the moving average of rewards.
        entropy: Weight of the entropy.
        power: Of the size of scores; their sign stays.
        clip: Of PPO's ratio; 0 for plain REINFORCE.
        epochs: Steps on each batch; above 1 with `clip` only.
        seed: Of the controller's weights.
    Raises:
        InvalidSetting: a count below 1, or a number out of range.
    """

    hidden: int = 35
    layers: int = 2
    temperature: float = 1.0
    lr: float = 0.01
    batch: int = 8
    baseline: float = 0.9
    entropy: float = 0.01
    power: float = 1.0
    clip: float = 0.0
    epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_out_of_range(self, {
            "count": ("hidden", "layers", "batch", "epochs"),
            "positive": ("lr", "power", "temperature"), "share": ("baseline", "clip"),
            "not negative": ("entropy",),
        })  # fmt: skip
        if self.epochs > 1 and not self.clip:
            raise InvalidSetting(
                f"strategy.epochs={self.epochs} needs clip above 0, such as 0.2: plain REINFORCE "
                "may use a batch once"
            )
        self._learned: _Learned | None = None
        self.measure: Measure | None = None
        self.limits: Mapping[str, float] = {}

    def in_the_loop(self, measure: Measure, limits: Mapping[Any, float]) -> None:
        """Take what measures architectures, to show what is expected of them.

        Args:
            measure: Tells a quantity of an architecture.
            limits: Quantity -> largest value allowed; those by a user's own function, which builds
                a network each time, are not shown.
        """
        self.measure = measure
        self.limits = {q: limit for q, limit in limits.items() if isinstance(q, str)}

    def check(self, space: Space) -> None:
        """Refuse a space before anything is trained on it; see `refuse_alike`."""
        refuse_alike(space)

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n draws from the controller as the history has trained it."""
        controller = self._taught(history).controller
        return [Proposal(controller.sample(rng)) for _ in range(n)]

    def at_once(self, history: History) -> int:
        """Return how many more trials make a batch: further ones are for who learned from it."""
        return self.batch - len(history) % self.batch

    def learned(self, history: History) -> Sequence[Learning]:
        """Return what was known after some of the batches, and after the last; see `Strategy`."""
        taught = self._taught(history)
        return taught.trace.up_to(taught.known()) if taught.batch else []

    @property
    def advice(self) -> Mapping[str, str]:
        """What to change at a symptom."""
        sure = f"raise strategy.entropy ({self.entropy:g}) or lower strategy.lr ({self.lr:g})"
        return {"collapsed": sure, "idle": sure, "drifting": "raise the limit"}

    def _taught(self, history: History) -> _Learned:
        """Return what has learned from all whole batches of the history."""
        ended = history.ended()
        if self._learned is None or self._learned.history is not history:
            self._learned = _Learned(history, self)
        learned = self._learned
        while len(ended) - learned.done >= self.batch:
            learned.update(ended[learned.done : learned.done + self.batch])
            if learned.trace.due(learned.done):
                learned.trace.keep(learned.known())
        return learned


class _Learned:
    """A controller, and how many trials of a history it has learned from."""

    def __init__(self, history: History, settings: Reinforce) -> None:
        own, space = settings, history.space
        self.controller = Controller(
            space, hidden=own.hidden, layers=own.layers, temperature=own.temperature, seed=own.seed
        )
        self.done = 0
        self.batch: Sequence[Trial] = ()
        self.trace = Trace()
        self.history = history
        self._own = own
        self._space = space
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=own.lr)
        self._rewards: list[float] = []
        self._baseline: float | None = None
        self._average: float | None = None  # of the scores themselves, for who watches
        self._tightest: Tightest | None = None
        if own.measure is not None and own.limits:
            self._tightest = Tightest(own.measure, own.limits, self._drawn, own.seed)

    def update(self, trials: Sequence[Trial]) -> None:
        """Take the steps of one batch."""
        rewards = self._standard(trials)
        self.done += len(trials)
        self.batch = trials
        points = [trial.architecture for trial in trials]
        with torch.no_grad():
            before = self._logs(points)
        gains = self._gains(rewards, before)
        for _ in range(self._own.epochs):
            worth = self._surrogate(self._logs(points), before, gains)
            self._optimizer.zero_grad()
            (-worth).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.controller.parameters(), _LONGEST)
            self._optimizer.step()
        with torch.no_grad():
            finite = bool(torch.isfinite(self._logs(points)).all())
        if not finite:
            raise NotFinite(
                f"the controller is not finite after trial {trials[-1].number}; lower "
                f"strategy.lr ({self._own.lr:g})"
            )

    def known(self) -> Learning:
        """Return what the controller knows: probabilities on the way to the last batch's trials."""
        steps: dict[str, list[Tensor]] = {label: [] for label in self._space.choices}
        for trial in self.batch:
            for label, p in self.controller.taken_in(trial.architecture).items():
                steps[label].append(p)
        mean = {label: torch.stack(ps).mean(0) for label, ps in steps.items() if ps}
        nats = sum(
            float(-(p * p.clamp_min(1e-300).log()).sum()) for ps in steps.values() for p in ps
        )
        most = sum(len(ps) * math.log(len(ps[0])) for ps in steps.values() if ps)
        limited = {} if self._tightest is None else self._tightest.figures()
        return Learning(
            self.done,
            {label: [round(x, 4) for x in p.tolist()] for label, p in mean.items()},
            nats / most if most else 0.0,
            reward=self._average,
            **limited,
        )

    def _drawn(self, rng: np.random.Generator) -> Architecture:
        return self._space.canonical(self.controller.sample(rng))

    def _logs(self, points: Sequence[Architecture]) -> Tensor:
        return torch.stack([self.controller.log_prob(point) for point in points])

    def _gains(self, rewards: Sequence[float], before: Tensor) -> Tensor:
        """Return the whole rewards less the baseline, which moves on.

        Args:
            rewards: Standardised.
            before: log P `[m]` by the controller that drew.
        """
        whole = torch.tensor(rewards, dtype=before.dtype) - self._own.entropy * before
        mean = float(whole.mean())
        baseline = mean if self._baseline is None else self._baseline
        self._baseline = baseline + (1 - self._own.baseline) * (mean - baseline)
        return whole - baseline

    def _surrogate(self, logs: Tensor, before: Tensor, gains: Tensor) -> Tensor:
        """Return what is maximised; its gradient is REINFORCE's, or PPO's."""
        if not self._own.clip:
            return (gains * logs).mean()
        ratio = torch.exp(logs - before)
        clipped = ratio.clamp(1 - self._own.clip, 1 + self._own.clip)
        return torch.minimum(ratio * gains, clipped * gains).mean()

    def _standard(self, trials: Sequence[Trial]) -> list[float]:
        """Return rewards in deviations of all so far."""
        shaped = {t.number: self._shaped(t) for t in trials if t.state == "scored"}
        self._rewards += shaped.values()
        if shaped:
            mean = float(np.mean([t.objectives[0] for t in trials if t.number in shaped]))
            before = mean if self._average is None else self._average
            self._average = before + (1 - self._own.baseline) * (mean - before)
        so_far = self._rewards or [0.0]
        location, scale = so_far[0], 1.0
        if max(so_far) > min(so_far):  # the mean of what is all alike is off by rounding
            location, scale = float(np.mean(so_far)), float(np.std(so_far)) or 1.0
        least = (min(shaped.values() or so_far) - location) / scale
        return [
            (shaped[t.number] - location) / scale if t.number in shaped else least - _share_over(t)
            for t in trials
        ]

    def _shaped(self, trial: Trial) -> float:
        score = trial.objectives[0]
        return math.copysign(abs(score) ** self._own.power, score)


def _share_over(trial: Trial) -> float:
    """Return the share of what is limited that is over the limit, below 1 however much that is."""
    return 1 - 1 / (1 + trial.violation)
