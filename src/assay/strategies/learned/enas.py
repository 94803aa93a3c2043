"""ENAS: a controller draws the paths that train shared weights, and learns what they are worth.

Known weakness: what the controller draws is trained more and so is worth more, and what shared
weights say of two networks is not what training them says: published gains over random search with
the same weights are small (Li, Talwalkar 2019, arXiv:1902.07638; Yu et al. 2019, arXiv:1902.08142).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture
from assay.contracts import Context, History, Learning, Mix, Proposal
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.space import Space
from assay.strategies.learned.controller import Controller, refuse_alike
from assay.strategies.learned.learner import Learner, rewards
from assay.strategies.learned.ranges import refuse_out_of_range
from assay.strategies.learned.tightest import Measure, Tightest
from assay.train.files import under
from assay.train.optimizers import TorchOptimizer
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.supernet import Supernet

__all__ = ["ENAS", "SKIP", "Children", "skip_penalty"]

SKIP = ("apart", "skip")
"""The options, in either order, of a decision that is taken for a skip connection."""


@dataclass
class ENAS:
    """Proposes what an LSTM controller draws that was trained in turn with shared weights.

    A weight step trains one path, drawn by the controller. At every `every`-th step the controller
    takes `updates` steps of Adam, each on a validation batch and `paths_each` paths a_k, down

        1/m sum_k (b - R_k) grad log P(a_k) + skip_weight * grad mean KL(p_skip || skip_rate),

    with R = r * prod_q min(1, limit_q / cost_q) ** weight - entropy * log P(a), r the accuracy of
    the path with the shared weights, or exp(-loss) for other tasks, q the limited quantities, and b
    the moving average of R. So what is climbed is E[R], whose second term is the entropy of P. The
    product is 0 for a path on which a user's function fails. The mean is over the skip connections
    on the way to a_k: decisions between "apart" and "skip". For a reward dropout is off, and norms
    use each batch's own statistics. Paths are canonical: what is scored later is what was trained.

    Source: Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
    arXiv:1802.03268, sections 2.2 to 2.4; limits as in Tan et al. 2019, "MnasNet",
    arXiv:1807.11626, equation 2 with alpha = 0; differs: there is a warm-up; turns are short and
    many, not one an epoch; the entropy is -log P of what was drawn, which makes its gradient exact;
    logits are bounded by tanh at temperature 1 (the paper's is 5); lr and the entropy's weight are
    those of the released code for cells (the paper's are 0.00035 and 0.1), the baseline decays
    faster (its 0.99 is for more steps); macro networks too are rewarded with each batch's own norm
    statistics, as the released code does for cells only; what is drawn after the training is scored
    as the estimator scores.

    Args:
        hidden: Units of the LSTM.
        lr: Learning rate of Adam on the controller.
        temperature: What the controller's logits are divided by before they are bounded.
        bound: Of the controller's logits; 0 for none.
        paths_each: Paths of one step of the controller.
        baseline: Decay of the moving average of rewards.
        entropy: Weight of the entropy.
        skip_weight: Of the divergence from `skip_rate`.
        skip_rate: Share of the possible skip connections that is expected.
        weight: Exponent of what a path is over the limits.
        warmup: Share of the steps in which paths are uniform and the controller learns nothing.
        every: Weight steps from one turn of the controller to the next.
        updates: Steps of the controller at each turn.
        batch: Validation samples of a step of the controller.
    Raises:
        InvalidSetting: a count below 1, or a number out of range.
    """

    hidden: int = 64
    lr: float = 0.0035
    temperature: float = 1.0
    bound: float = 2.5
    paths_each: int = 8
    baseline: float = 0.9
    entropy: float = 1e-4
    skip_weight: float = 0.8
    skip_rate: float = 0.4
    weight: float = 1.0
    warmup: float = 0.1
    every: int = 8
    updates: int = 1
    batch: int = 128

    def __post_init__(self) -> None:
        refuse_out_of_range(self, {
            "count": ("hidden", "paths_each", "every", "updates", "batch"),
            "not negative": ("bound", "entropy", "skip_weight", "weight"),
            "positive": ("lr", "temperature"), "share": ("baseline", "warmup"),
        })  # fmt: skip
        if not 0 < self.skip_rate < 1:
            raise InvalidSetting(f"strategy.skip_rate={self.skip_rate} must be between 0 and 1")
        self.paths = Children(self)

    def in_the_loop(self, measure: Measure, limits: Mapping[Any, float]) -> None:
        """Take what measures architectures, before the supernet is trained.

        Args:
            measure: Tells a quantity of an architecture.
            limits: Quantity -> largest value allowed; those by a user's own function are learned
                of, and not shown.
        """
        self.paths.measure, self.paths.limits = measure, dict(limits)

    def check(self, space: Space) -> None:
        """Refuse a space before anything is trained on it; see `refuse_alike`."""
        refuse_alike(space)

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n draws from the controller as it is."""
        controller = self.paths.over(history.space)
        return [Proposal(controller.sample(rng)) for _ in range(n)]

    def learned(self, history: History) -> Sequence[Learning]:
        """Return what was known as the supernet trained; see `Strategy`."""
        return self.paths.learned()

    @property
    def advice(self) -> Mapping[str, str]:
        """What to change at a symptom."""
        longer = f"raise strategy.warmup ({self.warmup:g})"
        return {
            "collapsed": f"lower strategy.lr ({self.lr:g}) or bound ({self.bound:g}), or {longer}",
            "idle": f"{longer} or give a larger budget",
            "drifting": f"raise strategy.weight ({self.weight:g}) or the limit",
        }


class Children(Learner[Controller]):
    """Paths drawn by a controller, which learns what they are worth as they train.

    Args:
        settings: What the user chose.
    """

    settings: ENAS

    def __init__(self, settings: ENAS) -> None:
        super().__init__(settings, self._controller, moves=settings.updates)
        self.measure: Measure | None = None
        self.limits: Mapping[Any, float] = {}
        self._baseline: float | None = None
        self._updates = 0
        self._tightest: Tightest | None = None

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return one path: uniform during the warm-up, then drawn by the controller."""
        if self.warming(step):
            return [space.canonical(space.sample(rng, over="decisions"))]
        return [space.canonical(self.known.sample(rng))]

    def _controller(self, space: Space) -> Controller:
        own = self.settings
        return Controller(
            space, hidden=own.hidden, layers=1, temperature=own.temperature, bound=own.bound,
            seed=self._seed,
        )  # fmt: skip

    def _settle(self, ctx: Context, space: Space) -> None:
        adam = Recipe(optimizer="adamw", lr=self.settings.lr, weight_decay=0.0)
        self._optimizer = TorchOptimizer(self.known, adam)
        self._baseline, self._updates = None, 0
        self._tightest = None
        named = {q: limit for q, limit in self.limits.items() if isinstance(q, str)}
        if self.measure is not None and named:
            self._tightest = Tightest(self.measure, named, self._drawn, ctx.seed)

    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        space, rng = supernet.space, derive(self._seed, "controller", self._updates)
        points = [self.known.sample(rng) for _ in range(self.settings.paths_each)]
        paths = [space.canonical(point) for point in points]
        with self._judging(supernet):
            worth = rewards(space, task, inputs, targets, paths, call=self._call, heard=self._heard)
        self._reinforce(points, [r * self._within(path) for r, path in zip(worth, paths)])

    def _within(self, path: Architecture) -> float:
        """Return what a reward is multiplied by: 1 within the limits, less the further over."""
        share = 1.0
        if self.measure is None:
            return share
        for quantity, limit in self.limits.items():
            try:
                cost = self.measure(quantity, path)
            except InvalidSetting:  # such a trial fails, and one in hundreds ends no search
                if not callable(quantity):
                    raise
                return 0.0
            if cost > limit:
                share *= (limit / cost) ** self.settings.weight
        return share

    def _reinforce(self, points: Sequence[Architecture], worth: Sequence[float]) -> None:
        """Take one step of the controller."""
        self._optimizer.zero_grad()
        loss, mean = self._loss(points, worth)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self.settings.lr)
        before = mean if self._baseline is None else self._baseline
        self._baseline = before + (1 - self.settings.baseline) * (mean - before)
        self._updates += 1

    def _loss(self, points: Sequence[Architecture], worth: Sequence[float]) -> tuple[Tensor, float]:
        """Return what the controller descends, and the mean of the whole rewards."""
        own, space = self.settings, self.known.space
        steps = [self.known.steps(point) for point in points]
        logs = torch.stack([self.known.log_prob(a, taken) for a, taken in zip(points, steps)])
        rewards = torch.tensor(worth, dtype=logs.dtype) - own.entropy * logs.detach()
        mean = float(rewards.mean())
        baseline = mean if self._baseline is None else self._baseline
        penalty = torch.stack([skip_penalty(space, taken, own.skip_rate) for taken in steps])
        loss = ((baseline - rewards) * logs).mean() + own.skip_weight * penalty.mean()
        return loss, mean

    def _figures(self) -> dict[str, Any]:
        limited = {} if self._tightest is None else self._tightest.figures()
        return {"reward": self._baseline, **limited}

    def _drawn(self, rng: np.random.Generator) -> Architecture:
        return self.known.space.canonical(self.known.sample(rng))

    def _more_state(self) -> dict[str, Any]:
        adam = {f"adam.{name}": v for name, v in self._optimizer.state_dict().items()}
        return {**adam, "baseline": self._baseline, "updates": self._updates}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(under("adam.", state))
        self._baseline, self._updates = state["baseline"], int(state["updates"])


def skip_penalty(space: Space, steps: Mapping[str, Tensor], rate: float) -> Tensor:
    """Return the mean divergence KL(p || rate) of the skip connections, a scalar; 0 without any.

    Args:
        space: Says which decisions are skip connections: those of the options `SKIP`.
        steps: Label -> log-probabilities `[2]` of its options.
        rate: Prior chance of a connection.
    """
    skips = []
    for label, logs in steps.items():
        options = space.choices[label].options
        if set(options) == set(SKIP):
            skips.append(logs[[options.index(option) for option in SKIP]])
    if not skips:
        return torch.zeros(())
    logs = torch.stack(skips)
    prior = torch.tensor([1 - rate, rate], dtype=logs.dtype).log()
    return (logs.exp() * (logs - prior)).sum(1).mean()
