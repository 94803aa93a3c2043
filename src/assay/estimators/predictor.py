"""A regression from architectures to the estimates of another estimator.

Known weakness: it interpolates what it was shown. What the estimator behind it gets wrong it learns
to get wrong, and far from its sample it says little; its deviation tells how little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting
from assay.estimators.features import Features, Scaler, farthest_first
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.sample import trainings
from assay.estimators.surrogate import SURROGATES, Array, Surrogate
from assay.train.files import under

__all__ = ["Predictor", "spread"]

_FEWEST = 4
_USUAL = 64


@dataclass
class Predictor:
    """Learns a score from few estimates of another estimator, and tells it for all architectures.

    The first of the sample are spread over the space; the others are chosen, a few at a time, by
    expected improvement over the best so far.

    Source: White et al. 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search", arXiv:1910.11858, and Jones et al. 1998, "Efficient Global Optimization",
    for expected improvement; differs: a Gaussian process or trees in place of neural networks.

    Args:
        of: The estimator whose scores it learns. One that trains each, with `steps_each(ctx)`, has
            as many estimates as the budget pays for; another, such as `OneShot()`, is prepared by
            the budget. None for `LowFidelity`, see `assay.estimators.sample`.
        model: "gp" or "trees".
        sample: Estimates to learn from; 0 for as many as the steps of the budget pay for, or 64 of
            an estimator that is prepared.
        explore: Share of the sample that is spread over the space, before improvement is sought.
        pool: Random architectures among which the next ones are chosen.
        batch: Estimates between two fits.
    Raises:
        InvalidSetting: an unknown model, or a count out of range.
    """

    of: Any = None
    model: Literal["gp", "trees"] = "gp"
    sample: int = 0
    explore: float = 0.5
    pool: int = 512
    batch: int = 8

    def __post_init__(self) -> None:
        if self.model not in SURROGATES:
            raise InvalidSetting(
                f"estimator.model={self.model!r} must be one of {list(SURROGATES)}"
            )
        if self.sample and self.sample < _FEWEST:
            raise InvalidSetting(f"estimator.sample={self.sample} must be 0, or at least {_FEWEST}")
        if not 0 < self.explore <= 1:
            raise InvalidSetting(f"estimator.explore={self.explore} is a share: above 0, at most 1")
        for name in ("pool", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        self._known: dict[Architecture, float] = {}
        self._features: Features | None = None
        self._fitted: tuple[int, Scaler, Surrogate] | None = None

    def step_seconds(self, ctx: Context) -> float:
        """Time some training steps of the estimator behind it."""
        if not self._trains:
            return float(self.of.step_seconds(ctx))
        of = self.of if self.of is not None else LowFidelity()
        return float(of.training_step_seconds(ctx)) / ctx.executor.at_once

    @property
    def _trains(self) -> bool:
        """Whether each estimate that it learns from is a training."""
        return self.of is None or hasattr(self.of, "steps_each")

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Estimate the sample, a batch at a time; yields after each.

        Raises:
            InvalidSetting: the budget does not pay for four estimates.
        """
        if self._trains:
            of, wanted = trainings(ctx, self.of, budget.steps or 0, self.sample, fewest=_FEWEST)
        else:
            of, wanted = self.of, self.sample or _USUAL
            yield from of.prepare(ctx, budget)
        wanted = min(wanted, ctx.space.size)
        first = max(_FEWEST, round(self.explore * wanted))
        while len(self._known) < wanted:
            started = time.perf_counter()
            count = min(self.batch, wanted - len(self._known))
            done = len(self._known)
            chosen = self._spread(ctx, first)[done : done + count] if done < first else []
            chosen = chosen or self._improving(ctx, count)
            if not chosen:
                return
            estimates = of.estimate(ctx, [Proposal(a) for a in chosen])
            for point, estimate in zip(chosen, estimates):
                self._known[point] = estimate.score
            spent = sum((e.cost for e in estimates), Cost(device=ctx.device))
            yield Cost(time.perf_counter() - started, spent.samples, spent.macs, ctx.device)

    # --- which to estimate next ---------------------------------------------------------------

    def _pool(self, ctx: Context, *names: object) -> list[Architecture]:
        rng = derive(ctx.seed, "predictor", *names)
        drawn = (ctx.space.canonical(ctx.space.sample(rng)) for _ in range(self.pool))
        return list(dict.fromkeys(drawn))

    def _spread(self, ctx: Context, num: int) -> list[Architecture]:
        return spread(self._pool(ctx, "first"), num, self._rows(ctx))

    def _improving(self, ctx: Context, num: int) -> list[Architecture]:
        """Return the architectures of a new pool with the largest expected improvement."""
        done = len(self._known)
        pool = [a for a in self._pool(ctx, "next", done) if a not in self._known]
        if not pool:
            return []
        mean, deviation = self._told(ctx, pool)
        gain = expected_improvement(mean, deviation, max(self._known.values()))
        return [pool[int(i)] for i in np.argsort(-gain, kind="stable")[:num]]

    # --- telling ------------------------------------------------------------------------------

    def _rows(self, ctx: Context) -> Features:
        if self._features is None:
            self._features = Features(ctx.space, ctx.task.example(1))
        return self._features

    def _told(self, ctx: Context, points: Sequence[Architecture]) -> tuple[Array, Array]:
        """Return mean and deviation `[n]` of the score of canonical architectures."""
        rows = self._rows(ctx)
        if self._fitted is None or self._fitted[0] != len(self._known):
            known = [rows(a) for a in self._known]
            scaler, model = Scaler(known), SURROGATES[self.model](ctx.seed)
            model.fit(scaler(known), np.array(list(self._known.values())))
            self._fitted = (len(self._known), scaler, model)
        _, scaler, model = self._fitted
        return model.predict(scaler([rows(a) for a in points]))

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Tell the scores of architectures; nothing is trained."""
        if not proposals:
            return []
        started = time.perf_counter()
        points = [ctx.space.canonical(p.architecture) for p in proposals]
        mean, deviation = self._told(ctx, points)
        cost = Cost((time.perf_counter() - started) / len(points), device=ctx.device)
        made_from = {
            "estimator": "predictor", "model": self.model, "sample": len(self._known),
            "of": type(self.of or LowFidelity()).__name__,
        }  # fmt: skip
        return [
            Estimate(
                float(m), {"predicted_score": float(m), "deviation": float(d)}, cost, made_from
            )
            for m, d in zip(mean, deviation)
        ]

    def state_dict(self) -> Mapping[str, Any]:
        """Return the sample (architectures as JSON, and their scores), and what is behind it."""
        behind = {} if self.of is None else self.of.state_dict()
        sample = [[a.to_json(), score] for a, score in self._known.items()]
        return {"sample": sample, **{f"of.{name}": value for name, value in behind.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a sample; `prepare` goes on from it."""
        self._known = {Architecture.from_json(text): float(s) for text, s in state["sample"]}
        self._fitted = None
        behind = under("of.", state)
        if behind:
            self.of.load_state_dict(behind)


def spread(points: Sequence[Architecture], num: int, rows: Features) -> list[Architecture]:
    """Return up to `num` points far from each other: each next one is farthest from those before.

    Args:
        points: Canonical architectures; the first is where it begins.
        num: How many.
        rows: Describes them.
    """
    features = [rows(a) for a in points]
    matrix = Scaler(features)(features)
    return [points[i] for i in farthest_first(matrix, num, start=0)]


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return E[max(0, score - best)] of normal scores `[n]`."""
    deviation = np.maximum(deviation, 1e-12)
    z = (mean - best) / deviation
    gain: Array = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return gain
