"""The weight-sharing supernet: train all architectures at once, score each by its path.

Known weakness: a path's loss with shared weights is no accuracy of a trained network, and how well
it ranks differs from task to task (Yu et al. 2019, arXiv:1902.08142; Zela et al. 2020,
arXiv:2001.10422). Compare it with counting MACs before you trust it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Paths, Proposal, Trial
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, nearest
from assay.estimators.macs import PassMacs
from assay.estimators.origin import same_origin
from assay.estimators.proxies import augments, proxies
from assay.estimators.training import enough_batches, in_chunks
from assay.space.space import Space
from assay.train.files import under
from assay.train.loop import Trainer
from assay.train.splits import Batch, evened
from assay.train.task import Task
from assay.weights.paths import Fair, Sandwich, Sized, Uniform
from assay.weights.scoring import predictions, score_paths
from assay.weights.supernet import Supernet

__all__ = ["OneShot"]

_COUNTED_STEPS = 16
_TIMED_S = 4.0  # at most: paths differ in what they take, so a few steps tell too little
_SIZED = 16  # random networks, of which one is smaller than the largest where sizes differ
_MOST_GAP = 1e-5  # shared or not, the same kernels run on the same numbers
_PATHS: Mapping[str, type[Uniform] | type[Sized] | type[Fair] | type[Sandwich]] = {
    "sized": Sized,
    "uniform": Uniform,
    "fair": Fair,
    "sandwich": Sandwich,
}
_WORDS: Mapping[str, Sequence[str]] = {
    "schedule": ("constant", "cosine"),
    "score": ("agreement", "loss", "metric"),
    "norms": ("recalibrate", "batch"),
}


@dataclass
class OneShot:
    """Scores architectures as paths of one supernet.

    A supernet that is trained as one network would be is under-trained and swings: so the rate is
    high and stays constant, weights are averaged, options with more parameters are drawn more
    often, and a score is the mean over several states of the second half of the training. Where a
    space names a cheap variant, or images are large, the supernet is one of these.

    Source: Guo et al. 2019, "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", arXiv:1904.00420; paths of Chu et al. 2019, arXiv:1907.01845 and Yu et al. 2020,
    arXiv:2003.11142 by setting; differs: all that is said above.

    Args:
        paths: "sized", "uniform", "fair", "sandwich" or a `Paths` of your own.
        rate: Learning rate as a multiple of the recipe's.
        schedule: Of the rate: "constant", or the recipe's "cosine".
        ema: Decay of the averaged weights that are judged; 0 for none.
        states: How many states of the training a score is the mean over, evenly spaced over its
            second half.
        score: "agreement" ranks by how far a path predicts the classes that the space's largest
            network predicts with the same weights, "loss" by the negative validation loss,
            "metric" by the task's own score. None for agreement where there are classes, the
            networks differ in MACs and `paths` is a word; else for the loss, since paths of your
            own may leave the largest network untrained.
        norms: How batch norms are normalised when a path is judged: "recalibrate" or "batch".
        samples: Most validation samples that a score is taken on.
        calibration: Training samples from which a path's norm statistics are measured.
        batch: Most samples of one scoring batch; their sizes are evened out.
        shared: Compute beginnings that paths have in common once.
        variant: Options of a ready space that make its networks smaller; None for those that the
            space names as cheap, {} for none.
        resolution: Share of the side of the images; 0 for one half from 32 pixels on, else all.
    Raises:
        InvalidSetting: an unknown word, a count below 1, or a rate, decay or share out of range.
    """

    paths: Any = "sized"
    rate: float = 2.0
    schedule: Literal["constant", "cosine"] = "constant"
    ema: float = 0.98
    states: int = 2
    score: Literal["agreement", "loss", "metric"] | None = None
    norms: Literal["recalibrate", "batch"] = "batch"
    samples: int = 512
    calibration: int = 256
    batch: int = 256
    shared: bool = True
    variant: dict[str, Any] | None = None
    resolution: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.paths, str) and self.paths not in _PATHS:
            raise InvalidSetting(f"unknown paths {self.paths!r}; {nearest(self.paths, _PATHS)}")
        for name, words in _WORDS.items():
            given = getattr(self, name)
            if given not in words and (given is not None or name != "score"):
                raise InvalidSetting(f"estimator.{name}={given!r}; {nearest(str(given), words)}")
        for name in ("states", "samples", "calibration", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        if self.rate <= 0 or not 0 <= self.resolution <= 1:
            raise InvalidSetting(
                f"estimator.rate={self.rate} must be more than 0, and "
                f"estimator.resolution={self.resolution} from 0 to 1"
            )
        if not 0 <= self.ema < 1:
            raise InvalidSetting(f"estimator.ema={self.ema} must be from 0 to less than 1")
        self._task: Task | None = None
        self._supernet: Supernet | None = None
        self._trainer: Trainer | None = None
        self._loaded: dict[str, Any] | None = None
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._batches: tuple[list[Batch], list[Batch]] | None = None
        self._unshared_because: str | None = None  # unknown yet; "" where sharing holds
        self._said: dict[int, list[Tensor]] = {}  # step -> the largest network's predictions
        self._score: str | None = self.score  # settled where it is None, see _score_named
        self._guide: Architecture | None = None
        self._counted: PassMacs | None = None
        self._macs: float | None = None
        self._origin = ""

    def step_seconds(self, ctx: Context) -> float:
        """Time some training steps on paths as they will come; the weights are drawn anew after."""
        trainer = self._begin(ctx, 10**9)
        if hasattr(self.paths, "hasten"):
            self.paths.hasten()
        period = getattr(self.paths, "every", 1)
        return trainer.step_seconds(rounds=8, steps=6, period=period, most_s=_TIMED_S)

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Train the supernet for `budget.steps` steps in all; yields about once a second.

        Raises:
            InvalidSetting: a score by agreement, of a task without classes.
            InvalidStudy: the loaded state is of another space or task.
        """
        trainer = self._begin(ctx, budget.steps or 1)
        for stop in self._stops(trainer.steps):
            for cost in in_chunks(ctx, trainer, stop):
                macs = round(3 * self._path_macs(ctx) * cost.samples)
                yield replace(cost, macs=macs) + self._learned(ctx)
            if stop not in self._kept:
                with trainer.averaged() as module:
                    self._kept[stop] = copy.deepcopy(module.state_dict())  # what is tied stays so
        trainer.finish()

    def _learned(self, ctx: Context) -> Cost:
        """Return what paths that learn passed through the supernet since this was last asked."""
        return self.paths.spent(self._counter(ctx)) if hasattr(self.paths, "spent") else Cost()

    def _stops(self, steps: int) -> list[int]:
        """Return the steps whose states are judged, the last included."""
        evenly = (steps / 2 + steps / 2 * (i + 1) / self.states for i in range(self.states))
        return sorted({max(1, round(step)) for step in evenly})

    def shares_weights(self, ctx: Context) -> bool:
        """Whether the supernet holds weights of the context's own networks, on its own images."""
        space, task = proxies(ctx, variant=self.variant, resolution=self.resolution)
        return space is ctx.space and task is ctx.task

    def _begin(self, ctx: Context, steps: int) -> Trainer:
        """Make the supernet, of a space and on a task that may be cheaper, and its trainer."""
        if self.score == "agreement" and not ctx.task.classes:
            raise InvalidSetting(
                f"estimator.score='agreement' compares predicted classes, and the task "
                f"{ctx.task.name!r} has a loss of its own; use 'loss' or 'metric'"
            )
        self._origin = same_origin(ctx, (self._loaded or {}).get("origin", ""), "supernet")
        paths = self._policy()
        often = augments(ctx, steps, data=getattr(paths, "train_share", 1.0))
        space, task = proxies(ctx, variant=self.variant, resolution=self.resolution, augment=often)
        recipe = ctx.recipe.with_(
            lr=self.rate * ctx.recipe.lr, schedule=self.schedule, ema=self.ema
        )
        if hasattr(paths, "begin"):
            paths.begin(replace(ctx, recipe=recipe), space, steps)
        self._supernet = Supernet(space, paths=paths, device=ctx.device, seed=ctx.seed)
        self._supernet.reset()
        self._task = task
        divided = paths.divide(task) if hasattr(paths, "divide") else task
        self._trainer = self._supernet.trainer(divided, recipe, steps=steps)
        self._kept, self._said, self._score, self._guide = {}, {}, self.score, None
        self._batches = self._unshared_because = self._counted = self._macs = None
        if self._loaded is not None:
            self._macs = self._loaded.get("macs")
            self._trainer.load_state_dict(under("trainer.", self._loaded))
            for step in self._loaded["kept"]:
                self._kept[step] = under(f"kept.{step}.", self._loaded)
        return self._trainer

    def on(self, ctx: Context) -> tuple[Space, Task]:
        """Return the space of the supernet, and the task that its paths are judged on."""
        if self._trainer is None and self._loaded is not None:
            self._begin(ctx, max(1, int(self._loaded["trainer.step"])))
        if self._supernet is None or self._task is None:
            return proxies(ctx, variant=self.variant, resolution=self.resolution)
        return self._supernet.space, self._task

    def network(self, ctx: Context, architecture: Architecture) -> nn.Module:
        """Return a path as a plain network with weights of its own, as they are at the end.

        Raises:
            AssayError: nothing was prepared or loaded.
        """
        space, _ = self.on(ctx)
        space.model.load_state_dict(list(self._states_kept(ctx).values())[-1])
        return space.build(architecture)

    def _path_macs(self, ctx: Context) -> float:
        """Return the MACs of one sample, the mean over what the first steps activate."""
        if self._macs is None:
            space, paths = self.on(ctx)[0], self._policy()
            steps = (derive(ctx.seed, "paths", step) for step in range(_COUNTED_STEPS))
            passes = [p for i, rng in enumerate(steps) for p in paths.passes(space, i, rng=rng)]
            self._macs = self._counter(ctx).mean(passes)
        return self._macs

    def _counter(self, ctx: Context) -> PassMacs:
        if self._counted is None:
            space, task = self.on(ctx)
            self._counted = PassMacs(space, task.example(1, ctx.device))
        return self._counted

    def _policy(self) -> Paths:
        return _PATHS[self.paths]() if isinstance(self.paths, str) else self.paths

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Score a batch of paths, sharing the beginnings that they have in common.

        One of them is scored once more by itself; if that differs, the model keeps some state that
        sharing cannot see, the batch is scored path by path, and `made_from` says so.
        """
        if not proposals:
            return []
        started = time.perf_counter()
        self.on(ctx)  # begins, where a state was loaded
        points = [ctx.space.canonical(p.architecture) for p in proposals]
        if self._unshared_because is None:  # what an interrupted run has found out holds on
            self._unshared_because = _unshared_before(ctx.history)
        shared = self.shared and not self._unshared_because
        guiding = self._guiding(ctx)
        figures = self._scores(ctx, points, shared=shared)
        if shared and len(points) > 1:
            alone = self._scores(ctx, points[-1:], shared=False)[0]
            gap = _gap(alone, figures[-1])
            if gap > _MOST_GAP:
                self._unshared_because = f"a path scored by itself differs by {gap:.3g}"
                figures = self._scores(ctx, points, shared=False)
        samples = self._samples(ctx) * len(self._states_kept(ctx))
        wall_s = (time.perf_counter() - started) / len(points)
        more = round(guiding.samples / len(points)), guiding.macs / len(points)
        macs = [self._counter(ctx)(a) * samples + more[1] for a in points]  # shared beginnings too
        return [
            self._estimate(ctx, f, Cost(wall_s, samples + more[0], round(m), ctx.device))
            for f, m in zip(figures, macs)
        ]

    def _guiding(self, ctx: Context) -> Cost:
        """Let the largest network predict with each state that it has not seen; return the cost."""
        states = self._states_kept(ctx)
        new = states.keys() - self._said.keys() if self._score_named(ctx) == "agreement" else ()
        if not new:
            return Cost()
        space, _ = self.on(ctx)
        valid, calibration = self._data(ctx)
        guide = self._largest(ctx)
        for step in new:
            space.model.load_state_dict(states[step])
            self._said[step] = predictions(
                space, guide, valid=valid, calibration=calibration, norms=self.norms
            )
        samples = self._samples(ctx) * len(new)
        return Cost(samples=samples, macs=round(self._counter(ctx)(guide) * samples))

    def _score_named(self, ctx: Context) -> str:
        """Return what scores are, settling what was left open."""
        if self._score is None:
            self._score = "loss"
            if ctx.task.classes and isinstance(self.paths, str):
                macs, rng = self._counter(ctx), derive(ctx.seed, "sizes")
                most, space = macs(self._largest(ctx)), self.on(ctx)[0]
                if any(macs(space.sample(rng)) < most for _ in range(_SIZED)):
                    self._score = "agreement"
        return self._score

    def _largest(self, ctx: Context) -> Architecture:
        if self._guide is None:
            space, task = self.on(ctx)
            self._guide = space.largest(task.example(1, ctx.device))
        return self._guide

    def _samples(self, ctx: Context) -> int:
        """Return how many samples a path is run on with each state."""
        return sum(len(b[1]) for part in self._data(ctx) for b in part)

    def _estimate(self, ctx: Context, figures: Mapping[str, float], cost: Cost) -> Estimate:
        named = self._score_named(ctx)
        if named == "metric":
            score = ctx.task.score_of(figures)
        else:
            score = figures["agreement"] if named == "agreement" else -figures["loss"]
        metrics = {f"supernet_{name}": value for name, value in figures.items()}
        shared = self.shared and not self._unshared_because
        made_from: dict[str, Any] = {"estimator": "one-shot", "score": named, "shared": shared}
        if self._unshared_because:
            made_from["unshared_because"] = self._unshared_because
        return Estimate(score, metrics, cost, made_from)

    def _scores(
        self, ctx: Context, points: Sequence[Architecture], *, shared: bool
    ) -> list[dict[str, float]]:
        """Return the mean figures of paths over the states kept."""
        space, task = self.on(ctx)
        valid, calibration = self._data(ctx)
        by_state = []
        for step, state in self._states_kept(ctx).items():
            space.model.load_state_dict(state)
            by_state.append(
                score_paths(
                    space, points, task, valid=valid, calibration=calibration,
                    norms=self.norms, shared=shared, guide=self._said.get(step, ()),
                )
            )  # fmt: skip
        return [
            {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}
            for each in zip(*by_state)
        ]

    def _states_kept(self, ctx: Context) -> Mapping[int, Mapping[str, Tensor]]:
        """Return the weights that are judged, by step; those there are where training goes on."""
        space, _ = self.on(ctx)
        if self._trainer is None:
            raise AssayError("one-shot has no supernet yet: call prepare, or load a state")
        return self._kept or {self._trainer.step: space.model.state_dict()}

    def _data(self, ctx: Context) -> tuple[list[Batch], list[Batch]]:
        """Return the batches that every score rests on: validation, and training unaugmented."""
        if self._batches is None:
            _, task = self.on(ctx)
            valid = task.valid.batches(self.batch, device=ctx.device, limit=self.samples)
            measured: Iterable[Batch] = ()
            if self.norms == "recalibrate":
                measured = enough_batches(ctx, task, self.calibration, most=self.batch)
            self._batches = (evened(valid, self.batch), evened(measured, self.batch))
        return self._batches

    def state_dict(self) -> Mapping[str, Any]:
        """Return the training state (weights, buffers, optimiser, step) and the states kept."""
        if self._trainer is None:
            return self._loaded or {}
        state: dict[str, Any] = {f"trainer.{k}": v for k, v in self._trainer.state_dict().items()}
        for step, kept in self._kept.items():
            state |= {f"kept.{step}.{name}": value for name, value in kept.items()}
        if hasattr(self.paths, "state_dict"):
            state |= {f"paths.{k}": v for k, v in self.paths.state_dict().items()}
        more = {"kept": list(self._kept), "origin": self._origin, "macs": self._macs}
        return {**state, **more}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a training state; `prepare` goes on from it."""
        self._loaded = dict(state)
        if hasattr(self.paths, "load_state_dict"):
            self.paths.load_state_dict(under("paths.", state))


def _unshared_before(history: Sequence[Trial]) -> str:
    """Return why earlier trials were scored path by path; "" if they were not."""
    made = (t.estimate.made_from for t in history if t.estimate is not None)
    return next((str(m["unshared_because"]) for m in made if "unshared_because" in m), "")


def _gap(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the largest difference, relative for figures above 1.

    Two figures that are both not finite differ by nothing.
    """
    pairs = [(value, other[name]) for name, value in one.items()]
    finite = [tuple(map(math.isfinite, pair)) for pair in pairs]
    if any(a != b for a, b in finite):
        return math.inf
    gaps = (abs(x - y) / max(1.0, abs(x)) for (x, y), (known, _) in zip(pairs, finite) if known)
    return max(gaps, default=0.0)
