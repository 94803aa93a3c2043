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
from assay.errors import InvalidSetting, nearest
from assay.hardware.measures import COSTS, quantity_name
from assay.space.choices import Held
from assay.space.space import Space
from assay.strategies.learned.aim import FORMS, Aim, Form
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.expected import Expected
from assay.strategies.learned.gates import (
    EntryAdam,
    draw_step,
    gate_gradient,
    kept_apart,
    score_gradients,
)
from assay.strategies.learned.learner import Learner, rewards
from assay.strategies.learned.ranges import refuse_out_of_range
from assay.train.files import under
from assay.train.task import Task
from assay.weights.supernet import Supernet

__all__ = ["Gates", "Proxyless"]

Measure: TypeAlias = Callable[[str, Architecture], float]


@dataclass
class Proxyless:
    """Proposes from a distribution that was learned while the supernet trained.

    A weight step trains one path, drawn from the distribution. Every few steps an architecture step
    on a validation batch moves it. With `rule="gradient"` two options of each choice of operations
    are drawn, one of them active, the other computed without a graph; the gradient by their binary
    gates moves the two logits and leaves the chance of all others alone. Sizes, depths and inputs,
    which cannot be two things at once, learn by REINFORCE from the same loss. With
    `rule="reinforce"` everything does, from the reward of a few whole paths. A step learns of the
    decisions on the active path only. Dropout is off in it, and norms use each batch's own
    statistics.

    Paths that train, and those that are rewarded, are canonical: what is scored later is what was
    trained. Two options of each choice run as they were drawn: in another place the second would
    stand in another network than the one that its gate is asked about.

    The quantity in the loop is expected from a measured table as a sum over the decisions (see
    `Expected`), and enters the loss in one of three forms, the paper's "linear" among them (see
    `Aim`). The reward is R = r * (cost / target) ** -weight, with r the accuracy, or exp(-loss) for
    other tasks.

    The supernet is one of the space and task themselves, at full resolution, unless the estimator
    was told otherwise.

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
        form: How the quantity enters the loss of `rule="gradient"`: "linear", "power" or "log".
        weight: Of the quantity.
        lr: Learning rate of Adam on the logits.
        warmup: Share of the steps in which paths are uniform and nothing is learned of them.
        every: Weight steps for each architecture step.
        batch: Validation samples of an architecture step.
        paths_each: Paths of one step of `rule="reinforce"`.
    Raises:
        InvalidSetting: a word or quantity that is not known, or a number out of range.
    """

    rule: Literal["gradient", "reinforce"] = "gradient"
    quantity: str = "latency_ms"
    target: float = 0.0
    form: Form = "linear"
    weight: float = 0.2
    lr: float = 0.02
    warmup: float = 0.25
    every: int = 2
    batch: int = 128
    paths_each: int = 4

    def __post_init__(self) -> None:
        words = {"rule": ("gradient", "reinforce"), "form": FORMS, "quantity": ("", *COSTS)}
        for name, known in words.items():
            given = getattr(self, name)
            if given not in known:
                raise InvalidSetting(f"unknown strategy.{name}={given!r}; {nearest(given, known)}")
        refuse_out_of_range(self, {
            "count": ("every", "batch", "paths_each"), "not negative": ("weight", "target"),
            "positive": ("lr",), "share": ("warmup",),
        })  # fmt: skip
        self.paths = Gates(self)

    def check_limits(self, limits: Mapping[Any, Any]) -> None:
        """Refuse limits none of which would be learned of, before anything is written.

        Args:
            limits: Quantity -> largest value allowed.
        Raises:
            InvalidSetting: the quantity in the loop has no limit and no target, but others have.
        """
        aimless = self.quantity and self.weight and not self.target
        if not limits or not aimless or self.quantity in limits:
            return
        limited = ", ".join(map(quantity_name, limits))
        other = " or ".join(name for name in COSTS if name in limits) or "'' to learn of none"
        raise InvalidSetting(
            f"strategy.quantity={self.quantity!r} has neither a limit nor a target, and of the "
            f"limit on {limited} nothing would be learned; set strategy.quantity={other}, or "
            "strategy.target"
        )

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
        heeded = "what is learned of is what networks really take, and only what is shown is off"
        if self.rule == "gradient":
            heeded = (
                "use strategy.rule=reinforce, which heeds what networks really take, or give a "
                "stricter target"
            )
        return {
            "collapsed": f"lower strategy.lr ({self.lr:g}) or {longer}",
            "idle": f"{longer} or give a larger budget",
            "drifting": f"raise strategy.weight ({self.weight:g})",
            "approximate": heeded,
        }


