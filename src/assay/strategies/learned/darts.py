"""DARTS: all operations at once, weighed by what is learned of them, in two levels.

Known weakness: operations without weights, skips above all, win early, because they need no
training (Zela et al. 2020, arXiv:1909.09656; Chu et al. 2020, arXiv:1911.12126). Memory and time
grow with the number of operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from assay.architecture import Architecture, Option
from assay.contracts import Context, History, Learning, Mix, Proposal
from assay.errors import InvalidSetting, UnsupportedMix
from assay.space.space import Space
from assay.space.structure import Choice
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.gates import EntryAdam
from assay.strategies.learned.learner import Learner
from assay.strategies.learned.symptoms import idle_options
from assay.train.files import under
from assay.train.proxy import halved
from assay.train.splits import Batch, Stream
from assay.train.task import Task, call_model
from assay.weights.norms import Norms
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

    with w' = w - xi d/dw L_train(w, alpha), w± = w ± eps d/dw' L_val(w', alpha), and
    eps = 0.01 / |d/dw' L_val|.

    Source: Liu, Simonyan, Yang 2019, "DARTS: Differentiable Architecture Search",
    arXiv:1806.09055, sections 2.2 and 2.3; Chu et al. 2020, "Fair DARTS", arXiv:1911.12126,
    sections 4.1 and 4.2; Dong, Yang 2019, "Searching for A Robust Neural Architecture in Four GPU
    Hours", arXiv:1910.04465, section 3.2; differs: the inner step has no momentum, and any choices
    of operations are weighed, not only the edges of a cell. Where a node of a cell chooses its
    inputs too, as in the space `darts`, all of them count while alpha is learned, and the strongest
    are kept; "gumbel" trains the operations on inputs drawn by their strength.

    Args:
        relax: "softmax", "sigmoid" (FairDARTS) or "gumbel" (GDAS, one operation computes).
        second_order: Whether the architecture step looks through a weight step.
        lr: Learning rate of Adam on alpha.
        decay: Weight decay of alpha.
        zero_one: Weight of FairDARTS' loss -mean((sigmoid(alpha) - 0.5)^2), for "sigmoid".
        temperature: Of "gumbel", at the start and at the end.
        exclude: Options that are not proposed, though they are weighed.
        most_skips: The learning of alpha stops where more choices than this prefer an option
            without parameters; 0 for never.
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
        for name in ("every", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"strategy.{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.warmup < 1 or self.lr <= 0 or self.decay < 0 or min(self.temperature) <= 0:
            raise InvalidSetting(
                f"strategy.warmup={self.warmup} must be from 0 to below 1, lr={self.lr} and "
                f"temperature={self.temperature} above 0, and decay={self.decay} 0 or more"
            )
        self.paths = Weights(self)

    def check(self, space: Space) -> None:
        """Refuse a space before anything is trained on it.

        Raises:
            UnsupportedMix: a decision is no choice of operations, or of inputs that each go
                through one.
        """
        inputs = _inputs(space)
        for label, choice in space.choices.items():
            if choice.kind != "OneOf" and not all(inputs.get(label, [[]])):
                raise UnsupportedMix(
                    f"darts needs choices of operations; {label} is a {choice.kind}; fix it, or "
                    "use the strategy 'proxyless'"
                )

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return the strongest architecture once, and draws by the weights."""
        alphas = self.paths.over(history.space)
        for label, choice in history.space.choices.items():
            barred = sorted(set(range(len(choice.options))) - set(self._open(choice)))
            alphas.logits[label][barred] = -torch.inf
        return alphas.propose(history, n, rng)

    def _open(self, choice: Choice) -> list[int]:
        """Return the positions of the options that may be proposed; all, where none would be."""
        found = [i for i, option in enumerate(choice.options) if option not in self.exclude]
        return found or list(range(len(choice.options)))

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
        }


