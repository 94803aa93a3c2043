"""The truth of an audit: which architectures are trained, and what their trainings gave."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Context, Job
from assay.cost import Cost, derive
from assay.errors import (
    InvalidArchitecture,
    InvalidSetting,
    InvalidStudy,
    NotFinite,
    SpaceExhausted,
    reason,
)
from assay.estimators.scratch import Scratch
from assay.estimators.training import Trained, Training, run_each
from assay.hardware.measures import Measures
from assay.run.audit_plan import AuditPlan, key_of
from assay.run.failing import may_pass
from assay.run.limits import Aims, quantity_name
from assay.run.steps import Step, Steps
from assay.space.space import Space
from assay.study.store import Study
from assay.trust.stratify import stratified

__all__ = ["Truths", "check_published"]

_CANDIDATES = 1000
_TRIES = 20  # for each architecture that the candidates lack
_SHARE = 0.5
_SETTLED = "truths settled"


class Truths:
    """Draws the sample of an audit and trains it, each architecture and seed once.

    Args:
        plan: Of the audit.
        study: Keeps every truth under its architecture and seed.
        steps: Of the run.
    Attributes:
        limits: What the sample holds, by name; "median" as a number. Known once it was drawn.
    """

    def __init__(self, plan: AuditPlan, study: Study, steps: Steps) -> None:
        self.plan = plan
        self.study = study
        self.steps = steps
        self.limits: Mapping[str, float] = {}

    def check(self) -> None:
        """Refuse a budget that trains for other epochs than the truths there.

        Raises:
            InvalidStudy: it does.
        """
        known = self.study.phase("truth").counts.get("epochs")
        given, budget = self.plan.budget.epochs, self.plan.budget
        if known is None or given is None or known == given:
            return
        if budget.in_counts or known > given:
            raise InvalidStudy(
                f"the truths in {self.plan.out} are of {known} epochs each, the budget {budget} "
                f"asks for {given}; give epochs={known}, or another out"
            )

    def sample(self, measures: Measures) -> list[Architecture]:
        """Return the sample, distinct and canonical: the first of a larger one are the same.

        Args:
            measures: Count the MACs over which it is spread, and tell what is limited.
        Raises:
            SpaceExhausted: nothing that was drawn holds the limits.
            InvalidSetting: a limit that is no positive number, or a function that fails.
        """
        plan = self.plan
        if plan.truths is not None:
            known = sorted(plan.truths, key=Architecture.to_json)  # whatever order they came in
            pool = self._within(known, measures)
            order = derive(plan.seed, "audit sample").permutation(len(pool))
            if len(pool) < plan.num:
                self.steps.note(
                    f"only {len(pool)} published architectures hold the limits, of {plan.num} "
                    "asked for"
                )
            return [pool[int(i)] for i in order[: plan.num]]
        # How many candidates there are does not depend on `num`, nor do the draws behind them.
        rng = derive(plan.seed, "audit candidates")
        count = min(_CANDIDATES, 4 * plan.space.size)
        drawn = list(dict.fromkeys(self._draw(rng) for _ in range(count)))
        pool = self._within(drawn, measures)
        macs = [measures("macs", a) for a in pool]
        first = stratified(macs, min(plan.num, len(pool)), rng=derive(plan.seed, "audit sample"))
        chosen = dict.fromkeys(pool[i] for i in first)
        for _ in range(_TRIES * (plan.num - len(chosen))):
            if len(chosen) == plan.num:
                break
            point = self._draw(rng)
            if self._holds(point, measures):
                chosen[point] = None
        if len(chosen) < plan.num:
            self.steps.note(
                f"only {len(chosen)} distinct architectures were found, of {plan.num} asked for"
            )
        return list(chosen)

    def _within(self, drawn: Sequence[Architecture], measures: Measures) -> list[Architecture]:
        """Return those that hold the limits, of which "median" is that of all that were drawn."""
        if not self.plan.limits:
            return list(drawn)
        limits = {
            q: float(np.median([measures(q, a) for a in drawn])) if value == "median" else value
            for q, value in self.plan.limits.items()
        }
        self._aims = Aims(limits, ("score",), measures.order)  # type: ignore[arg-type]
        self.limits = {quantity_name(q): value for q, value in self._aims.limits.items()}
        pool = [a for a in drawn if self._holds(a, measures)]
        if not pool:
            raise SpaceExhausted(
                f"none of {len(drawn)} architectures holds the limits {self.limits}; raise them, "
                'or give "median"'
            )
        return pool

    def _holds(self, architecture: Architecture, measures: Measures) -> bool:
        return not self.plan.limits or self._aims.hold(architecture, measures)

    def _draw(self, rng: np.random.Generator) -> Architecture:
        return self.plan.space.canonical(self.plan.space.sample(rng))

    def settle(self, ctx: Context, sample: Sequence[Architecture]) -> None:
        """Settle for how many epochs the sample is trained, where it is.

        Args:
            ctx: By whose recipe; its epochs are the most.
            sample: As drawn.
        Raises:
            InvalidSetting: the budget pays for no epoch of each, or not for so many more.
        """
        if self.plan.truths is None and self.epochs is None:
            self._plan_epochs(ctx, len(self._wanted(sample)))
            self._put_settled(self._wanted(sample))
        elif self.plan.truths is None:
            self._settle_growth(ctx, self._wanted(sample))

    def _wanted(self, sample: Sequence[Architecture]) -> list[tuple[Architecture, int]]:
        return [(a, s) for s in range(self.plan.seeds) for a in sample]

    def train(self, ctx: Context, sample: Sequence[Architecture]) -> dict[str, list[float]]:
        """Train what has no truth yet, or take what was published.

        Args:
            ctx: By whose recipe they train, for the epochs that were settled.
            sample: As drawn and settled.
        Returns:
            Key of an architecture -> one value a seed; without those of which one could not be had:
            a mean over the seeds that came through would be too good.
        """
        if self.plan.truths is not None:
            return {key_of(a): [self.plan.truths[a]] for a in sample}
        wanted = self._wanted(sample)
        with self.steps.step("truth", len(wanted), title="train the truth") as step:
            self._train(self.context(ctx), wanted, step)
            step.message = f"{len(sample)} architectures, epochs of each: {self.epochs}"
        found = {key_of(a): [self._truth(a, s) for s in range(self.plan.seeds)] for a in sample}
        return {k: [v for v in of if v is not None] for k, of in found.items() if None not in of}

    def _truth(self, a: Architecture, seed: int) -> float | None:
        known = self.study.get(_name(a, seed))
        return None if known is None else known["score"]

    def context(self, ctx: Context) -> Context:
        """Return a context whose recipe has the epochs that the truths were trained for."""
        if self.epochs is None:
            return ctx
        return replace(ctx, recipe=ctx.recipe.with_(epochs=self.epochs))

    @property
    def epochs(self) -> int | None:
        """Epochs of each training; None where nothing is trained, or not yet planned."""
        known = self.study.phase("truth").counts.get("epochs")
        return None if known is None else int(known)

    def seconds(self, trained: Sequence[Architecture]) -> dict[str, float] | None:
        """Return the seconds of training each once, the mean over its seeds.

        None where nothing is trained. Trainings that run at once share their seconds.

        Args:
            trained: Of the sample those that have all their truths.
        """
        if self.plan.truths is not None:
            return None
        return {
            key_of(a): float(
                np.mean([self.study.get(_name(a, s))["seconds"] for s in range(self.plan.seeds)])
            )
            for a in trained
        }

    def _plan_epochs(self, ctx: Context, count: int) -> None:
        """Write the epochs of each training: all of the recipe, or what half the time allows."""
        plan = self.plan
        epochs = plan.budget.epochs or plan.recipe.epochs
        if plan.budget.seconds is not None:
            epoch_s = self._epoch_seconds(ctx)
            paid = int(_SHARE * plan.budget.seconds / (count * epoch_s))
            if paid < 1:
                least_s = count * epoch_s / _SHARE
                raise InvalidSetting(
                    f"half of {plan.budget} pays for no epoch of each of {count} trainings; "
                    f"give a budget of at least {least_s:.0f}s, or fewer architectures or seeds"
                )
            epochs = min(epochs, paid)
        self.study.plan("truth", {"epochs": epochs, "count": count})

    def _epoch_seconds(self, ctx: Context) -> float:
        """Return the seconds that an epoch of one training takes of a time in which several run."""
        epoch = self.plan.task.steps_per_epoch(self.plan.recipe.batch_size)
        step_s = Scratch().training_step_seconds(ctx)
        return epoch * step_s / self.plan.executor.at_once

    def _put_settled(self, wanted: Sequence[tuple[Architecture, int]]) -> None:
        self.study.put(_SETTLED, sorted(_name(a, s) for a, s in wanted))

    def _settle_growth(self, ctx: Context, wanted: Sequence[tuple[Architecture, int]]) -> None:
        """Refuse other trainings than were settled, where the time left does not pay for them.

        Each has as many epochs as those before it, whatever the budget. What is not refused is
        settled: whoever continues it is not asked again whether it fits.
        """
        settled = self.study.get(_SETTLED)
        names = {_name(a, s) for a, s in wanted}
        if names.issubset(settled if isinstance(settled, list) else ()):
            return
        known = [self.study.get(name) for name in names]
        took = [told["seconds"] for told in known if told is not None]
        budget, more, spent_s = self.plan.budget, len(names) - len(took), self.steps.spent_s()
        each_s = float(np.mean(took)) if took else self._epoch_seconds(ctx) * (self.epochs or 1)
        needed_s = more * each_s
        if budget.seconds is not None and more and needed_s > budget.seconds - spent_s:
            raise InvalidSetting(
                f"{more} more trainings of {self.epochs} epochs each take about {needed_s:.3g} s, "
                f"and of {budget} {spent_s:.3g} s are spent; give a budget of at least "
                f"{spent_s + needed_s / _SHARE:.0f}s in all, or fewer architectures or seeds"
            )
        self._put_settled(wanted)

    def _train(self, ctx: Context, wanted: Sequence[tuple[Architecture, int]], step: Step) -> None:
        """Train what has no truth yet, one after another or as many at once as the executor can."""
        left = [(a, s) for a, s in wanted if self.study.get(_name(a, s)) is None]
        step.done = len(wanted) - len(left)
        step.tell()
        scratch = Scratch()
        steps = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)

        def make(one: tuple[Architecture, int]) -> Training:
            return scratch.job(ctx, one[0], ("truth", one[1]), steps)

        for i, job in run_each(ctx, left, make):
            cost = self._keep(ctx, job, *left[i])
            step.done += 1
            step.checkpoint(samples=cost.samples, macs=cost.macs, device=ctx.device)

    def _keep(self, ctx: Context, job: Job[Trained], a: Architecture, seed: int) -> Cost:
        """Keep the truth that a training gave, or that it has none; return what it cost."""
        cost, error = Cost(), ""
        score: float | None = None
        try:
            trained = job.result()
            cost = trained.cost
            if trained.diverged:
                raise NotFinite(trained.diverged)
            score = Scratch().score_of(ctx, trained.figures)
            if not np.isfinite(score):
                raise NotFinite(f"its {ctx.task.score} is {score}")
        except Exception as failed:  # of the user's own network; the others go on
            score, error = None, reason(failed)
            self.study.add_failure(
                "truth", None, f"{a.to_json()}, seed {seed}: {error}", traceback.format_exc()
            )
            if may_pass(failed):
                return cost
        seconds = cost.wall_s / self.plan.executor.at_once  # another session may have fewer at once
        self.study.put(_name(a, seed), {"score": score, "seconds": seconds, "error": error})
        return cost


def check_published(space: Space, truths: Mapping[Any, Any]) -> None:
    """Refuse published truths that are no truths of networks of a space, each told once.

    Args:
        space: With its example, see `Space.canonical`.
        truths: As a caller gave them, of whatever types.
    Raises:
        InvalidSetting: a value that is no finite number; an architecture that is none of the
            space, is not canonical, or is the same network as another.
    """
    networks: dict[Architecture, Architecture] = {}
    for point, truth in truths.items():
        if not isinstance(point, Architecture):
            raise InvalidSetting(f"published truths of {point!r}, which is no Architecture")
        told = point.to_json()
        if not (isinstance(truth, Real) and math.isfinite(truth)):
            raise InvalidSetting(
                f"the published truth of {told} is {truth!r}, which is no finite number; leave it "
                "out"
            )
        try:
            network = space.canonical(space.check(point))
        except InvalidArchitecture as error:
            raise InvalidSetting(
                f"published truths of {told}, which is no architecture of {space!r}: {error}"
            ) from error
        if (same := networks.setdefault(network, point)) != point:
            raise InvalidSetting(
                f"published truths of {same.to_json()} and {told}, which are one network; keep one"
            )
    for network, point in networks.items():
        if network != point:
            raise InvalidSetting(
                f"published truths of {point.to_json()}, which is not canonical; give "
                "space.canonical of it"
            )


def _name(architecture: Architecture, seed: int) -> str:
    return f"truth {key_of(architecture)} {seed}"