class Gates(Learner[Alphas]):
    """Paths drawn from a distribution over architectures, which learns as they train.

    Args:
        settings: What the user chose.
    """

    settings: Proxyless
    prefers: Mapping[str, Any] = {"variant": {}, "resolution": 1.0}
    """In place of the defaults of the estimator: no cheaper space, no smaller images."""

    def __init__(self, settings: Proxyless) -> None:
        super().__init__(settings, Alphas)
        self.measure: Measure | None = None
        self.target = 0.0
        self._fitted: tuple[Measure, Expected] | None = None
        self._aim: Aim | None = None
        self._baseline: float | None = None

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return one path: uniform during the warm-up, then from the distribution."""
        if self.warming(step):
            return [space.canonical(space.sample(rng, over="decisions"))]
        return [space.canonical(self.known.sample(rng))]

    def _settle(self, ctx: Context, space: Space) -> None:
        own, measure = self.settings, self.measure
        sizes = {label: len(choice.options) for label, choice in space.choices.items()}
        self._adam = EntryAdam(sizes, own.lr)
        self._baseline, self._aim = None, None
        if own.quantity and own.weight and measure is not None:
            expected = self._expected(space, measure, ctx.seed)
            target = self.target or expected(self.known)
            self._aim = Aim(
                own.quantity, lambda a: measure(own.quantity, a), expected, target, own.weight,
                own.form if own.rule == "gradient" else "linear",  # a reward has no form
            )  # fmt: skip
            self._aim.refuse_hopeless()

    def _expected(self, space: Space, measure: Measure, seed: int) -> Expected:
        """Return the quantity as a sum; fitting it takes seconds, and is done once."""
        if self._fitted is None or self._fitted[0] is not measure:
            own = self.settings
            self._fitted = (measure, Expected(space, lambda a: measure(own.quantity, a), seed=seed))
        return self._fitted[1]

    def _figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._aim is not None:
            expected, target = self._aim.expected(self.known), self._aim.target
            found = {"quantity": self._aim.quantity, "expected": expected, "target": target,
                     "error": self._aim.expected.error}  # fmt: skip
        return found if self._baseline is None else {**found, "reward": -self._baseline}

    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        rng = self._draws(step)
        if self.settings.rule == "gradient":
            self._by_gradient(supernet, task, inputs, targets, rng)
        else:
            self._by_reward(supernet, task, inputs, targets, rng)

    def _more_state(self) -> dict[str, Any]:
        adam = {f"adam.{label}": v for label, v in self._adam.state_dict().items()}
        return {**adam, "baseline": self._baseline}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._adam.load_state_dict(under("adam.", state))
        self._baseline = state["baseline"]

    # --- by the gradient of binary gates ------------------------------------------------------

    def _by_gradient(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, rng: np.random.Generator
    ) -> None:
        space, alphas, device = supernet.space, self.known, targets.device
        drawn = draw_step(alphas, rng)
        gates = torch.zeros(len(drawn.pairs), 2, device=device)
        gates[:, 0] = 1.0
        gates.requires_grad_()
        mix: dict[str, dict[Option, Any]] = {
            label: {option: 1.0} for label, option in (drawn.single | drawn.behind).items()
        }
        for k, (label, at) in enumerate(drawn.pairs.items()):
            active, other = (space.choices[label].options[i] for i in at)
            mix[label] = {active: gates[k, 0], other: Held(gates[k, 1])}
        space.select(mix)
        by_gate = torch.zeros(len(drawn.pairs), 2, dtype=torch.float64)
        with self._judging(supernet):
            with torch.set_grad_enabled(bool(drawn.pairs)):
                loss = task.training_loss(self._call(space.model, inputs), targets, 0.0)
            if drawn.pairs:
                # An `Inputs` may read none of them.
                (found,) = torch.autograd.grad(loss, gates, materialize_grads=True)
                by_gate = found.double().cpu()
        value = float(loss.detach())
        scale, costs = self._beside(value)
        for k, (label, at) in enumerate(drawn.pairs.items()):
            old = alphas.logits[label][at]
            total = scale * by_gate[k] + costs[label][at]
            move = self._adam.step(label, at, gate_gradient(total, old))
            alphas.logits[label][at] = kept_apart(old + move, old)
        self._reinforce([(drawn.single, scale * value)], costs)

    def _beside(self, value: float) -> tuple[float, dict[str, Tensor]]:
        """Return what the quantity in the loop makes of the gradient.

        Args:
            value: The task's loss.
        Returns:
            What the derivatives of that loss are multiplied by; label -> what the cost of each
            option adds to its own, given that the decision is taken.
        """
        alphas = self.known
        if self._aim is None:
            return 1.0, {label: torch.zeros_like(v) for label, v in alphas.logits.items()}
        expected, costs = self._aim.expected.by_option(alphas)
        scale, by_cost = self._aim.in_loss(value, expected)
        return scale, {label: by_cost * cost for label, cost in costs.items()}

    # --- by reward ----------------------------------------------------------------------------

    def _by_reward(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, rng: np.random.Generator
    ) -> None:
        space, aim = supernet.space, self._aim
        points = [self.known.sample(rng) for _ in range(self.settings.paths_each)]
        paths = [space.canonical(point) for point in points]
        with self._judging(supernet):
            worth = rewards(space, task, inputs, targets, paths, call=self._call, heard=self._heard)
        if aim is not None:
            worth = [aim.reward(r, path) for r, path in zip(worth, paths)]
        self._reinforce([(point, -r) for point, r in zip(points, worth)], {})

    def _reinforce(
        self,
        drawn: Sequence[tuple[Mapping[str, Option], float]],
        costs: Mapping[str, Tensor],
    ) -> None:
        """Move the logits of decisions against their loss and cost.

        Args:
            drawn: For each path the options meant, and the loss that they had.
            costs: Label -> what more each option adds to the loss.
        """
        mean = sum(loss for _, loss in drawn) / len(drawn)
        if self._baseline is None:
            self._baseline = mean
        logits = self.known.logits
        for label, gradient in score_gradients(self.known, drawn, self._baseline).items():
            if label in costs:
                gradient = gradient + gate_gradient(costs[label], logits[label])
            everything = list(range(len(logits[label])))
            logits[label] = logits[label] + self._adam.step(label, everything, gradient)
        self._baseline = 0.9 * self._baseline + 0.1 * mean
