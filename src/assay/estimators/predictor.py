"""A regression from architectures to the estimates of another estimator.

Known weakness: it interpolates what it was shown. What the estimator behind it gets wrong it learns
to get wrong, and far from its sample it says little; its deviation tells how little.
"""

from __future__ import annotations

import math
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
from assay.estimators.each import refuse_alien
from assay.estimators.features import Blocks, Features, Scaler, farthest_first
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.origin import same_origin
from assay.estimators.sample import Sample, num_trainings, trainings
from assay.estimators.surrogate import SURROGATES, Array, Surrogate, tamed
from assay.estimators.training import Stretch
from assay.estimators.zero_cost import ZeroCost
from assay.train.files import under

__all__ = ["Predictor", "spread"]

_FEWEST = 4
_USUAL = 64


@dataclass
class Predictor:
    """Learns a score from few estimates of another estimator, and tells it for all architectures.

    The first of the sample are spread over the space; the others are chosen, a few at a time, by
    expected improvement over the best so far. One whose estimate fails has no score: it is left out
    and told in `made_from`.

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
        signals: A `ZeroCost` whose signals it is told beside the rest: two of them or more. Each
            candidate of every pool is then measured, so give a smaller `pool`. None for none.
    Raises:
        InvalidSetting: an unknown model, a count out of range, a part that is no estimator, or a
            single signal.
    """

    of: Any = None
    model: Literal["gp", "trees"] = "gp"
    sample: int = 0
    explore: float = 0.5
    pool: int = 512
    batch: int = 8
    signals: ZeroCost | None = None

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
        for option, part in (("of", self.of), ("signals", self.signals)):
            if part is not None:
                refuse_alien(option, part)
        if self.signals is not None and len(self.signals.signals) < 2:
            raise InvalidSetting(
                f"estimator.signals={self.signals!r} has one signal, which is ranked in no "
                "reference sample; name two or more"
            )
        self._examples = Sample(_FEWEST)
        self._measured: dict[Architecture, list[float]] = {}
        self._origin = ""
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

    def setup_seconds(self, ctx: Context, steps: int) -> float:
        """Return the seconds that `prepare` takes beside so many steps.

        The estimates of one that is prepared, where it tells what these take, and the signals.
        """
        wanted = self.sample or _USUAL
        if self._trains:
            wanted = num_trainings(ctx, self.of, steps, self.sample, fewest=_FEWEST)
        wanted = min(wanted, ctx.space.size)
        return self._estimates_seconds(ctx, steps, wanted) + self._signals_seconds(ctx, wanted)

    def _estimates_seconds(self, ctx: Context, steps: int, wanted: int) -> float:
        """Return what the estimator behind it takes beside its steps, where these are its own."""
        if self._trains:
            return 0.0
        setup = getattr(self.of, "setup_seconds", None)
        told = getattr(self.of, "estimate_seconds", None)
        before_s = 0.0 if setup is None else float(setup(ctx, steps))
        return before_s + (0.0 if told is None else wanted * float(told(ctx)))

    def _signals_seconds(self, ctx: Context, wanted: int) -> float:
        if self.signals is None:
            return 0.0
        fits = math.ceil(wanted * (1 - self.explore) / self.batch)
        measured = wanted + fits * self.pool
        each_s = self.signals.estimate_seconds(ctx)
        return self.signals.reference_seconds(ctx) + measured * each_s

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Estimate the sample, choosing a batch at a time; yields after each estimate.

        Raises:
            InvalidSetting: the budget does not pay for four estimates, or not for `sample`; or the
                space has fewer than three.
            InvalidStudy: the loaded state is of another space or task.
            AssayError: so many failed that fewer than four are left to learn from.
        """
        self._rows(ctx)
        if self._trains:
            of, wanted = trainings(
                ctx, self.of, budget.steps or 0, self.sample, fewest=_FEWEST,
                done=self._examples.num_ended,
            )  # fmt: skip
        else:
            of, wanted = self.of, self.sample or _USUAL
            yield from of.prepare(ctx, budget)
        if self.signals is not None:
            yield from self.signals.prepare(ctx, Budget())
        wanted = min(wanted, ctx.space.size)
        first = max(_FEWEST, round(self.explore * wanted))
        steps_each = of.steps_each(ctx) if self._trains else 0
        while self._examples.waiting or len(self._examples.chosen) < wanted:
            if not self._examples.waiting:
                yield self._choose(ctx, first, wanted)
            if not self._examples.waiting:
                break
            yield from self._examples.learn(ctx, of, steps_each)
        self._examples.check()

    def _choose(self, ctx: Context, first: int, wanted: int) -> Cost:
        """Choose the next batch, and measure its signals; return what that cost."""
        started, done = time.perf_counter(), len(self._examples.chosen)
        count = min(self.batch, wanted - done)
        chosen, spent = self._spread(ctx, done, first)[:count], Cost()
        if not chosen:
            chosen, spent = self._improving(ctx, count)
        measured, more = self._signals_of(ctx, chosen)
        self._measured |= measured
        self._examples.chosen += chosen
        spent += more
        return Stretch(time.perf_counter() - started, spent.samples, spent.macs, ctx.device)

    # --- which to estimate next ---------------------------------------------------------------

    def _pool(self, ctx: Context, *names: object) -> list[Architecture]:
        rng = derive(ctx.seed, "predictor", *names)
        drawn = (ctx.space.canonical(ctx.space.sample(rng)) for _ in range(self.pool))
        return list(dict.fromkeys(drawn))

    def _spread(self, ctx: Context, done: int, first: int) -> list[Architecture]:
        """Return what is left of the beginning; it goes on while too few have a score."""
        known = len(self._examples.scores)
        if done >= first and known >= min(_FEWEST, done):
            return []
        until = first if done < first else done + self.batch
        return spread(self._pool(ctx, "first"), until, self._rows(ctx))[done:]

    def _improving(self, ctx: Context, num: int) -> tuple[list[Architecture], Cost]:
        """Return the architectures of a new pool with the largest expected improvement."""
        tried = set(self._examples.chosen)
        pool = [a for a in self._pool(ctx, "next", len(tried)) if a not in tried]
        if not pool or len(self._examples.scores) < _FEWEST:  # of few there is no best to exceed
            return pool[:num], Cost()
        measured, spent = self._signals_of(ctx, pool)
        self._measured |= measured
        mean, deviation, _ = self._told(ctx, pool)
        scores = np.array(list(self._examples.scores.values()))
        best = tamed(scores).max()  # as the model was told it
        gain = expected_improvement(mean, deviation, float(best))
        return [pool[int(i)] for i in np.argsort(-gain, kind="stable")[:num]], spent

    # --- telling ------------------------------------------------------------------------------

    def _rows(self, ctx: Context) -> Features:
        if self._features is None:
            self._origin = same_origin(ctx, self._origin, "predictor")
            self._features = Features(ctx.space, ctx.task.example(1))
        return self._features

    def _signals_of(
        self, ctx: Context, points: Sequence[Architecture]
    ) -> tuple[dict[Architecture, list[float]], Cost]:
        """Return the signals of architectures, and what measuring those not yet known cost."""
        if self.signals is None:
            return {}, Cost()
        new = [a for a in dict.fromkeys(points) if a not in self._measured]
        estimates = self.signals.estimate(ctx, [Proposal(a) for a in new])
        measured = {a: self.signals.quantiles(e) for a, e in zip(new, estimates)}
        return measured, sum((e.cost for e in estimates), Cost())

    def _told(self, ctx: Context, points: Sequence[Architecture]) -> tuple[Array, Array, Cost]:
        """Return mean and deviation `[n]` of the score of canonical architectures, and the cost."""
        rows = self._rows(ctx)
        measured, spent = self._signals_of(ctx, points)
        measured = {**self._measured, **measured}

        def blocks(a: Architecture) -> Blocks:
            if self.signals is None:
                return rows(a)
            return (*rows(a), np.asarray(norm.ppf(measured[a])))

        scores = self._examples.scores
        if self._fitted is None or self._fitted[0] != len(scores):
            if not self._examples.chosen:
                raise InvalidSetting(
                    "predictor learns from a sample, and has none yet: prepare it first"
                )
            self._examples.check()
            known = [blocks(a) for a in scores]
            scaler, model = Scaler(known), SURROGATES[self.model](ctx.seed)
            model.fit(scaler(known), np.array(list(scores.values())))
            self._fitted = (len(scores), scaler, model)
        _, scaler, model = self._fitted
        return (*model.predict(scaler([blocks(a) for a in points])), spent)

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Tell the scores of architectures; nothing is trained."""
        if not proposals:
            return []
        started = time.perf_counter()
        points = [ctx.space.canonical(p.architecture) for p in proposals]
        mean, deviation, spent = self._told(ctx, points)
        n = len(points)
        cost = Cost(
            (time.perf_counter() - started) / n, spent.samples // n, spent.macs // n, ctx.device
        )
        made_from = {
            "estimator": "predictor", "model": self.model, "sample": len(self._examples.scores),
            "of": type(self.of or LowFidelity()).__name__,
            "failed": [a.to_json() for a in self._examples.failed],
        }  # fmt: skip
        return [
            Estimate(
                float(m), {"predicted_score": float(m), "deviation": float(d)}, cost, made_from
            )
            for m, d in zip(mean, deviation)
        ]

    # --- state --------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Any]:
        """Return the sample (architectures as JSON, and their scores), and what is behind it."""
        parts = {"of.": self.of, "signals.": self.signals}
        behind = {name: part.state_dict() for name, part in parts.items() if part is not None}
        return {
            "origin": self._origin,
            "sample": self._examples.state(),
            "measured": [[a.to_json(), row] for a, row in self._measured.items()],
            **{f"{name}{key}": v for name, state in behind.items() for key, v in state.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a sample; `prepare` goes on from it."""
        read = Architecture.from_json
        self._origin, self._features = state.get("origin", ""), None
        self._examples.load(state["sample"])
        self._measured = {read(text): list(row) for text, row in state["measured"]}
        self._fitted = None
        parts: dict[str, Any] = {"of.": self.of, "signals.": self.signals}
        for name, part in parts.items():
            behind = under(name, state)
            if behind:
                part.load_state_dict(behind)


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
