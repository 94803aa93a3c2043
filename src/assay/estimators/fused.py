"""Several cheap estimates as one: weighed by what each turns out to be worth on this task.

Known weakness: what it learns from is a small sample of short trainings, which are themselves an
estimate. A fault that all of its parts share it cannot see.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting
from assay.estimators.each import refuse_alien
from assay.estimators.features import Blocks, Features, Scaler
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.opinions import SIGNAL, Opinions, hear, refuse_mute
from assay.estimators.origin import same_origin
from assay.estimators.ranks import Ranks
from assay.estimators.sample import Sample, num_trainings, trainings
from assay.estimators.stack import Stack, stacked
from assay.estimators.surrogate import Array, GaussianProcess, tamed
from assay.estimators.training import Stretch
from assay.estimators.zero_cost import ZeroCost
from assay.train.files import under

__all__ = ["Fused"]

_FEWEST = 8
_SIZE = SIGNAL + "macs"


@dataclass
class Fused:
    """Weighs signals at initialisation, a regression over short trainings, and other estimators.

    A sample of architectures is trained briefly. A Gaussian process learns their scores from
    encoding, operation counts, size and signals; non-negative weights over its held-out
    predictions, the signals and the other estimators' scores are learned from the same sample
    (`assay.estimators.stack`). With few examples they stay near equal parts of the process, the
    signals and the others; of the signals' part two thirds are their unfitted rank sum, and one
    third is size alone. Where one opinion alone surely does better on held-out examples, it is
    taken alone. The first half of the sample is spread over what the signals tell, the second half
    goes where the posterior puts the best architectures. One whose training fails is left out and
    told in `made_from`; so is what the parts that say nothing of an architecture raised.

    Source: Assay's own. Its parts name theirs: `zero_cost`, `low_fidelity`, `surrogate`, `stack`.

    Args:
        signals: What is measured at initialisation.
        of: What trains the sample; needs `steps_each(ctx)` and `training_step_seconds(ctx)`, as
            those have that train each architecture. None for `LowFidelity` as long as the budget
            allows, see `assay.estimators.sample`. Its scores count as truths unless its
            `trains_whole(ctx)` denies it.
        others: Further estimators, such as `OneShot()`; each prepares with an equal part of the
            steps, the sample has what is left.
        sample: Trainings to learn from; 0 for as many as the steps of the budget pay for.
        candidates: Random architectures for each training, among which the next are chosen.
        batch: Trainings between two fits.
    Raises:
        InvalidSetting: a count out of range, a part that is no estimator, or an `of` that trains no
            architecture by itself.
    """

    signals: Any = None
    of: Any = None
    others: tuple[Any, ...] = ()
    sample: int = 0
    candidates: int = 3
    batch: int = 8

    def __post_init__(self) -> None:
        if self.sample and self.sample < _FEWEST:
            raise InvalidSetting(f"estimator.sample={self.sample} must be 0, or at least {_FEWEST}")
        for name in ("candidates", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        if not isinstance(self.others, tuple | list):
            raise InvalidSetting(f"estimator.others={self.others!r}: give a tuple of estimators")
        for option, part in (("of", self.of), ("signals", self.signals)):
            if part is not None:
                refuse_alien(option, part)
        for part in self.others:
            refuse_alien("others", part)
        for method in ("steps_each", "training_step_seconds"):
            if self.of is not None and not hasattr(self.of, method):
                kind = type(self.of).__name__
                raise InvalidSetting(
                    f"estimator.of={kind} has no {method}: it does not train each architecture by "
                    f"itself; give LowFidelity() or Scratch(), or name {kind} in others"
                )
        self._signals: Any = self.signals if self.signals is not None else ZeroCost()
        self._opinions: dict[Architecture, Opinions] = {}
        self._silent: dict[Architecture, Mapping[str, str]] = {}
        self._examples = Sample(_FEWEST)
        self._origin = ""
        self._features: Features | None = None
        self._fitted: tuple[int, _Posterior] | None = None
        self._whole = False

    def step_seconds(self, ctx: Context) -> float:
        """Return the seconds of one step of the budget: of k others each takes one of k + 1."""
        of = self.of if self.of is not None else LowFidelity()
        steps_s = [float(of.training_step_seconds(ctx)) / ctx.executor.at_once]
        steps_s += [float(part.step_seconds(ctx)) for part in self.others]
        return sum(steps_s) / len(steps_s)

    def setup_seconds(self, ctx: Context, steps: int) -> float:
        """Return the seconds that `prepare` takes beside so many steps.

        The signals' reference sample, and what the signals and the others say of the candidates.
        """
        told = getattr(self._signals, "reference_seconds", None)
        part = steps // (1 + len(self.others))
        wanted = num_trainings(ctx, self.of, part, self.sample, fewest=_FEWEST)
        measured_s = self.candidates * wanted * self.estimate_seconds(ctx)
        return measured_s + (0.0 if told is None else float(told(ctx)))

    def estimate_seconds(self, ctx: Context) -> float:
        """Return the seconds in which the signals, and the others that can tell, take a look.

        Weighing takes little beside it. Of another that cannot tell before it is prepared, as a
        supernet, nothing is in it.
        """
        parts = (self._signals, *self.others)
        told = [getattr(part, "estimate_seconds", None) for part in parts]
        return sum(float(seconds(ctx)) for seconds in told if seconds is not None)

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Prepare the parts, measure the candidates, train the sample; yields between.

        Raises:
            InvalidSetting: the budget does not pay for eight trainings, or not for `sample`; or the
                space has fewer than three architectures.
            InvalidStudy: the loaded state is of another space or task.
            AssayError: so many failed that fewer than eight are left to learn from, or a part has
                no opinion on any candidate.
        """
        self._rows(ctx)
        part = Budget(steps=(budget.steps or 0) // (1 + len(self.others)))
        of, wanted = trainings(
            ctx, self.of, part.steps or 0, self.sample, fewest=_FEWEST,
            done=self._examples.num_ended,
        )  # fmt: skip
        wanted = min(wanted, ctx.space.size)
        whole = getattr(of, "trains_whole", None)
        self._whole = whole is None or whole(ctx)
        for estimator in (self._signals, *self.others):
            yield from estimator.prepare(ctx, part)
        pool = self._pool(ctx, self.candidates * wanted)
        yield from self._measure(ctx, pool)
        while self._examples.waiting or len(self._examples.chosen) < min(wanted, len(pool)):
            if not self._examples.waiting:
                started = time.perf_counter()
                self._examples.chosen += self._next(ctx, pool, wanted)
                yield Stretch(time.perf_counter() - started, device=ctx.device)
            yield from self._examples.learn(ctx, of, of.steps_each(ctx))
        self._examples.check()

    @property
    def _parts(self) -> dict[str, Any]:
        """Whose opinions are weighed, by name."""
        others = {f"{type(part).__name__} {j}": part for j, part in enumerate(self.others)}
        return {"signals": self._signals, **others}

    def _pool(self, ctx: Context, num: int) -> list[Architecture]:
        rng = derive(ctx.seed, "fused", "candidates")
        drawn = (ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num))
        return list(dict.fromkeys(drawn))

    def _measure(self, ctx: Context, pool: Sequence[Architecture]) -> Iterator[Cost]:
        left = [a for a in pool if a not in self._opinions]
        for start in range(0, len(left), self.batch):
            heard = hear(ctx, self._parts, left[start : start + self.batch])
            opinions = {**self._opinions, **{a: of.opinions for a, of in heard.items()}}
            if len(opinions) >= min(_FEWEST, len(pool)):
                refuse_mute(opinions, heard)
            self._opinions = opinions
            self._silent |= {a: of.reasons for a, of in heard.items() if of.errors}
            yield sum((of.cost for of in heard.values()), Stretch(device=ctx.device))

    def _next(self, ctx: Context, pool: Sequence[Architecture], wanted: int) -> list[Architecture]:
        """Return the next to train: first spread by the signals, then where the best may be."""
        tried = set(self._examples.chosen)
        done, first = len(tried), max(_FEWEST, wanted // 2)
        count = min(self.batch, wanted - done)
        if done < first:
            by_signal = sorted(pool, key=lambda a: self._opinions[a].get("signals", -np.inf))
            evenly = np.unique(np.linspace(0, len(pool) - 1, first).round().astype(int))
            order = derive(ctx.seed, "fused", "order").permutation(evenly)
            chosen = [by_signal[int(i)] for i in order]
            chosen = [a for a in chosen if a not in tried][: min(count, first - done)]
            if chosen:
                return chosen
        left = [a for a in pool if a not in tried]
        if len(self._examples.scores) < _FEWEST:  # so many failed; others may do better
            return left[:count]
        mean, deviation = self._posterior(ctx)(left, self._opinions)
        best = np.argsort(-(mean + deviation), kind="stable")[:count]
        return [left[int(i)] for i in best]

    # --- telling ------------------------------------------------------------------------------

    def _rows(self, ctx: Context) -> Features:
        if self._features is None:
            self._origin = same_origin(ctx, self._origin, "fused")
            self._features = Features(ctx.space, ctx.task.example(1))
        return self._features

    def _posterior(self, ctx: Context) -> _Posterior:
        rows = self._rows(ctx)
        scores = self._examples.scores
        if self._fitted is None or self._fitted[0] != len(scores):
            if not self._examples.chosen:
                raise InvalidSetting(
                    "fused learns from a sample, and has none yet: prepare it first"
                )
            self._examples.check()
            made = _Posterior(rows, self._opinions, scores, ctx.seed, truths=self._whole)
            self._fitted = (len(scores), made)
        return self._fitted[1]

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Measure the signals of architectures, ask the other estimators, and weigh."""
        if not proposals:
            return []
        started = time.perf_counter()
        self._rows(ctx)  # a state of another space or task is refused before anything is measured
        points = [ctx.space.canonical(p.architecture) for p in proposals]
        new = [a for a in dict.fromkeys(points) if a not in self._opinions]
        heard = hear(ctx, self._parts, new)
        known = {**self._opinions, **{a: of.opinions for a, of in heard.items()}}
        silent = {**self._silent, **{a: of.reasons for a, of in heard.items()}}
        posterior = self._posterior(ctx)
        mean, deviation = posterior(points, known)
        wall_s = (time.perf_counter() - started) / len(points)
        costs = [heard[a].cost if a in heard else Cost() for a in points]
        made_from = {
            "estimator": "fused", "sample": len(self._examples.scores), **posterior.describe(),
            "failed": [a.to_json() for a in self._examples.failed],
        }  # fmt: skip
        return [
            Estimate(
                float(m), {"fused_score": float(m), "deviation": float(d)},
                Cost(wall_s, cost.samples, cost.macs, ctx.device),
                {**made_from, "silent": dict(silent.get(a, {}))},
            )
            for a, m, d, cost in zip(points, mean, deviation, costs)
        ]  # fmt: skip

    # --- state --------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Any]:
        """Return what has been measured and trained, and the states of the parts."""
        state: dict[str, Any] = {
            "opinions": [[a.to_json(), told] for a, told in self._opinions.items()],
            "silent": [[a.to_json(), why] for a, why in self._silent.items()],
            "sample": self._examples.state(),
            "origin": self._origin,
            "whole": self._whole,
        }
        for i, part in enumerate((self._signals, *self.others)):
            state |= {f"part{i}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; `prepare` goes on from it."""
        read = Architecture.from_json
        self._opinions = {read(text): dict(told) for text, told in state["opinions"]}
        self._silent = {read(text): dict(why) for text, why in state.get("silent", [])}
        self._examples.load(state["sample"])
        self._origin, self._features = state.get("origin", ""), None
        self._fitted, self._whole = None, bool(state["whole"])
        for i, part in enumerate((self._signals, *self.others)):
            own = under(f"part{i}.", state)
            if own:
                part.load_state_dict(own)


def _expected(names: Sequence[str]) -> dict[str, float]:
    """Return what opinions are worth before there are examples; they add up to 1.

    What is known at initialisation is one part. Size has a share of its own in it: where other
    signals say little, it rarely does.
    """
    parts = {name: 1.0 for name in names if not name.startswith(SIGNAL)}
    if _SIZE in names:
        parts["signals"], parts[_SIZE] = 2 / 3, 1 / 3
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


class _Posterior:
    """Mean and deviation of the score of architectures, given a sample of them.

    Args:
        features: Describes architectures.
        opinions: Architecture -> name -> what it says, of the candidates and so of the sample.
        trained: Architecture -> score, the sample.
        seed: Of folds and restarts.
        truths: Whether these scores are truths.
    """

    def __init__(
        self,
        features: Features,
        opinions: Mapping[Architecture, Opinions],
        trained: Mapping[Architecture, float],
        seed: int,
        *,
        truths: bool,
    ) -> None:
        self._features = features
        sample = list(trained)
        # A signal that is not defined for an architecture is its lowest.
        self._names = list(dict.fromkeys(name for told in opinions.values() for name in told))
        # Opinions come in all scales, some over many decades: their ranks among all are compared.
        self._ranks = [Ranks(c) for c in np.stack([self._row(t) for t in opinions.values()]).T]
        scores = tamed(np.array(list(trained.values())))
        self._location, self._scale = float(scores.mean()), float(scores.std()) or 1.0
        standard = (scores - self._location) / self._scale
        normal = self._normal([opinions[a] for a in sample])
        blocks = self._blocks(sample, normal)
        self._scaler = Scaler(blocks)
        self._process = GaussianProcess(seed)
        self._process.fit(self._scaler(blocks), standard)
        held_out = np.column_stack([self._process.held_out(), normal])
        names = ["process", *self._names]
        self._stack: Stack = stacked(
            names, held_out, standard, _expected(names), seed, truths=truths
        )
        among = self._process.predict(self._scaler(self._all(opinions)))[1]
        self._usual = float(among.mean())

    def __call__(
        self, points: Sequence[Architecture], opinions: Mapping[Architecture, Opinions]
    ) -> tuple[Array, Array]:
        """Return mean and deviation `[n]`, in units of the sample's score.

        The deviation is the weighing's held-out error, more where the process knows less.
        """
        normal = self._normal([opinions[a] for a in points])
        mean, deviation = self._process.predict(self._scaler(self._blocks(points, normal)))
        told = self._stack(np.column_stack([mean, normal]))
        spread = self._stack.error * deviation / self._usual
        return self._location + self._scale * told, self._scale * spread

    def describe(self) -> dict[str, Any]:
        """Return what was learned, as JSON values."""
        return {
            "weights": {name: w for name, w in self._stack.weights.items() if w > 0},
            "tau_held_out": self._stack.tau,
            "best_single": self._stack.single,
            "best_single_tau": self._stack.single_tau,
        }

    def _row(self, told: Opinions) -> Array:
        return np.array([told.get(name, -np.inf) for name in self._names])

    def _normal(self, told: Sequence[Opinions]) -> Array:
        """Return opinions `[n, k]` as normal quantiles of their ranks among the candidates."""
        columns = np.stack([self._row(t) for t in told]).T
        ranks = [ranks(column) for ranks, column in zip(self._ranks, columns)]
        quantiles: Array = norm.ppf(np.stack(ranks, axis=1))
        return quantiles

    def _all(self, opinions: Mapping[Architecture, Opinions]) -> list[Blocks]:
        return self._blocks(list(opinions), self._normal(list(opinions.values())))

    def _blocks(self, points: Sequence[Architecture], normal: Array) -> list[Blocks]:
        return [(*self._features(a), row) for a, row in zip(points, normal)]
