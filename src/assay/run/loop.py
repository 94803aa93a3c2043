"""The one search loop: ask, check limits, estimate, record; a batch at a time.

A batch is worked out in memory as a function of the history at its start, and written in one
transaction before it is estimated; its scores are written as they come. So a killed search finds
either nothing of a batch, or all its proposals, of which those without a score are still to be
estimated. A strategy that learns from so many trials at once is asked for no more than these.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import (
    Context,
    Estimate,
    Estimator,
    History,
    Proposal,
    Strategy,
    Trial,
    TrialState,
)
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, NotFinite, SpaceExhausted
from assay.estimators.each import Diverged, Told, each
from assay.run.failing import may_pass
from assay.run.limits import Aims, Measure, Quantity, quantity_name
from assay.strategies.learned.symptoms import advised
from assay.study.store import Study

__all__ = ["Searcher", "measure_all", "survey", "was_judged"]

_TRIES_PER_TRIAL = 200
_IDLE = 20
_SURVEYED = 1000
_COMPARED = 200  # with what a strategy proposes
_TOLD: Mapping[str, Callable[[list[float]], Any]] = {"min": min, "median": np.median, "max": max}


@dataclass
class Searcher:
    """Runs a strategy against an estimator on a study.

    Attributes:
        ctx: What the estimator may use; its history is the one that grows.
        study: Where every trial is recorded.
        strategy: Proposes.
        estimator: Scores; prepared already.
        aims: Limits and objectives.
        measure: Answers quantities that need no weights.
        batch: Proposals estimated together.
    """

    ctx: Context
    study: Study
    strategy: Strategy
    estimator: Estimator
    aims: Aims
    measure: Measure
    batch: int = 25

    @property
    def history(self) -> History:
        """All trials so far."""
        return self.ctx.history

    def judged(self) -> int:
        """Return how many trials were estimated; see `was_judged`."""
        return sum(map(was_judged, self.history))

    def run(
        self,
        trials: int,
        progress: Callable[[int, int, Cost, Cost], int],
        *,
        unmet: Callable[[], None] = lambda: None,
    ) -> None:
        """Search until `trials` trials are judged or the space gives nothing new.

        Args:
            trials: In all, those of an interrupted run included.
            progress: Called as scores come with (judged, those of the batch that have none yet,
                cost of searching, cost of scoring); returns how many trials in all from now on.
            unmet: Called when all that a strategy learns from at once is over the limits.
        Raises:
            SpaceExhausted: nothing within the limits was found in bounded tries.
        """
        judged = self.judged()
        pending = [t for t in self.history if t.state == "running"]  # a killed run's last batch
        while judged < trials:
            started = time.perf_counter()
            pending = pending or self._propose(min(self.batch, trials - judged), unmet)
            searched = Cost(time.perf_counter() - started)
            if not pending:
                if judged == 0:
                    raise SpaceExhausted(self._why_none())
                return
            waiting = len(pending)
            for told, scored in self._estimate(pending, searched):
                judged, waiting = judged + told, waiting - told
                trials = progress(judged, waiting, searched, scored)
                searched = Cost()
            pending = []

    def ended_early(self, trials: int) -> str:
        """Return why fewer than so many trials were judged, and what to change; "" where all were.

        Args:
            trials: That were planned.
        """
        judged = self.judged()
        if judged >= trials:
            return ""
        said, missed = f"nothing new after {judged} of {trials} trials", self._missed()
        if not missed:
            return said
        though = f"{said}, though random draws are new and within the limits ({missed})"
        return advised(self.strategy, "collapsed", though)

    def _why_none(self) -> str:
        """Say why no trial was judged, and what to change."""
        found = survey(self.ctx, self.aims, self.measure)
        said = f"no new architecture within the limits was found: {found}"
        missed, name = self._missed(), type(self.strategy).__name__
        if not missed:
            return f"{said}; raise the limit or widen the space"
        though = f"{said}; random draws are within the limits ({missed}), and {name} proposes none"
        otherwise = "use another strategy or raise the limit"
        return advised(self.strategy, "drifting", though, otherwise=otherwise)

    def _missed(self) -> str:
        """Return how many of some random architectures the search would take, "" for none."""
        drawn = _random(self.ctx, _COMPARED)
        new = [point for point in drawn if self.history.seen(point) is None]
        found = sum(self._checked(0, point, Proposal(point)).state == "running" for point in new)
        return f"{found} of {len(drawn)}" if found else ""

    def _propose(self, n: int, unmet: Callable[[], None]) -> list[Trial]:
        """Return up to n new feasible trials; none where nothing new is found.

        Where all that is learned from at once is infeasible, what has learned is asked again.
        """
        while True:
            most = self.at_once()
            new = self._meet(n, most)
            feasible = [t for t in new if t.state == "running"]
            if feasible or len(new) < most or self._unscored() >= _TRIES_PER_TRIAL * most:
                return feasible
            unmet()

    def at_once(self) -> float:
        """Return how many more trials the strategy waits for before it learns; infinite if none."""
        told = getattr(self.strategy, "at_once", None)
        return math.inf if told is None else int(told(self.history))

    def _unscored(self) -> int:
        """Return how many trials came after the last that has a score."""
        ages = (age for age, t in enumerate(reversed(self.history)) if t.state == "scored")
        return next(ages, len(self.history))

    def _meet(self, n: int, most: float) -> list[Trial]:
        """Find up to n new feasible architectures, and at most so many new ones; record them.

        Where some were found, it is not waited long for what brings nothing new any more.
        """
        start = len(self.history)
        new: list[Trial] = []
        met: set[tuple[Architecture, float]] = set()
        feasible = idle = 0
        for attempt in range(_TRIES_PER_TRIAL):
            known = len(new)
            rng = derive(self.ctx.seed, "ask", start, attempt)
            # What was met is not in the history yet, so who names its best first names it again.
            wanted = int(min(n - feasible + bool(idle), most - len(new)))
            asked = self.strategy.ask(self.history, wanted, rng=rng)
            for proposal in asked:
                point = self.ctx.space.canonical(proposal.architecture)
                rung = (point, proposal.fidelity)
                if rung in met or self.history.seen(*rung) is not None or feasible == n:
                    continue
                met.add(rung)
                new.append(self._checked(start + len(new), point, proposal))
                feasible += new[-1].state == "running"
            # One that asks for fewer waits for these before it goes on.
            enough = feasible == n or len(new) >= most
            idle = 0 if len(new) > known else idle + 1
            if (
                enough
                or (feasible and idle == _IDLE)
                or not asked
                or (feasible and len(asked) < wanted)
            ):
                break
        self.study.record_all(new, failed_in="search")
        for trial in new:
            self.history.append(trial)
        return new

    def _checked(self, number: int, point: Architecture, proposal: Proposal) -> Trial:
        trial = Trial(number, point, parent=proposal.parent, fidelity=proposal.fidelity)
        try:
            measured, violation = self.aims.check(point, self.measure)
        except Exception:  # of a user's own measure; the search goes on without this architecture
            return replace(trial, state="failed", error=traceback.format_exc())
        state: TrialState = "running" if violation == 0 else "infeasible"
        return replace(trial, state=state, measured=measured, violation=violation)

    def _estimate(self, pending: Sequence[Trial], searched: Cost) -> Iterator[tuple[int, Cost]]:
        """Have trials estimated and record each as it comes; yield (how many, what they cost)."""
        proposals = [Proposal(t.architecture, t.fidelity, t.parent) for t in pending]
        started = time.perf_counter()
        for told in each(self.estimator, self.ctx, proposals):
            _refuse_passing(told)
            done = [self._judged(pending[index], said) for index, said in told.items()]
            spent = [s.cost for s in told.values() if isinstance(s, Estimate | Diverged)]
            cost = Cost(
                time.perf_counter() - started, sum(c.samples for c in spent),
                sum(c.macs for c in spent), self.ctx.device,
            )  # fmt: skip
            costs = {"search": searched, "score": cost}
            self.study.record_all(done, costs=costs, failed_in="score")
            for trial in done:
                self.history.replace(trial)
            yield len(done), cost
            searched, started = Cost(), time.perf_counter()

    def _judged(self, trial: Trial, said: Told) -> Trial:
        if isinstance(said, Exception):
            return replace(trial, state="failed", error=_trace(said))
        values = self.aims.values(said, trial.measured)
        return replace(trial, state="scored", estimate=said, objectives=values)


def _refuse_passing(told: Mapping[int, Told]) -> None:
    """Raise what several architectures all failed with, where it may pass: they are asked again.

    Of one alone, which may be too large, it is the answer.
    """
    errors = [said for said in told.values() if isinstance(said, Exception) and may_pass(said)]
    if len(errors) == len(told) > 1:
        raise errors[0]


def _trace(error: Exception) -> str:
    if isinstance(error, Diverged):
        return f"{NotFinite.__name__}: {error}"
    return "".join(traceback.format_exception(error))


def was_judged(trial: Trial) -> bool:
    """Whether a trial was estimated, even if that failed; one whose measuring failed was not."""
    return trial.state in ("scored", "failed") and bool(trial.measured)


def survey(ctx: Context, aims: Aims, measure: Measure) -> str:
    """Say what the limited quantities are like over a space, as far as it is drawn at random."""
    drawn = _random(ctx, _SURVEYED)
    parts = []
    for quantity, limit in aims.limits.items():
        values, failed = measure_all(quantity, drawn, measure)
        has = [f"{name} {of(values):.4g}" for name, of in _TOLD.items() if values]
        has += [f"{len(failed)} on which that fails"] * bool(failed)
        parts.append(f"{quantity_name(quantity)} <= {limit:g}, but the space has {', '.join(has)}")
    return f"{'; '.join(parts) or 'no limits'} (over {len(drawn)} random architectures)"


def _random(ctx: Context, most: int) -> list[Architecture]:
    """Draw up to so many architectures, fewer where the space is small; the same each time."""
    rng = derive(ctx.seed, "survey")
    num = min(most, 4 * ctx.space.size)
    return [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num)]


def measure_all(
    quantity: Quantity, drawn: Sequence[Architecture], measure: Measure
) -> tuple[list[float], list[InvalidSetting]]:
    """Return a quantity of some architectures, and the errors of those on which a function fails.

    Args:
        quantity: A name, or a user's function.
        drawn: The architectures.
        measure: Tells the quantity.
    Raises:
        InvalidSetting: a quantity that is no function cannot be told.
    """
    values, failed = list[float](), list[InvalidSetting]()
    for point in drawn:
        try:
            values.append(float(measure(quantity, point)))
        except InvalidSetting as error:  # one architecture in hundreds ends no search
            if not callable(quantity):
                raise
            failed.append(error)
    return values, failed
