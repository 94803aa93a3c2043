"""Signals at initialisation: what an untrained network tells, added up by rank.

Known weakness: which signal ranks well depends on the space and the data, and some rank the wrong
way round on spaces other than those of their papers (Krishnakumar et al. 2022, "NAS-Bench-Suite-
Zero", arXiv:2210.03230). Nothing here has seen a trained network. Compare it with `params` and
`macs` before you trust it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, nearest
from assay.estimators.origin import same_origin
from assay.estimators.proxies import proxies
from assay.estimators.ranks import Ranks
from assay.estimators.training import enough_batches
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.signals import SIGNALS, SIZES, attempt
from assay.space.space import Space
from assay.train.splits import evened, leaves, map_tensors
from assay.train.task import Batch, Task

__all__ = ["EIGHT", "ZeroCost"]

EIGHT = (
    "naswot", "synflow", "jacob_cov", "zico",
    "expressivity", "progressivity", "trainability", "macs",
)  # fmt: skip
"""The signals added up by default: four of different kinds, and AZ-NAS's four proxies."""

_COUNTED = frozenset({"params", "macs"})  # worked out from the space, with no network built
_TOGETHER = 8
_TRIES = 20
_BY_WEIGHT = frozenset({"snip", "grad_norm", "zico"})  # one backward serves these together
_BACKWARDS: Mapping[str, int] = {"jacob_cov": 1, "trainability": 1, "fisher": 1, "grasp": 3}


