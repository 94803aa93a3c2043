"""The weight-sharing supernet: train all architectures at once, score each by its path.

Known weakness: a path's loss with shared weights is no accuracy of a trained network, and how well
it ranks differs from task to task (Yu et al. 2019, arXiv:1902.08142; Zela et al. 2020,
arXiv:2001.10422). Compare it with counting MACs before you trust it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Paths, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting, nearest
from assay.estimators.training import in_chunks
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.train.loop import Trainer
from assay.train.task import Batch
from assay.weights.paths import Fair, Sandwich, Uniform
from assay.weights.scoring import score_paths
from assay.weights.supernet import Supernet

__all__ = ["OneShot"]

_COUNTED_STEPS = 16
_PATHS: Mapping[str, type[Uniform] | type[Fair] | type[Sandwich]] = {
    "uniform": Uniform,
    "fair": Fair,
    "sandwich": Sandwich,
}


@dataclass
class OneShot:
    """Scores architectures as paths of one supernet.

    Source: Guo et al. 2019, "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", arXiv:1904.00420; paths of Chu et al. 2019, arXiv:1907.01845 and Yu et al. 2020,
    arXiv:2003.11142 by setting.

    Args:
        paths: "uniform", "fair", "sandwich" or a `Paths` of your own.
        score: "loss" ranks by the negative validation loss, "metric" by the task's own score.
        norms: How batch norms are normalised when a path is judged: "recalibrate" or "batch".
        samples: Most validation samples that a score is taken on.
        calibration: Training samples from which a path's norm statistics are measured.
        batch: Samples of one scoring batch.
        shared: Compute beginnings that paths have in common once.
    Raises:
        InvalidSetting: unknown paths, or a count below 1.
    """

    paths: Any = "uniform"
    score: Literal["loss", "metric"] = "loss"
    norms: Literal["recalibrate", "batch"] = "recalibrate"
    samples: int = 1024
    calibration: int = 512
    batch: int = 256
    shared: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.paths, str) and self.paths not in _PATHS:
            raise InvalidSetting(f"unknown paths {self.paths!r}; {nearest(self.paths, _PATHS)}")
        for name in ("samples", "calibration", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        self._supernet: Supernet | None = None
        self._trainer: Trainer | None = None
        self._loaded: dict[str, Any] | None = None
        self._batches: tuple[list[Batch], list[Batch]] | None = None
        self._unshared_because = ""
        self._macs: float | None = None

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Train the supernet for `budget.steps` steps in all; yields about once a second."""
        trainer = self._begin(ctx, budget.steps or 1)
        for cost in in_chunks(ctx, trainer):
            yield replace(cost, macs=round(3 * self._path_macs(ctx) * cost.samples))
        trainer.finish()

    def _begin(self, ctx: Context, steps: int) -> Trainer:
        self._supernet = Supernet(
            ctx.space, paths=self._policy(), device=ctx.device, seed=ctx.seed
        )  # fmt: skip
        self._supernet.reset()
        self._trainer = self._supernet.trainer(ctx.task, ctx.recipe, steps=steps)
        if self._loaded is not None:
            self._trainer.load_state_dict(self._loaded)
        return self._trainer

    def _path_macs(self, ctx: Context) -> float:
        """Return the MACs of one sample on the mean path, over the paths of the first steps."""
        if self._macs is None:
            measures = Measures(ctx.space, Device(), ctx.task.example(1))
            paths = self._policy()
            steps = (derive(ctx.seed, "paths", step) for step in range(_COUNTED_STEPS))
            passes = [p for i, rng in enumerate(steps) for p in paths.passes(ctx.space, i, rng=rng)]
            counted = [measures("macs", p) for p in passes if isinstance(p, Architecture)]
            self._macs = sum(counted) / max(1, len(counted))
        return self._macs

    def _policy(self) -> Paths:
        return _PATHS[self.paths]() if isinstance(self.paths, str) else self.paths

    def step_seconds(self, ctx: Context) -> float:
        """Time some training steps on paths as they will come; the weights are drawn anew after."""
        return self._begin(ctx, 10**9).step_seconds(rounds=8, steps=6)

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Score a batch of paths, sharing the beginnings that they have in common.

        One of them is scored once more by itself; if that differs, the model keeps some state that
        sharing cannot see, the batch is scored path by path, and `made_from` says so.
        """
        if not proposals:
            return []
        started = time.perf_counter()
        if self._trainer is None and self._loaded is not None:
            self._begin(ctx, max(1, int(self._loaded["step"])))
        points = [p.architecture for p in proposals]
        figures = self._scores(ctx, points, shared=self.shared and not self._unshared_because)
        if self.shared and not self._unshared_because and len(points) > 1:
            alone = self._scores(ctx, points[-1:], shared=False)[0]
            gap = max(abs(alone[k] - figures[-1][k]) for k in alone)
            if not gap <= 1e-4 * max(1.0, abs(alone["loss"])):
                self._unshared_because = f"a path scored by itself differs by {gap:.3g}"
                figures = self._scores(ctx, points, shared=False)
        samples = sum(len(b[1]) for part in self._data(ctx) for b in part)
        wall_s = (time.perf_counter() - started) / len(points)
        cost = Cost(wall_s, samples, 0, ctx.device)
        return [self._estimate(ctx, f, cost) for f in figures]

    def _estimate(self, ctx: Context, figures: Mapping[str, float], cost: Cost) -> Estimate:
        score = -figures["loss"] if self.score == "loss" else ctx.task.score_of(figures)
        metrics = {f"supernet_{name}": value for name, value in figures.items()}
        shared = self.shared and not self._unshared_because
        made_from: dict[str, Any] = {"estimator": "one-shot", "shared": shared}
        if self._unshared_because:
            made_from["unshared_because"] = self._unshared_because
        return Estimate(score, metrics, cost, made_from)

    def _scores(
        self, ctx: Context, points: Sequence[Architecture], *, shared: bool
    ) -> list[dict[str, float]]:
        valid, calibration = self._data(ctx)
        return score_paths(
            ctx.space, points, ctx.task, valid=valid, calibration=calibration,
            norms=self.norms, shared=shared,
        )  # fmt: skip

    def _data(self, ctx: Context) -> tuple[list[Batch], list[Batch]]:
        """Return the batches that every score rests on: validation, and training unaugmented."""
        if self._batches is None:
            valid = ctx.task.valid.batches(self.batch, device=ctx.device, limit=self.samples)
            size = min(self.batch, self.calibration, len(ctx.task.train))
            drawn = ctx.task.train.train_batches(size, seed=ctx.seed, device=ctx.device)
            count = math.ceil(min(self.calibration, len(ctx.task.train)) / size)
            self._batches = (list(valid), [next(drawn) for _ in range(count)])
        return self._batches

    def state_dict(self) -> Mapping[str, Any]:
        """Return the training state: weights, buffers, optimiser, step."""
        if self._trainer is None:
            return self._loaded or {}
        return self._trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a training state; `prepare` goes on from it."""
        self._loaded = dict(state)
