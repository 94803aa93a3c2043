"""ProxylessNAS: learn where to look while the supernet trains, with the device in the loop.

Known weakness: what has trained longer looks better, so an option that is early ahead is drawn more
and stays ahead; and the validation samples that the distribution learns from are the ones that
scores rest on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture, Option
from assay.contracts import Context, History, Learning, Mix, Proposal
from assay.cost import derive
from assay.errors import InvalidSetting, SpaceExhausted
from assay.space.choices import Held
from assay.space.space import Space
from assay.space.structure import meets
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.expected import Expected
from assay.strategies.learned.gates import EntryAdam, draw_two, gate_gradient, kept_apart
from assay.strategies.learned.learner import Learner, reward
from assay.train.files import under
from assay.train.task import Task, call_model
from assay.weights.norms import Norms
from assay.weights.supernet import Supernet

__all__ = ["Gates", "Proxyless"]

Measure: TypeAlias = Callable[[str, Architecture], float]

_SURVEYED = 64  # architectures that a refusal speaks of


@dataclass
class Proxyless:
    """Proposes from a distribution that was learned while the supernet trained.

    A weight step trains one path, drawn from the distribution. Every few steps an architecture step
    on a validation batch moves it. With `rule="gradient"` two options of each choice of operations
    are drawn, one of them active, the other computed without a graph; the gradient by their binary
    gates moves the two logits and leaves the chance of all others alone. Sizes, depths and inputs,
    which cannot be two things at once, learn by REINFORCE from the same loss. With
    `rule="reinforce"` everything does, from the reward of a few whole paths.

    The quantity in the loop is expected from a measured table as a sum over the decisions (see
    `Expected`), and enters the loss as CE + weight * E / target ("linear", the paper's) or as
    CE * (E / target) ** weight ("power", in the manner of the released code). The reward is
    R = r * (cost / target) ** -weight, with r the accuracy, or exp(-loss) for other tasks.

    Source: Cai, Zhu, Han 2019, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
    Hardware", arXiv:1812.00332, sections 3.2 and 3.3; differs: E is divided by the target, so that
    `weight` has no unit; entries of the logits that were not drawn keep their Adam moments; the
    gradient of an inactive option's cost is never dropped, whatever is active (in the released code
    it is where the zero operation is).

    Args:
        rule: "gradient" or "reinforce".
        quantity: What is in the loop, such as "latency_ms" or "macs"; "" for nothing.
        target: Its target; 0 for the limit of that quantity, or where there is none for what is
            expected at first.
        form: How the quantity enters the loss of `rule="gradient"`.
        weight: Of the quantity.
        lr: Learning rate of Adam on the logits.
        warmup: Share of the steps in which paths are uniform and nothing is learned of them.
        every: Weight steps for each architecture step.
        batch: Validation samples of an architecture step.
        paths_each: Paths of one step of `rule="reinforce"`.
    Raises:
        InvalidSetting: a word that is not known, or a number out of range.
    """

    rule: Literal["gradient", "reinforce"] = "gradient"
    quantity: str = "latency_ms"
    target: float = 0.0
    form: Literal["linear", "power"] = "linear"
    weight: float = 0.2
    lr: float = 0.02
    warmup: float = 0.25
    every: int = 2
    batch: int = 128
    paths_each: int = 4

    def __post_init__(self) -> None:
        words = {"rule": ("gradient", "reinforce"), "form": ("linear", "power")}
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise InvalidSetting(
                    f"strategy.{name}={getattr(self, name)!r}; there are {' and '.join(known)}"
                )
        for name in ("every", "batch", "paths_each"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"strategy.{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.warmup < 1 or self.lr <= 0 or self.weight < 0 or self.target < 0:
            raise InvalidSetting(
                f"strategy.warmup={self.warmup} must be from 0 to below 1, lr={self.lr} above 0, "
                f"and weight={self.weight} and target={self.target} 0 or more"
            )
        self.paths = Gates(self)

    def in_the_loop(self, measure: Measure, limits: Mapping[Any, float]) -> None:
        """Take what measures architectures, before the supernet is trained.

        Args:
            measure: Tells a quantity of an architecture.
            limits: Quantity -> largest value allowed.
        """
        limit = limits.get(self.quantity)
        self.paths.measure = measure
        self.paths.target = self.target or (0.0 if limit is None else float(limit))

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return the likeliest architecture once, and draws from the distribution."""
        return self.paths.over(history.space).propose(history, n, rng)

    def learned(self, history: History) -> Sequence[Learning]:
        """Return what was known as the supernet trained; see `Strategy`."""
        return self.paths.learned()

    @property
    def advice(self) -> Mapping[str, str]:
        """What to change at a symptom."""
        longer = f"raise strategy.warmup ({self.warmup:g})"
        return {
            "collapsed": f"lower strategy.lr ({self.lr:g}) or {longer}",
            "idle": f"{longer} or give a larger budget",
            "drifting": f"raise strategy.weight ({self.weight:g})",
        }