@dataclass
class ZeroCost:
    """Scores architectures by signals at initialisation; trains nothing.

    The score is the sum over signals of log q, where q is the share of a reference sample of random
    architectures that a value exceeds (`assay.estimators.ranks`); nothing is fitted. A signal that
    is not defined for an architecture, or not finite, is its lowest; one that no architecture of
    the sample has is left out. A single signal is the score as it is, and needs no sample.

    Source: the signals' papers, see `assay.signals`; the sum of log ranks is that of Lee & Ham
    2024, "AZ-NAS", arXiv:2403.19232, section 3; differs: ranks in a fixed sample in place of those
    among all candidates, so that a score depends on no other.

    Args:
        signals: Keys of `assay.signals.SIGNALS`.
        reference: Distinct random architectures that values are ranked in; fewer where the space
            or the steps of the budget have fewer.
        batch: Training samples that signals are measured on, the same for all architectures.
        variant: Options of a ready space that make it smaller; None for those that it names as
            cheap.
        resolution: Share of the side of images; 0 for one half from 32 pixels on, else all.
    Raises:
        InvalidSetting: an unknown or repeated signal, or none; a count that is too small.
    """

    signals: tuple[str, ...] = EIGHT
    reference: int = 64
    batch: int = 64
    variant: dict[str, Any] | None = None
    resolution: float = 0.0

    def __post_init__(self) -> None:
        for name in self.signals:
            if name not in SIGNALS:
                raise InvalidSetting(f"unknown signal {name!r}; {nearest(name, SIGNALS)}")
        if not self.signals or len(set(self.signals)) < len(self.signals):
            raise InvalidSetting(f"estimator.signals={self.signals!r} must name each signal once")
        for name, fewest in (("reference", 2), ("batch", 4)):
            if getattr(self, name) < fewest:
                given = getattr(self, name)
                raise InvalidSetting(f"estimator.{name}={given} must be at least {fewest}")
        self._measured: list[tuple[Architecture, _Signals]] = []
        self._batch: Batch | None = None
        self._made: tuple[Space, Task] | None = None
        self._measures: Measures | None = None
        self._origin = ""

    # --- the reference sample -----------------------------------------------------------------

    def step_seconds(self, ctx: Context) -> float:
        """Time the signals of some architectures; a step measures one of the reference sample."""
        return self.estimate_seconds(ctx) if len(self.signals) > 1 else 0.0

    def reference_seconds(self, ctx: Context) -> float:
        """Return the seconds that measuring the whole reference sample takes."""
        return self.step_seconds(ctx) * len(self._sample(ctx))

    def estimate_seconds(self, ctx: Context) -> float:
        """Return the seconds in which an architecture is measured, from some that are timed."""
        points = self._sample(ctx)[:_TOGETHER]
        self._measure(ctx, points[:2])  # workers start, and kernels are chosen, once
        started = time.perf_counter()
        self._measure(ctx, points)
        return (time.perf_counter() - started) / len(points)

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Measure the reference sample, one architecture a step; yields after each few.

        With `budget.steps` the sample has no more than so many.

        Raises:
            InvalidStudy: the loaded state is of another space or task.
        """
        self._proxies(ctx)
        points = self._sample(ctx) if len(self.signals) > 1 else []
        wanted = len(points) if budget.steps is None else min(len(points), budget.steps)
        while len(self._measured) < wanted:
            started, done = time.perf_counter(), len(self._measured)
            few = points[done : min(done + _TOGETHER, wanted)]
            measured = self._measure(ctx, few)
            self._measured += zip(few, measured)
            spent = sum((self._cost(ctx, *pair) for pair in zip(few, measured)), Cost())
            yield Cost(time.perf_counter() - started, spent.samples, spent.macs, ctx.device)

    def _sample(self, ctx: Context) -> list[Architecture]:
        rng, found = derive(ctx.seed, "zero-cost", "reference"), dict[Architecture, None]()
        for _ in range(_TRIES * self.reference):
            found[ctx.space.canonical(ctx.space.sample(rng))] = None
            if len(found) == self.reference:
                break
        return list(found)

    # --- scores -------------------------------------------------------------------------------

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Measure architectures and rank each in the reference sample.

        Raises:
            InvalidSetting: no reference sample, or no signal that is defined for it.
        """
        estimates: list[Estimate] = []
        for start in range(0, len(proposals), _TOGETHER):
            few = proposals[start : start + _TOGETHER]
            started = time.perf_counter()
            points = [ctx.space.canonical(p.architecture) for p in few]
            measured = self._measure(ctx, points)
            wall_s = (time.perf_counter() - started) / len(few)
            timed = Cost(wall_s, device=ctx.device)
            columns = self._columns() if len(self.signals) > 1 else {}
            estimates += [
                self._estimate(signals, timed + self._cost(ctx, point, signals), columns)
                for point, signals in zip(points, measured)
            ]
        return estimates

    def quantiles(self, estimate: Estimate) -> list[float]:
        """Return where an estimate's signals lie in the reference sample, each in (0, 1).

        A signal that the architecture does not have lies lowest; those that no architecture of the
        sample has are left out.

        Raises:
            InvalidSetting: no reference sample, or no signal that is defined for it.
        """
        return _quantiles(estimate.metrics, self._columns())

    def _estimate(self, signals: _Signals, cost: Cost, columns: Mapping[str, Ranks]) -> Estimate:
        if len(self.signals) == 1:
            for refusal in signals.refused.values():
                raise refusal
            (score,) = signals.values.values()
            return Estimate(score, signals.values, cost, self._made_from(signals, self.signals))
        score = sum(map(math.log, _quantiles(signals.values, columns)))
        first = self._measured[0][1]
        left_out = {n: str(first.refused[n]) for n in self.signals if n not in columns}
        made_from = {
            **self._made_from(signals, columns),
            "reference": len(self._measured),
            "left_out": left_out,
        }
        return Estimate(score, signals.values, cost, made_from)

    def _made_from(self, signals: _Signals, kept: Iterable[str]) -> dict[str, Any]:
        undefined = {n: str(signals.refused[n]) for n in kept if n in signals.refused}
        return {"estimator": "zero-cost", "signals": list(kept), "undefined": undefined}

    def _columns(self) -> dict[str, Ranks]:
        """Return the ranks in the reference sample by signal, of those that it has any of."""
        if not self._measured:
            raise InvalidSetting(
                "zero-cost ranks signals in a reference sample, and has none yet: prepare it first"
            )
        told = [signals for _, signals in self._measured]
        columns = {
            name: Ranks(np.array([signals.values.get(name, -math.inf) for signals in told]))
            for name in self.signals
            if any(name in signals.values for signals in told)
        }
        if not columns:
            why = "; ".join(str(refusal) for refusal in told[0].refused.values())
            raise InvalidSetting(
                f"no signal is defined for the networks of this space ({why}); name others by "
                "estimator.signals, such as macs"
            )
        return columns

    # --- measuring ----------------------------------------------------------------------------

    def _measure(self, ctx: Context, points: Sequence[Architecture]) -> list[_Signals]:
        if _COUNTED.issuperset(self.signals):
            counted = [self._counted(ctx, point) for point in points]
            if all(signals is not None for signals in counted):
                return [signals for signals in counted if signals is not None]
        seed = int(derive(ctx.seed, "zero-cost", "weights").integers(2**31))
        batch = self._data(ctx)
        jobs = []
        space, task = self._proxies(ctx)
        task = task.on(batch)  # a job is sent what it needs, not all the data
        any_weights = SIZES.issuperset(self.signals)  # new ones are dear
        for point in points:
            network = space.build(point) if any_weights else space.fresh(point, seed)
            measuring = _Measuring(network.to(ctx.device), self.signals, batch, task, seed)
            jobs.append(ctx.executor.submit(measuring))
        try:
            for job in ctx.executor.gather(jobs):
                job.result()
        finally:
            for job in jobs:
                ctx.executor.cancel(job)
        return [job.result() for job in jobs]

    def _counted(self, ctx: Context, point: Architecture) -> _Signals | None:
        """Return the signals as the space tells them; None where it has no formula for a part."""
        sizes = self._sizes(ctx)
        if "macs" in self.signals and sizes.uncounted(point):
            return None
        return _Signals({name: sizes(name, point) for name in self.signals})

    def _sizes(self, ctx: Context) -> Measures:
        if self._measures is None:
            space, task = self._proxies(ctx)
            self._measures = Measures(space, Device(), task.example(1))
        return self._measures

    def _data(self, ctx: Context) -> Batch:
        """Return the training batch, unaugmented, that all architectures are measured on."""
        if self._batch is None:
            _, task = self._proxies(ctx)
            size = self.batch
            drawn = list(enough_batches(ctx, task, size, most=size))
            num = sum(len(targets) for _, targets in drawn)
            inputs, targets = evened(drawn, num)[0]  # together, as a loader's may be small
            self._batch = (map_tensors(inputs, lambda t: t[:size]), targets[:size])
        return self._batch

    def _proxies(self, ctx: Context) -> tuple[Space, Task]:
        if self._made is None:
            self._origin = same_origin(ctx, self._origin, "reference sample of zero-cost")
            self._made = proxies(ctx, variant=self.variant, resolution=self.resolution)
        return self._made

    def _cost(self, ctx: Context, point: Architecture, signals: _Signals) -> Cost:
        """Return the samples that an architecture was measured on, and their MACs."""
        backwards = sum(_BACKWARDS.get(name, 0) for name in self.signals)
        backwards += not _BY_WEIGHT.isdisjoint(self.signals)
        passes = signals.samples + 2 * backwards * len(self._data(ctx)[1])
        passes += 2 * ("synflow" in self.signals)  # its one sample of ones
        macs = self._sizes(ctx)("macs", point) * passes if signals.samples else 0.0
        return Cost(samples=signals.samples, macs=round(macs), device=ctx.device)

    # --- state --------------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, Any]:
        """Return the reference sample so far: architectures as JSON, values and refusals."""
        rows = [
            [point.to_json(), signals.values, {n: str(r) for n, r in signals.refused.items()}]
            for point, signals in self._measured
        ]
        return {"reference": rows, "origin": self._origin}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a reference sample; `prepare` goes on from it."""
        self._origin, self._made = state.get("origin", ""), None
        self._measured = [
            (
                Architecture.from_json(text),
                _Signals(dict(values), {n: InvalidSetting(r) for n, r in refused.items()}),
            )
            for text, values, refused in state["reference"]
        ]


@dataclass(frozen=True)
class _Signals:
    """What one architecture tells.

    Attributes:
        values: Of signals.
        refused: For the other signals why they have none.
        samples: Passed through the network to find out.
    """

    values: dict[str, float]
    refused: dict[str, AssayError] = field(default_factory=dict)
    samples: int = 0


@dataclass(frozen=True)
class _Measuring:
    """A job for any executor: measures one network."""

    network: nn.Module
    names: tuple[str, ...]
    batch: Batch
    task: Task
    seed: int

    def __call__(self) -> _Signals:
        seen: list[int] = []

        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen.append(len(next(leaves([*args, *kwargs.values()]))))

        hook = self.network.register_forward_pre_hook(note, with_kwargs=True)
        try:
            told = attempt(
                self.network, self.names, batch=self.batch, task=self.task, seed=self.seed
            )
        finally:
            hook.remove()
        return _Signals(*told, sum(seen))


def _quantiles(values: Mapping[str, float], columns: Mapping[str, Ranks]) -> list[float]:
    return [
        float(ranks(np.asarray(values.get(name, -math.inf)))) for name, ranks in columns.items()
    ]
