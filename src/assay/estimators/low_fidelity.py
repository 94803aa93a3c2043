"""A cheaper training in place of the whole one: shorter, on less data, smaller images or nets.

Known weakness: a proxy that is too cheap ranks what learns fast, not what ends well. A whole
schedule squeezed into a few steps ranks worse than the first steps of a long one, so the default
keeps the rate constant and judges the average of the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting, NotFinite, nearest
from assay.estimators.curves import FEWEST_POINTS, extrapolate
from assay.estimators.each import Told, all_of, trained_each
from assay.estimators.proxies import augments, proxies, repeats
from assay.estimators.training import Trained, Training, step_seconds
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.morph import thin

__all__ = ["LowFidelity"]

_KEPT_BYTES = 4 * 2**30
_LOSSES = {
    "loss": "proxy_loss",
    "training": "proxy_training_loss",
    "fit": "proxy_fitted_loss",
}
_WORDS: Mapping[str, Sequence[str]] = {
    "score": ("loss", "metric", "training", "fit"),
    "schedule": ("constant", "cosine"),
}


@dataclass
class LowFidelity:
    """Trains each architecture cheaply, by any mix of six proxies.

    A proposal's `fidelity` is a share of this training: a rung of halving goes on from the state
    that the rung below has left in memory, and gives the same bits as a training that never
    stopped. A resumed search trains such a state again, and so does one whose states take more than
    4 GiB, of which the oldest go; and one that is scored by "fit", whose curve would be another.

    Source: Zhou et al. 2020, "EcoNAS: Finding Proxies for Economical Neural Architecture Search",
    arXiv:2001.01233, for the reduced factors; Ru et al. 2021, "Speedy Performance Estimation for
    Neural Architecture Search", arXiv:2006.04492, for the sum of training losses.

    Args:
        share: Of the recipe's steps, in (0, 1].
        steps: Optimiser steps in place of a share; 0 for none.
        data: Share of the training samples, each class alike.
        resolution: Share of the side of the images; 0 for one half from 32 pixels on, else all.
        channels: Share of the channels of every layer, beside a variant; see
            `assay.weights.morph.thin`, which says what networks it refuses.
        variant: Options of a ready space that make it smaller, such as {"cells": 1}; None for those
            that the space names as cheap.
        proxy: Another task to train on, in place of the context's; its own kind of input.
        score: "loss" (negative, on validation), "metric" (the task's own score), "training"
            (negative mean of the training losses over the last `window`), or "fit" (negative loss
            at the end of the recipe, extrapolated from `points`). None for "training" where no
            sample is seen again, so that these losses are of unseen samples too, and else "loss".
        window: Share of the steps whose training losses count.
        points: Times that the validation loss is looked at; a fit needs four. Never where the score
            is "training", which saves that time.
        schedule: Of the rate: "constant", or the recipe's "cosine" over the steps of the share.
        ema: Decay of the averaged weights that are judged; 0 for none.
        samples: Most validation samples to judge on; 0 for all.
        augment: Whether training batches are augmented; None for where the training sees each
            sample more than five times.
    Raises:
        InvalidSetting: an unknown word, a share or decay out of range, a negative count, a fit of
            fewer than four points, or a proxy that is no task.
    """

    share: float = 0.05
    steps: int = 0
    data: float = 1.0
    resolution: float = 0.0
    channels: float = 1.0
    variant: dict[str, Any] | None = None
    proxy: Any = None
    score: Literal["loss", "metric", "training", "fit"] | None = None
    window: float = 0.5
    points: int = 1
    schedule: Literal["constant", "cosine"] = "constant"
    ema: float = 0.98
    samples: int = 2048
    augment: bool | None = None
    heeds_fidelity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            given = getattr(self, name)
            if given not in words and (given is not None or name != "score"):
                raise InvalidSetting(f"estimator.{name}={given!r}; {nearest(str(given), words)}")
        for name in ("share", "data", "channels", "window"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidSetting(
                    f"estimator.{name}={getattr(self, name)!r} is a share: more than 0, at most 1"
                )
        for name in ("steps", "samples"):
            if getattr(self, name) < 0:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be 0 or more")
        if not (0 <= self.resolution <= 1 and 0 <= self.ema < 1):
            raise InvalidSetting(
                f"estimator.resolution={self.resolution} must be from 0 to 1, and "
                f"estimator.ema={self.ema} from 0 to less than 1"
            )
        if self.points < (FEWEST_POINTS if self.score == "fit" else 1):
            raise InvalidSetting(
                f"estimator.points={self.points} is too few for score={self.score!r}; give "
                f"{FEWEST_POINTS} or more"
            )
        if not (self.proxy is None or isinstance(self.proxy, Task)):
            raise InvalidSetting(
                f"estimator.proxy={self.proxy!r} is no Task; give one, such as load_task('digits')"
            )
        self._made: tuple[Space, Task] | None = None
        self._states: OrderedDict[Architecture, tuple[int, Trained]] = OrderedDict()

    def step_seconds(self, ctx: Context) -> float:
        """Return 0: there is nothing to prepare."""
        return 0.0

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Prepare nothing."""
        yield from ()

    def training_step_seconds(self, ctx: Context) -> float:
        """Time some steps of such trainings, as many at once as there will be."""
        space, task = self._proxies(ctx)

        def make(architecture: Architecture) -> nn.Module:
            return self._network(space, architecture, 0)

        return step_seconds(ctx, make, task, self._recipe(ctx.recipe))

    def estimate_seconds(self, ctx: Context) -> float:
        """Return the seconds of one estimate, from timed steps; less where many run at once."""
        return self.steps_each(ctx) * self.training_step_seconds(ctx) / ctx.executor.at_once

    def steps_each(self, ctx: Context) -> int:
        """Return the optimiser steps of one training at fidelity 1."""
        whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
        return self.steps or max(1, round(self.share * whole))

    def trains_whole(self, ctx: Context) -> bool:
        """Whether it is the recipe's own training, judged by the task's own score on all samples.

        Of the network and the task themselves, as long, with the recipe's schedule and averages.
        """
        space, task = self._proxies(ctx)
        whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
        proper = space is ctx.space and task is ctx.task and self.channels == 1
        proper = proper and self.steps_each(ctx) == whole
        judged = self.samples == 0 or self.samples >= len(ctx.task.valid)
        return (
            proper and judged and self.score == "metric" and self._recipe(ctx.recipe) == ctx.recipe
        )

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Train each architecture cheaply; several at once where the executor can.

        One that diverges has no score, and costs what it took.

        Raises:
            InvalidSetting: a fit of a training of fewer than four steps; it is not begun.
        """
        return all_of(self.estimate_each(ctx, proposals))

    def estimate_each(
        self, ctx: Context, proposals: Sequence[Proposal]
    ) -> Iterator[tuple[int, Told]]:
        """Yield what `estimate` returns as the trainings end."""

        def make(proposal: Proposal) -> Training:
            point = ctx.space.canonical(proposal.architecture)
            return self._job(ctx, point, proposal.fidelity)

        def tell(proposal: Proposal, trained: Trained) -> Estimate:
            point = ctx.space.canonical(proposal.architecture)
            self._keep(point, self._until(ctx, proposal.fidelity), trained)
            return self._estimate(ctx, proposal.fidelity, trained)

        return trained_each(ctx, proposals, make, tell)

    # --- one training -------------------------------------------------------------------------

    def _until(self, ctx: Context, fidelity: float) -> int:
        """Return the step at which a training of some fidelity stops."""
        return max(1, round(self.steps_each(ctx) * fidelity))

    def _job(self, ctx: Context, point: Architecture, fidelity: float) -> Training:
        space, task = self._proxies(ctx)
        steps, until = self.steps_each(ctx), self._until(ctx, fidelity)
        if self.score == "fit" and until < FEWEST_POINTS:
            raise InvalidSetting(
                f"a training of {until} steps is too short for score='fit', which needs "
                f"{FEWEST_POINTS} points of its curve; give more estimator.steps or a larger "
                "estimator.share"
            )
        at, begun = self._states.get(point, (0, None))
        goes_on = self.score != "fit"  # whose curve has its points evenly over each training
        seed = int(derive(ctx.seed, "low fidelity").integers(2**31))
        network = self._network(space, point, seed)
        points = 0 if self._score_named(ctx) == "training" else self.points
        return Training(
            network, task, self._recipe(ctx.recipe), steps, until, ctx.device, seed, points,
            self.samples or None, begun if goes_on and at < until else None,
            keep=goes_on and fidelity < 1,
        )  # fmt: skip

    def _network(self, space: Space, point: Architecture, seed: int) -> nn.Module:
        network = space.fresh(point, seed)
        return network if self.channels == 1 else thin(network, self.channels)

    def _recipe(self, recipe: Recipe) -> Recipe:
        return recipe.with_(schedule=self.schedule, ema=self.ema)

    def _keep(self, point: Architecture, step: int, trained: Trained) -> None:
        """Remember the longest training of an architecture that can go on; the latest that fit."""
        if trained.state and step > self._states.get(point, (0, None))[0]:
            self._states[point] = (step, trained)
            self._states.move_to_end(point)
            left = _KEPT_BYTES
            for kept, (_, other) in reversed(list(self._states.items())):
                left -= _num_bytes(other.state)
                if left < 0:
                    del self._states[kept]

    def _estimate(self, ctx: Context, fidelity: float, trained: Trained) -> Estimate:
        task = self._proxies(ctx)[1]
        made_from: dict[str, Any] = {
            "estimator": "low-fidelity", "steps": self._until(ctx, fidelity),
            "of": self.steps_each(ctx), "data": self.data, "channels": self.channels,
            "resolution": self.resolution, "task": task.name,
        }  # fmt: skip
        if trained.diverged:
            return Estimate.failed(trained.diverged, trained.cost, made_from)
        metrics = {f"proxy_{name}": value for name, value in trained.figures.items()}
        recent = trained.losses[-max(1, round(self.window * len(trained.losses))) :]
        metrics["proxy_training_loss"] = sum(recent) / len(recent)
        if self.score == "fit":
            whole = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
            try:
                metrics["proxy_fitted_loss"] = extrapolate(trained.curve, whole)
            except NotFinite as error:  # a validation loss, where no training loss or weight was
                return Estimate.failed(str(error), trained.cost, made_from)
        score = self._score_named(ctx)
        made_from["score"] = score
        if score == "metric":
            return Estimate(task.score_of(trained.figures), metrics, trained.cost, made_from)
        return Estimate(-metrics[_LOSSES[score]], metrics, trained.cost, made_from)

    def _score_named(self, ctx: Context) -> str:
        if self.score is not None:
            return self.score
        again = repeats(ctx, self.steps_each(ctx), data=self.data, proxy=self.proxy)
        return "loss" if again else "training"

    def _proxies(self, ctx: Context) -> tuple[Space, Task]:
        """Return the space whose networks are trained, and the task they are trained on."""
        if self._made is None:
            augment = self.augment
            if augment is None:
                augment = augments(ctx, self.steps_each(ctx), data=self.data, proxy=self.proxy)
            self._made = proxies(
                ctx, variant=self.variant, resolution=self.resolution, data=self.data,
                proxy=self.proxy, augment=augment,
            )  # fmt: skip
        return self._made

    def state_dict(self) -> Mapping[str, Any]:
        """Return nothing: nothing is prepared."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


def _num_bytes(state: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in state.values() if isinstance(value, Tensor))