class Weights(Learner[Alphas]):
    """All operations of every choice, weighed; the weights learn as the operations train.

    Args:
        settings: What the user chose.
    """

    settings: DARTS

    def __init__(self, settings: DARTS) -> None:
        super().__init__(settings, Alphas)
        self.stopped = ""
        self._steps = 1
        self._training = Stream()

    def begin(self, ctx: Context, space: Space, steps: int) -> None:
        """See `Learner.begin`.

        Raises:
            UnsupportedMix: a decision is no choice of operations.
        """
        self.settings.check(space)
        self._steps, self.stopped, self._training = steps, "", Stream()
        self._lr = ctx.recipe.lr
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
        """Return one mix of all operations; for "gumbel" one architecture."""
        if self.settings.relax == "gumbel":
            return [self.known.sample(rng) if self._known else space.sample(rng, over="decisions")]
        return [self._mix(space, {k: w.detach() for k, w in self._weights(self._leaves()).items()})]

    # --- one architecture step ----------------------------------------------------------------

    def _settle(self, ctx: Context, space: Space) -> None:
        sizes = {label: len(choice.options) for label, choice in space.choices.items()}
        self._moments = EntryAdam(sizes, self.settings.lr, betas=(0.5, 0.999))
        self._idle = idle_options(space)
        self._inputs = _inputs(space)
        self._shares = {
            label: dict.fromkeys(space.choices[label].options, 1 / sum(led[0][0] in e for e in led))
            for label, led in self._inputs.items()
        }

    def _figures(self) -> dict[str, Any]:
        return {"stopped": self.stopped}

    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        if self.stopped:
            return
        space, own = supernet.space, self.settings
        leaves = self._leaves()
        with Norms(space.model, lambda: None).by_batch():
            if own.relax == "gumbel":
                loss = self._drawn_loss(space, task, (inputs, targets), leaves, step)
            elif own.second_order:
                number, seed = (step - self._first) // own.every, self._seed + 1
                train = self._training.at(
                    number, task.train, own.batch, seed, supernet.device
                )  # fmt: skip
                self._adam(self._second_order(space, task, train, (inputs, targets), leaves))
                self._watch()
                return
            else:
                loss = self._loss(space, task, (inputs, targets), self._weights(leaves), None)
        total = loss.double() + self._regular(leaves)
        found = torch.autograd.grad(total, list(leaves.values()))
        self._adam(dict(zip(leaves, found)))
        self._watch()

    def _leaves(self) -> dict[str, Tensor]:
        learned = {k: v for k, v in self.known.logits.items() if k not in self._inputs}
        return {k: v.clone().requires_grad_() for k, v in learned.items()}

    def _weights(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.settings.relax == "sigmoid":
            return {label: torch.sigmoid(alpha) for label, alpha in leaves.items()}
        return {label: torch.softmax(alpha, 0) for label, alpha in leaves.items()}

    def _regular(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """Return FairDARTS' zero-one loss, which draws sigmoids away from one half."""
        if self.settings.relax != "sigmoid":
            return torch.zeros((), dtype=torch.float64)
        gates = torch.cat([torch.sigmoid(alpha) for alpha in leaves.values()])
        return -self.settings.zero_one * ((gates - 0.5) ** 2).mean()

    def _mix(self, space: Space, weights: Mapping[str, Tensor]) -> Mix:
        """Return the operations by their weights, and every input that a node may read once."""
        like = next(space.model.parameters())
        operations = {
            label: dict(zip(space.choices[label].options, weight.to(like.device, like.dtype)))
            for label, weight in weights.items()
        }
        return {**operations, **self._shares}

    def _loss(
        self,
        space: Space,
        task: Task,
        batch: Batch,
        weights: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor] | None,
    ) -> Tensor:
        inputs, targets = batch
        space.select(self._mix(space, weights))
        if parameters is None:
            return task.training_loss(call_model(space.model, inputs), targets, 0.0)

        def run(*args: Any, **kwargs: Any) -> Any:
            return functional_call(space.model, dict(parameters), args, kwargs)

        output = call_model(run, inputs)  # type: ignore[arg-type]
        return task.training_loss(output, targets, 0.0)

    def _second_order(
        self,
        space: Space,
        task: Task,
        train: Batch,
        valid: Batch,
        leaves: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the gradient by alpha of the validation loss after one weight step."""
        own = {k: p for k, p in space.model.named_parameters() if p.requires_grad}
        xi = self._lr
        alphas = list(leaves.values())
        loss = self._loss(space, task, train, self._weights(leaves), own)
        first = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        stepped = {
            k: (p if g is None else p - xi * g).detach().requires_grad_()
            for (k, p), g in zip(own.items(), first)
        }
        loss = self._loss(space, task, valid, self._weights(leaves), stepped)
        total = loss.double() + self._regular(leaves)
        found = torch.autograd.grad(
            total, [*alphas, *stepped.values()], allow_unused=True, materialize_grads=True
        )
        by_alpha, by_weight = found[: len(alphas)], found[len(alphas) :]
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in by_weight))  # type: ignore[arg-type]
        eps = 0.01 / float(norm) if float(norm) > 0 else 0.01
        ends = []
        for sign in (1.0, -1.0):
            moved = {k: (p + sign * eps * g).detach() for (k, p), g in zip(own.items(), by_weight)}
            loss = self._loss(space, task, train, self._weights(leaves), moved)
            ends.append(torch.autograd.grad(loss, alphas, materialize_grads=True))
        return {
            label: g - xi * (plus - minus) / (2 * eps)
            for label, g, plus, minus in zip(leaves, by_alpha, *ends)
        }

    def _drawn_loss(
        self, space: Space, task: Task, batch: Batch, leaves: Mapping[str, Tensor], step: int
    ) -> Tensor:
        """Return the loss of one operation of each choice, drawn by the Gumbel trick.

        Its weight is 1, with the gradient of the softmax that it was drawn by.
        """
        start, end = self.settings.temperature
        tau = start + (end - start) * min(1.0, step / max(1, self._steps))
        rng, mix = self._draws(step), dict[str, dict[Any, Any]](self._shares)
        like = next(space.model.parameters())
        for label, alpha in leaves.items():
            gumbel = torch.from_numpy(rng.gumbel(size=len(alpha)))
            soft = torch.softmax((torch.log_softmax(alpha, 0) + gumbel) / tau, 0)
            at = int(soft.argmax())
            weight = 1.0 + soft[at] - soft[at].detach()
            mix[label] = {space.choices[label].options[at]: weight.to(like.device, like.dtype)}
        inputs, targets = batch
        space.select(mix)
        return task.training_loss(call_model(space.model, inputs), targets, 0.0)

    def _adam(self, gradients: Mapping[str, Tensor]) -> None:
        """Move alpha, decayed, by Adam; then say how strong each way to read inputs is.

        The strength of an input is the largest weight on it, those excluded left aside; of several
        inputs it is the product, which is largest for the strongest.
        """
        for label, gradient in gradients.items():
            alpha = self.known.logits[label]
            whole = gradient.double() + self.settings.decay * alpha
            move = self._moments.step(label, list(range(len(alpha))), whole)
            self.known.logits[label] = alpha + move
        choices, weights = self.known.space.choices, self._weights(self.known.logits)
        for label, led in self._inputs.items():
            best = [[weights[e][self.settings._open(choices[e])].max() for e in es] for es in led]
            self.known.logits[label] = torch.stack([torch.stack(es).log().sum() for es in best])

    def _watch(self) -> None:
        """Stop where too many choices prefer an option without parameters."""
        most = self.settings.most_skips
        if not most:
            return
        best = {label: int(self.known.logits[label].argmax()) for label in self._idle}
        idle = sum(best[label] in options for label, options in self._idle.items())
        if idle > most:
            self.stopped = (
                f"{idle} of {len(best)} choices prefer an option without parameters, more "
                f"than most_skips={most}: alpha is left as it is"
            )

    # --- state --------------------------------------------------------------------------------

    def _more_state(self) -> dict[str, Any]:
        moments = {f"moments.{label}": v for label, v in self._moments.state_dict().items()}
        return {**moments, "stopped": self.stopped}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._moments.load_state_dict(under("moments.", state))
        self.stopped = str(state["stopped"])


def _inputs(space: Space) -> dict[str, list[list[str]]]:
    """Return for each choice of inputs the choices of operations that its options lead to."""

    def led(label: str, option: Option) -> list[str]:
        way = (label, frozenset([option]))
        return [k for k, c in space.choices.items() if any(w[-1:] == (way,) for w in c.conditions)]

    return {
        label: [led(label, option) for option in choice.options]
        for label, choice in space.choices.items()
        if choice.kind == "Inputs"
    }