class Gates(Learner[Alphas]):
    """Paths drawn from a distribution over architectures, which learns as they train.

    Args:
        settings: What the user chose.
    """

    settings: Proxyless

    def __init__(self, settings: Proxyless) -> None:
        super().__init__(settings, Alphas)
        self.measure: Measure | None = None
        self.target = 0.0
        self._fitted: tuple[Measure, Expected] | None = None
        self._baseline: float | None = None

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return one path: uniform during the warm-up, then from the distribution."""
        if self.warming(step):
            return [space.sample(rng, over="decisions")]
        return [self.known.sample(rng)]

    def _settle(self, ctx: Context, space: Space) -> None:
        own, measure = self.settings, self.measure
        sizes = {label: len(choice.options) for label, choice in space.choices.items()}
        self._adam = EntryAdam(sizes, own.lr)
        self._baseline = None
        self._expected: Expected | None = None
        if own.quantity and own.weight and measure is not None:
            if self._fitted is None or self._fitted[0] is not measure:  # it takes seconds
                fitted = Expected(space, lambda a: measure(own.quantity, a), seed=ctx.seed)
                self._fitted = (measure, fitted)
            self._expected = self._fitted[1]
            self._target = self.target or float(self._expected(self.known))
            self._refuse_target(space, measure, ctx.seed)

    def _refuse_target(self, space: Space, measure: Measure, seed: int) -> None:
        """Refuse a target that what costs least does not meet, by more than the sum is wrong."""
        assert self._expected is not None
        own, costs = self.settings, self._expected.costs
        cheapest = space.complete({}, lambda c: c.options[int(costs[c.label].argmin())])
        least = measure(own.quantity, cheapest)
        if least <= (1 + self._expected.error) * self._target:
            return
        rng = derive(seed, "target")
        drawn = [measure(own.quantity, space.sample(rng)) for _ in range(_SURVEYED)]
        raise SpaceExhausted(
            f"no architecture can meet the target {own.quantity} = {self._target:g}: the space has "
            f"min {min(least, *drawn):.4g}, median {np.median(drawn):.4g}, max {max(drawn):.4g}; "
            "raise the limit or strategy.target, or widen the space"
        )

    def _figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._expected is not None:
            found = {
                "quantity": self.settings.quantity,
                "expected": float(self._expected(self.known)),
                "target": self._target,
            }
        return found if self._baseline is None else {**found, "reward": -self._baseline}

    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        space, rng = supernet.space, self._draws(step)
        with Norms(space.model, lambda: None).by_batch():
            if self.settings.rule == "gradient":
                self._by_gradient(space, task, inputs, targets, rng)
            else:
                self._by_reward(space, task, inputs, targets, rng)

    def _more_state(self) -> dict[str, Any]:
        adam = {f"adam.{label}": v for label, v in self._adam.state_dict().items()}
        return {**adam, "baseline": self._baseline}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._adam.load_state_dict(under("adam.", state))
        self._baseline = state["baseline"]

    # --- by the gradient of binary gates ------------------------------------------------------

    def _by_gradient(
        self, space: Space, task: Task, inputs: Any, targets: Tensor, rng: np.random.Generator
    ) -> None:
        alphas = self.known
        mix, pairs, single = self._drawn(space, rng)
        device = targets.device
        gates = torch.zeros(len(pairs), 2, device=device)
        gates[:, 0] = 1.0
        gates.requires_grad_()
        for k, (label, at) in enumerate(pairs.items()):
            active, other = (space.choices[label].options[i] for i in at)
            mix[label] = {active: gates[k, 0], other: Held(gates[k, 1])}
        space.select(mix)
        loss = task.training_loss(call_model(space.model, inputs), targets, 0.0)
        by_gate = torch.zeros(len(pairs), 2, dtype=torch.float64)
        if pairs:
            (found,) = torch.autograd.grad(loss, gates)
            by_gate = found.double().cpu()
        value = float(loss.detach())
        scale, by_cost = self._in_loss(value)
        for k, (label, at) in enumerate(pairs.items()):
            old = alphas.logits[label][at]
            total = scale * by_gate[k]
            if self._expected is not None:
                total = total + by_cost * self._expected.costs[label][at]
            move = self._adam.step(label, at, gate_gradient(total, old))
            alphas.logits[label][at] = kept_apart(old + move, old)
        self._reinforce([(single, scale * value)], by_cost)

    def _drawn(
        self, space: Space, rng: np.random.Generator
    ) -> tuple[dict[str, dict[Option, Any]], dict[str, list[int]], dict[str, Option]]:
        """Draw two options of each operation that is reached, the active one first, one of others.

        Returns:
            The mix so far, with 1 for each option that is in it; positions of the pairs by label;
            options of the other decisions by label.
        """
        alphas = self.known
        mix: dict[str, dict[Option, Any]] = {}
        pairs: dict[str, list[int]] = {}
        single: dict[str, Option] = {}
        for label, choice in space.choices.items():
            if not meets(choice.conditions, mix):
                continue
            if choice.kind != "OneOf":
                single[label] = choice.options[alphas.draw(label, rng)]
                mix[label] = {single[label]: 1.0}
                continue
            at = list(draw_two(alphas.probabilities(label).numpy(), rng))
            q = torch.softmax(alphas.logits[label][at], 0).numpy()
            if rng.random() >= q[0]:
                at.reverse()
            pairs[label] = at
            mix[label] = {choice.options[i]: 1.0 for i in at}
        return mix, pairs, single

    def _in_loss(self, value: float) -> tuple[float, float]:
        """Return the derivatives of the whole loss by the task's loss, and by the expected cost."""
        if self._expected is None:
            return 1.0, 0.0
        own, ratio = self.settings, float(self._expected(self.known)) / self._target
        if own.form == "linear":
            return 1.0, own.weight / self._target
        grown = ratio**own.weight
        return grown, value * own.weight * ratio ** (own.weight - 1.0) / self._target

    # --- by reward ----------------------------------------------------------------------------

    def _by_reward(
        self, space: Space, task: Task, inputs: Any, targets: Tensor, rng: np.random.Generator
    ) -> None:
        drawn = []
        for _ in range(self.settings.paths_each):
            point = self.known.sample(rng)
            worth = reward(space, task, inputs, targets, point)
            if self._expected is not None:
                worth *= (self._expected.of(point) / self._target) ** -self.settings.weight
            drawn.append((dict(point), -worth))
        self._reinforce(drawn, 0.0)

    def _reinforce(
        self, drawn: Sequence[tuple[Mapping[str, Option], float]], by_cost: float
    ) -> None:
        """Move the logits of single options along (loss - baseline) grad log p, and of their cost.

        Args:
            drawn: For each path the options meant, and the loss that they had.
            by_cost: Derivative of the whole loss by the expected cost.
        """
        losses = [loss for _, loss in drawn]
        mean = sum(losses) / len(losses)
        if self._baseline is None:
            self._baseline = mean
        alphas = self.known
        labels = list(dict.fromkeys(label for options, _ in drawn for label in options))
        leaves = {label: alphas.logits[label].clone().requires_grad_() for label in labels}
        kept = alphas.logits
        alphas.logits = {**kept, **leaves}
        total = torch.zeros((), dtype=torch.float64)
        for options, loss in drawn:
            if options:
                gain = (loss - self._baseline) / len(drawn)
                total = total + gain * alphas.log_prob(options)
        if by_cost and self._expected is not None:
            total = total + by_cost * self._expected(alphas)
        alphas.logits = kept
        if labels:
            found = torch.autograd.grad(total, list(leaves.values()))
            for label, gradient in zip(labels, found):
                everything = list(range(len(kept[label])))
                kept[label] = kept[label] + self._adam.step(label, everything, gradient)
        self._baseline = 0.9 * self._baseline + 0.1 * mean
