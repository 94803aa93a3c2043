"""Training from scratch: the truth that every cheaper estimate is held against.

Known weakness: it is no certainty either. Two seeds of one training differ, and how much they do is
the noise that no estimator can see through; `metrics` states it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Job, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting
from assay.estimators.each import Told, all_of
from assay.estimators.training import Trained, Training, run_each, step_seconds

__all__ = ["Scratch"]


@dataclass
class Scratch:
    """Trains each architecture by the whole recipe, over some seeds; the score is the mean.

    With the executor `processes`, several are trained at once, each on one thread.

    Args:
        seeds: Trainings of each architecture; the score is the mean of the task's score.
        score: "metric" ranks by the task's own score, "loss" by the negative validation loss.
    Raises:
        InvalidSetting: fewer than one seed.
    """

    seeds: int = 1
    score: str = "metric"
    heeds_fidelity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidSetting(f"estimator.seeds={self.seeds} must be at least 1")
        if self.score not in ("metric", "loss"):
            raise InvalidSetting(f"estimator.score={self.score!r} must be 'metric' or 'loss'")

    def step_seconds(self, ctx: Context) -> float:
        """Return 0: there is nothing to prepare."""
        return 0.0

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Prepare nothing."""
        yield from ()

    def training_step_seconds(self, ctx: Context) -> float:
        """Time some training steps of networks of the space, as many at once as there will be."""
        return step_seconds(ctx, partial(ctx.space.fresh, seed=0), ctx.task, ctx.recipe)

    def steps_each(self, ctx: Context) -> int:
        """Return the optimiser steps of one estimate at fidelity 1, all seeds together."""
        return self.seeds * self._whole(ctx)

    def estimate_seconds(self, ctx: Context) -> float:
        """Return the seconds of one estimate, from timed steps; less where many run at once."""
        return self.steps_each(ctx) * self.training_step_seconds(ctx) / ctx.executor.at_once

    def trains_whole(self, ctx: Context) -> bool:
        """Whether it is judged by the task's own score: the training is the recipe's own."""
        return self.score == "metric"

    def _whole(self, ctx: Context) -> int:
        return ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Train each architecture over all seeds; `fidelity` is the share of the steps taken.

        One of which a training diverges has no score, and costs what it took.
        """
        return all_of(self.estimate_each(ctx, proposals))

    def estimate_each(
        self, ctx: Context, proposals: Sequence[Proposal]
    ) -> Iterator[tuple[int, Told]]:
        """Yield what `estimate` returns as the last seed of each architecture ends."""
        whole = self._whole(ctx)

        def make(wanted: tuple[int, int]) -> Training:
            proposal, seed = proposals[wanted[0]], wanted[1]
            until = max(1, round(whole * proposal.fidelity))
            return self.job(ctx, proposal.architecture, ("scratch", seed), until)

        wanted = [(i, seed) for i in range(len(proposals)) for seed in range(self.seeds)]
        runs: list[dict[int, Job[Trained]]] = [{} for _ in proposals]
        with closing(run_each(ctx, wanted, make)) as jobs:
            for n, job in jobs:
                i, seed = wanted[n]
                runs[i][seed] = job
                if len(runs[i]) == self.seeds:
                    yield i, self._told(ctx, proposals[i], [runs[i][s] for s in sorted(runs[i])])

    def _told(self, ctx: Context, proposal: Proposal, jobs: Sequence[Job[Trained]]) -> Told:
        try:
            return self._estimate(ctx, proposal, [job.result() for job in jobs])
        except Exception as error:
            return error

    def job(
        self, ctx: Context, architecture: Architecture, purpose: tuple[str, int], until: int
    ) -> Training:
        """Return the training of an architecture as a job for an executor.

        Args:
            ctx: Task, recipe, device and the study's seed.
            architecture: A point of the space.
            purpose: Names the initial weights and the order of the data: a word and a number.
            until: Step of the recipe's schedule at which it stops.
        """
        drawn = int(derive(ctx.seed, *purpose).integers(2**31))
        return Training(
            ctx.space.fresh(ctx.space.canonical(architecture), drawn), ctx.task, ctx.recipe,
            self._whole(ctx), until, ctx.device, drawn,
        )  # fmt: skip

    def _estimate(self, ctx: Context, proposal: Proposal, runs: Sequence[Trained]) -> Estimate:
        made_from: dict[str, Any] = {
            "estimator": "scratch", "seeds": self.seeds, "fidelity": proposal.fidelity,
        }  # fmt: skip
        cost = sum((run.cost for run in runs), Cost())
        if why := next((run.diverged for run in runs if run.diverged), ""):
            return Estimate.failed(why, cost, made_from)
        scores = [self.score_of(ctx, run.figures) for run in runs]
        metrics = {
            f"scratch_{name}": statistics.fmean(run.figures[name] for run in runs)
            for name in runs[0].figures
        }
        if len(scores) > 1:
            metrics["scratch_spread"] = statistics.stdev(scores)
        return Estimate(statistics.fmean(scores), metrics, cost, {**made_from, "scores": scores})

    def score_of(self, ctx: Context, figures: Mapping[str, float]) -> float:
        """Return the score of a trained network's validation figures."""
        return ctx.task.score_of(figures) if self.score == "metric" else -figures["loss"]

    def state_dict(self) -> Mapping[str, Any]:
        """Return nothing: nothing is prepared."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""
