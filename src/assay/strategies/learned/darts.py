"""DARTS: all operations at once, weighed by what is learned of them, in two levels.

Known weakness: operations without weights, skips above all, win early, because they need no
training (Zela et al. 2020, arXiv:1909.09656; Chu et al. 2020, arXiv:1911.12126). Memory and time
grow with the number of operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture
from assay.contracts import Context, History, Learning, Mix, Proposal
from assay.errors import InvalidSetting, UnsupportedMix, nearest
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas, Sigmoids
from assay.strategies.learned.bilevel import (
    by_alpha,
    drawn_gate,
    mixed_loss,
    second_order,
    zero_one,
)
from assay.strategies.learned.edges import led_to, strengths
from assay.strategies.learned.gates import EntryAdam
from assay.strategies.learned.learner import Learner
from assay.strategies.learned.ranges import refuse_out_of_range
from assay.strategies.learned.symptoms import idle_options, open_options, preferring_idle
from assay.strategies.learned.tightest import Measure, Tightest
from assay.train.files import under
from assay.train.proxy import halved
from assay.train.splits import Batch, Stream
from assay.train.task import Task, call_model
from assay.weights.supernet import Supernet

__all__ = ["DARTS", "Weights"]


@dataclass
class DARTS:
    """Trains a weighted sum of all operations, and proposes the strongest of each.

    A weight step runs every operation of every choice, weighed by w_o = softmax(alpha)_o, or by
    independent sigmoids (FairDARTS), or one drawn by the Gumbel trick (GDAS), on one half of the
    training samples. An architecture step moves alpha by Adam along the gradient of the loss on a
    batch of the other half, L_val: of first order with the weights as they are, or of second order
    through one step of theirs on a batch of the first half,

        d/dalpha L_val(w', alpha) - xi (d/dalpha L_train(w+, alpha) - d/dalpha L_train(w-, alpha))
        / 2 eps,

    with w' = w - xi d/dw L_train(w, alpha), w± = w ± eps d/dw' L_val(w', alpha),
    eps = 0.01 / |d/dw' L_val|, and xi the rate of the weight step that follows. In architecture
    steps dropout is off, for L_train too, and norms use each batch's own statistics. Limits are
    shown and not learned of. One operation at a time trains in canonical form, as it is scored, and
    moves alpha as it was drawn.

    Source: Liu, Simonyan, Yang 2019, "DARTS: Differentiable Architecture Search",
    arXiv:1806.09055, sections 2.2 and 2.3; Chu et al. 2020, "Fair DARTS", arXiv:1911.12126,
    sections 4.1 and 4.2; Dong, Yang 2019, "Searching for A Robust Neural Architecture in Four GPU
    Hours", arXiv:1910.04465, section 3.2; differs: the inner step has no momentum, and any choices
    of operations are weighed, not only the edges of a cell; the rate of alpha is 0.01, where the
    paper's is 0.0003 for fifty epochs, and there is a warm-up, where the paper has none. Where a
    node of a cell chooses its inputs too, as in the space `darts`, all of them count while alpha is
    learned, and the strongest are kept, for "sigmoid" too, where FairDARTS keeps those above a
    threshold; "gumbel" trains the operations on inputs drawn by their strength.

    Args:
        relax: "softmax", "sigmoid" (FairDARTS) or "gumbel" (GDAS, one operation computes).
        second_order: Whether the architecture step looks through a weight step.
        lr: Learning rate of Adam on alpha.
        decay: Weight decay of alpha.
        zero_one: Weight of FairDARTS' loss -mean((sigmoid(alpha) - 0.5)^2), for "sigmoid"; 0 for
            none.
        temperature: Of "gumbel", at the start and at the end.
        exclude: Options that are not proposed, though they are weighed.
        most_skips: The learning of alpha stops before more choices than this clearly prefer an
            option without parameters, by 1.5 times its weight; 0 for never.
        warmup: Share of the steps before alpha is moved.
        every: Weight steps for each architecture step.
        batch: Samples of an architecture step.
        halves: Whether weights and alpha have a half of the training samples each, as published;
            otherwise weights have all, and alpha learns on the validation split that scores rest
            on.
    Raises:
        InvalidSetting: a word that is not known, or a number out of range.
    """

    relax: Literal["softmax", "sigmoid", "gumbel"] = "softmax"
    second_order: bool = False
    lr: float = 0.01
    decay: float = 1e-3
    zero_one: float = 10.0
    temperature: tuple[float, float] = (10.0, 1.0)
    exclude: tuple[str, ...] = ("none",)
    most_skips: int = 0
    warmup: float = 0.1
    every: int = 1
    batch: int = 64
    halves: bool = True

    def __post_init__(self) -> None:
        if self.relax not in ("softmax", "sigmoid", "gumbel"):
            raise InvalidSetting(
                f"strategy.relax={self.relax!r}; there are softmax, sigmoid and gumbel"
            )
        if self.second_order and self.relax == "gumbel":
            raise InvalidSetting("strategy.second_order=True goes with softmax or sigmoid only")
        refuse_out_of_range(self, {
            "count": ("every", "batch"), "not negative": ("zero_one", "most_skips", "decay"),
            "positive": ("lr",), "share": ("warmup",),
        })  # fmt: skip
        ends: Any = self.temperature
        two = isinstance(ends, tuple | list) and len(ends) == 2
        if not two or not all(0 < end < math.inf for end in ends):
            raise InvalidSetting(
                f"strategy.temperature={ends!r} must be two finite numbers above 0: start and end"
            )
        given: Any = self.exclude
        if isinstance(given, str):
            raise InvalidSetting(
                f"strategy.exclude={given!r} is one word: give a list of options, ({given!r},)"
            )
        self.paths = Weights(self)

    def in_the_loop(self, measure: Measure, limits: Mapping[Any, float]) -> None:
        """Take what measures architectures, to show what is expected of them.

        Args:
            measure: Tells a quantity of an architecture.
            limits: Quantity -> largest value allowed; those by a user's own function, which builds
                a network each time, are not shown.
        """
        self.paths.measure = measure
        self.paths.limits = {q: limit for q, limit in limits.items() if isinstance(q, str)}

    def check(self, space: Space) -> None:
        """Refuse a space before anything is trained on it.

        Raises:
            UnsupportedMix: a decision is no choice of operations, or of inputs that each go
                through one.
            InvalidSetting: an option is excluded that no choice has.
        """
        known = {option for choice in space.choices.values() for option in choice.options}
        for option in self.exclude:
            if option not in known | {"none"}:
                raise InvalidSetting(
                    f"strategy.exclude: no choice has an option {option!r}; "
                    f"{nearest(option, sorted(map(str, known)))}"
                )
        inputs = led_to(space)
        for label, choice in space.choices.items():
            if choice.kind != "OneOf" and not all(inputs.get(label, [[]])):
                raise UnsupportedMix(
                    f"darts needs choices of operations; {label} is a {choice.kind}; fix it, or "
                    "use the strategy 'proxyless', or the ready space 'darts' (--space darts)"
                )

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return the strongest architecture once, and draws by the weights."""
        return self.paths.proposed(history.space).propose(history, n, rng)

    def learned(self, history: History) -> Sequence[Learning]:
        """Return what was known as the supernet trained; see `Strategy`."""
        return self.paths.learned()

    @property
    def advice(self) -> Mapping[str, str]:
        """What to change at a symptom."""
        longer = f"raise strategy.warmup ({self.warmup:g})"
        return {
            "stopped": f"{longer}, or allow more by strategy.most_skips ({self.most_skips})",
            "collapsed": f"lower strategy.lr ({self.lr:g}) or {longer}",
            "idle": f"set strategy.relax=sigmoid or strategy.most_skips, or {longer}",
            "drifting": "darts learns nothing of limits: use the strategy 'proxyless'",
        }


class Weights(Learner[Alphas]):
    """All operations of every choice, weighed; the weights learn as the operations train.

    Args:
        settings: What the user chose.
    """

    settings: DARTS

    def __init__(self, settings: DARTS) -> None:
        super().__init__(settings, Sigmoids if settings.relax == "sigmoid" else Alphas)
        self.stopped = ""
        self.measure: Measure | None = None
        self.limits: Mapping[str, float] = {}
        self._tightest: Tightest | None = None
        self._average: float | None = None  # of the loss that alpha is judged by
        self._steps = 1
        self._training = Stream()

    @property
    def train_share(self) -> float:
        """Share of the training samples that the operations train on."""
        return 0.5 if self.settings.halves else 1.0

    def begin(self, ctx: Context, space: Space, steps: int) -> None:
        """See `Learner.begin`.

        Raises:
            UnsupportedMix: a decision is no choice of operations.
        """
        self.settings.check(space)
        self._steps, self.stopped, self._training = steps, "", Stream()
        self._recipe = ctx.recipe
        super().begin(ctx, space, steps)

    def divide(self, task: Task) -> Task:
        """Return the task on two halves of its training samples, if that is set.

        Raises:
            InvalidSetting: a DataLoader, which cannot be halved.
        """
        if not self.settings.halves:
            return task
        try:
            return halved(task, seed=self._seed)
        except InvalidSetting as error:
            raise InvalidSetting(f"{error}, or set strategy.halves=False") from error

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return one mix of all operations; for "gumbel" one architecture, canonical."""
        if self.settings.relax == "gumbel":
            point = self.known.sample(rng) if self._known else space.sample(rng, over="decisions")
            return [space.canonical(point)]
        return [self._mix(space, {k: w.detach() for k, w in self._weights(self._leaves()).items()})]

    def proposed(self, space: Space) -> Alphas:
        """Return what architectures are drawn from: what is excluded has no chance."""
        alphas = self.over(space)
        for label, choice in space.choices.items():
            shown = open_options(choice, self.settings.exclude)
            barred = set(range(len(choice.options))) - set(shown)
            alphas.logits[label][sorted(barred)] = -torch.inf
        return alphas

    # --- one architecture step ----------------------------------------------------------------

    def _settle(self, ctx: Context, space: Space) -> None:
        self._average, self._tightest = None, None
        if self.measure is not None and self.limits:
            self._tightest = Tightest(
                self.measure, self.limits, lambda rng: self.proposed(space).sample(rng), ctx.seed
            )
        sizes = {label: len(choice.options) for label, choice in space.choices.items()}
        self._moments = EntryAdam(sizes, self.settings.lr, betas=(0.5, 0.999))
        self._idle = idle_options(space, self.settings.exclude)
        self._inputs = led_to(space)
        self._shares = {
            label: dict.fromkeys(space.choices[label].options, 1 / sum(led[0][0] in e for e in led))
            for label, led in self._inputs.items()
        }

    def _entropy_share(self) -> float:
        return self.proposed(self.known.space).entropy_share()

    def _figures(self) -> dict[str, Any]:
        limited = {} if self._tightest is None else self._tightest.figures()
        reward = None if self._average is None else -self._average
        return {"stopped": self.stopped, "reward": reward, **limited}

    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        if self.stopped:
            return
        before = dict(self.known.logits)
        with self._judging(supernet):
            gradients = self._gradients(supernet, task, (inputs, targets), step)
        self._adam(gradients)
        self._watch(before)

    def _gradients(
        self, supernet: Supernet, task: Task, valid: Batch, step: int
    ) -> dict[str, Tensor]:
        space, leaves = supernet.space, self._leaves()
        # Differences of second order are too small for 16 bits.
        call = call_model if self.settings.second_order else self._call
        if self.settings.relax == "gumbel":
            mix = self._drawn(space, leaves, step)
            return by_alpha(self._noted(mixed_loss(space, task, valid, mix, call=call)), leaves)

        def judged(alphas: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None) -> Tensor:
            mix = self._mix(space, self._weights(alphas))
            loss = self._noted(mixed_loss(space, task, valid, mix, weights, call=call))
            return loss.double() + self._regular(alphas)

        if not self.settings.second_order:
            return by_alpha(judged(leaves, None), leaves)
        train = self._training_batch(supernet, task, step)

        def trained(alphas: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
            return mixed_loss(space, task, train, self._mix(space, self._weights(alphas)), weights)

        weights = {k: p for k, p in space.model.named_parameters() if p.requires_grad}
        return second_order(trained, judged, leaves, weights, self._xi(step))

    def _noted(self, loss: Tensor) -> Tensor:
        """Return the loss that alpha is judged by, after its moving average has moved."""
        value = float(loss.detach())
        before = value if self._average is None else self._average
        self._average = 0.9 * before + 0.1 * value
        return loss

    def _xi(self, step: int) -> float:
        """Return the rate of the weight step that follows, which the inner step looks through."""
        return self._recipe.lr_at(step, self._steps)

    def _training_batch(self, supernet: Supernet, task: Task, step: int) -> Batch:
        own = self.settings
        number = (step - self._first) // own.every
        return self._training.at(number, task.train, own.batch, self._seed + 1, supernet.device)

    def _leaves(self) -> dict[str, Tensor]:
        learned = {k: v for k, v in self.known.logits.items() if k not in self._inputs}
        return {k: v.clone().requires_grad_() for k, v in learned.items()}

    def _weights(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.settings.relax == "sigmoid":
            return {label: torch.sigmoid(alpha) for label, alpha in leaves.items()}
        return {label: torch.softmax(alpha, 0) for label, alpha in leaves.items()}

    def _regular(self, alphas: Mapping[str, Tensor]) -> Tensor:
        """Return the weighed loss that draws sigmoids away from one half; 0 of a softmax."""
        if self.settings.relax != "sigmoid":
            return torch.zeros((), dtype=torch.float64)
        return self.settings.zero_one * zero_one(alphas)

    def _mix(self, space: Space, weights: Mapping[str, Tensor]) -> Mix:
        """Return the operations by their weights, and every input that a node may read once."""
        like = next(space.model.parameters())
        operations = {
            label: dict(zip(space.choices[label].options, weight.to(like.device, like.dtype)))
            for label, weight in weights.items()
        }
        return {**operations, **self._shares}

    def _drawn(self, space: Space, leaves: Mapping[str, Tensor], step: int) -> Mix:
        """Return one operation of each choice, drawn by the Gumbel trick."""
        start, end = self.settings.temperature
        temperature = start + (end - start) * min(1.0, step / max(1, self._steps))
        rng, mix = self._draws(step), dict[str, dict[Any, Any]](self._shares)
        like = next(space.model.parameters())
        for label, alpha in leaves.items():
            noise = torch.from_numpy(rng.gumbel(size=len(alpha)))
            at, gate = drawn_gate(alpha, noise, temperature)
            mix[label] = {space.choices[label].options[at]: gate.to(like.device, like.dtype)}
        return mix

    def _adam(self, gradients: Mapping[str, Tensor]) -> None:
        """Move alpha, decayed, by Adam; then say how strong each way to read inputs is."""
        for label, gradient in gradients.items():
            alpha = self.known.logits[label]
            whole = gradient.double() + self.settings.decay * alpha
            move = self._moments.step(label, list(range(len(alpha))), whole)
            self.known.logits[label] = alpha + move
        weights, exclude = self._weights(self.known.logits), self.settings.exclude
        for label, led in self._inputs.items():
            self.known.logits[label] = strengths(self.known.space, led, weights, exclude)

    def _watch(self, before: dict[str, Tensor]) -> None:
        """Stop where too many choices prefer an option without parameters, at alpha as before."""
        most = self.settings.most_skips
        idle = len(preferring_idle(self.known.table(), self._idle)) if most else 0
        if idle <= most:
            return
        self.known.logits = before
        self.stopped = (
            f"{idle} of {len(self._idle)} choices would prefer an option without parameters, more "
            f"than most_skips={most}: alpha is left as it was before"
        )

    # --- state --------------------------------------------------------------------------------

    def _more_state(self) -> dict[str, Any]:
        moments = {f"moments.{label}": v for label, v in self._moments.state_dict().items()}
        return {**moments, "stopped": self.stopped, "average": self._average}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._moments.load_state_dict(under("moments.", state))
        self.stopped, self._average = str(state["stopped"]), state["average"]
