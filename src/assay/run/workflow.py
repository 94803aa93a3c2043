"""The first five steps of a search, each of which can be killed and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture
from assay.contracts import Context, History, Proposal
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, SpaceExhausted, reason
from assay.estimators.each import Told, each
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.report.units import duration, in_full
from assay.run.allot import count_for, finalists_seconds, mean_share, replanned, share_of
from assay.run.limits import Aims, quantity_name
from assay.run.loop import Searcher, measure_all
from assay.run.plan import Plan, versions
from assay.run.preparing import prepare
from assay.run.refusals import (
    refuse_broken_model,
    refuse_hopeless_latency,
    refuse_hopeless_limits,
    uncounted,
)
from assay.run.remarks import (
    largest_best,
    short_supernet,
    table_off,
    too_few_to_learn,
    unclimbed,
    unlearned,
)
from assay.run.steps import Steps
from assay.run.tabling import kept_table
from assay.run.watch import Watch
from assay.study.store import Study

__all__ = ["Workflow"]

_TIMED_PATHS = 8
_MOST_TRIALS = 4000
_TRIALS_UNTOLD = 200  # of a budget in counts that does not name them
_MOST_PASSES = 4  # a supernet may train for so many times the recipe's epochs
_SHORT_S = 15.0  # of a budget: a longer one hardly ever lacks the time for a step
_VALIDATED = 8
_DRAWN = 501


class Workflow:
    """Takes a plan through its steps on a study.

    Args:
        plan: What is searched and how.
        study: Open, with a session begun.
        steps: The run's clock.
    """

    def __init__(self, plan: Plan, study: Study, steps: Steps) -> None:
        self.plan = plan
        self.study = study
        self.steps = steps
        plan.task.close_test()
        self.example = plan.task.example(plan.target.batch)
        if plan.space.example is None:
            plan.space.example = plan.task.example(1)
        self.history = History(plan.space, study.trials())
        self.ctx = Context(
            plan.space, plan.task, plan.recipe, plan.executor, plan.train_on, plan.seed,
            self.history,
        )  # fmt: skip
        self.measures = Measures(plan.space, plan.target, self.example)
        self._watch: Watch | None = None
        if hasattr(plan.strategy, "learned"):
            self._watch = Watch(plan.strategy, self.history, study, steps)

    def run(self) -> None:
        """Run the steps up to the last scored trial; what was done before is not done again."""
        self._build()
        if hasattr(self.plan.strategy, "in_the_loop"):  # it learns of the hardware as it trains
            self._measure()
            refuse_hopeless_latency(self.plan, self.measures)
            self.plan.strategy.in_the_loop(self.measures, self.aims.limits)
            self._train()
        else:
            self._train()
            self._measure()
        self._search()

    # --- 1 build the supernet -----------------------------------------------------------------

    def _build(self) -> None:
        with self.steps.step("supernet", total=1) as step:
            space = self.plan.space
            step.message = f"{space.size:.3g} architectures of {len(space.choices)} choices"
            if step.finished:
                return
            self._refuse_weights()
            table = self._given_table()
            refuse_broken_model(self.plan)
            if missing := uncounted(space, self.measures):
                self.steps.note(missing)
            refuse_hopeless_limits(self.plan, self.measures)
            if table is not None:
                refuse_hopeless_latency(
                    self.plan, Measures(space, self.plan.target, self.example, table)
                )
            if not hasattr(self.plan.strategy, "in_the_loop"):  # which must know the hardware first
                self._train_counts()  # a budget without time for one step is refused here
            else:
                self._refuse_no_step()
            step.done = 1
            self.study.put("versions", {**versions(), "torch threads": torch.get_num_threads()})
            self.study.put("space", {
                "size": str(space.size),
                "choices": {c.label: list(c.options) for c in space.choices.values()},
            })  # fmt: skip

    def _refuse_weights(self) -> None:
        """Let finalists start from shared weights only where these are weights of theirs."""
        if self.plan.finalists.weights == "scratch":
            return
        shares = getattr(self.plan.estimator, "shares_weights", None)
        if shares is None or not shares(self.ctx):
            raise InvalidSetting(
                "finalists.weights='supernet' needs a supernet of the whole networks, and the "
                f"estimator {type(self.plan.estimator).__name__} has none; use 'scratch', or the "
                "estimator 'one-shot' with variant={} and resolution=1"
            )

    # --- 2 train it once ----------------------------------------------------------------------

    def _train(self) -> None:
        estimator = self.plan.estimator
        with self.steps.step("train") as step:
            counts = self._train_counts()
            step.total = counts["steps"]
            learns, finished = hasattr(self.plan.strategy, "paths"), step.finished
            if not finished:
                self._remark(short_supernet(self.plan, step.total))
            prepare(
                estimator, self.ctx, step, counts["steps"], out=self.plan.out, name="supernet",
                watch=self._watch if learns else None,
            )  # fmt: skip
            if not finished:
                self._remark(unlearned(self.plan, step.total))
            done = f"{step.total} steps" if step.total else "nothing to train"
            step.message = f"{done}, {step.message}" if step.message else done

    def _train_counts(self) -> dict[str, Any]:
        plan, known = self.plan, self.study.phase("train").counts
        if known:
            return dict(known)
        whole = plan.recipe.epochs * plan.task.steps_per_epoch(plan.recipe.batch_size)
        if plan.budget.in_counts:
            return self.study.plan("train", {"steps": plan.budget.steps or whole})
        unit_s = plan.estimator.step_seconds(self.ctx)
        if unit_s == 0:
            return self.study.plan("train", {"steps": 0})
        most = min(_MOST_PASSES * whole, plan.budget.steps or _MOST_PASSES * whole)
        left_s, setup = self.left_s(), getattr(plan.estimator, "setup_seconds", None)
        if setup is not None:
            left_s -= setup(self.ctx, min(most, int(left_s / unit_s)))
        count = count_for("train", "training step", left_s, unit_s, most=most)
        return self.study.plan("train", {"steps": count})

    def _refuse_no_step(self) -> None:
        """Refuse a short budget without time for one step before the hardware is measured.

        What is timed here does not have the hardware in its loop yet, so nothing is planned by it,
        and longer budgets are spared it: they are refused as they are planned.
        """
        left_s = math.inf if self.plan.budget.in_counts else self.left_s()
        if left_s < _SHORT_S and (unit_s := self.plan.estimator.step_seconds(self.ctx)) > 0:
            count_for("train", "training step", left_s, unit_s)

    # --- 3 measure the hardware ---------------------------------------------------------------

    def _measure(self) -> None:
        plan, path = self.plan, self.plan.out / "table.json"
        with self.steps.step("measure") as step:
            self.table = table = kept_table(
                step, plan.space, plan.target, self.example, path=path, given=plan.table,
                seed=plan.seed,
            )  # fmt: skip
            self.measures = Measures(plan.space, plan.target, self.example, table)
            if plan.table is not None:
                self.study.put("given_table", True)  # `resume` does not name it again
            if self.study.get("validation") is None and not self.study.get("given_table"):
                self._validate(table)
            self.aims = Aims(self._settled_limits(), plan.objectives, self.measures.order)
            step.done = step.total = max(1, step.total)
            limits = self.study.get("limits") or {}
            step.message = ", ".join(f"limit {k} <= {in_full(v)}" for k, v in limits.items())

    def _validate(self, table: LatencyTable) -> None:
        try:
            validation = table.validate(_VALIDATED, seed=self.plan.seed)
        except InvalidSetting:  # a small space
            self.steps.note(
                f"the table was fitted to all {self.plan.space.size} networks of the space, so "
                "none is left to check it"
            )
        else:
            told = validation.to_dict()
            told["pairs"] = [[*p, table.layers_ms(Architecture(p[2]))] for p in told["pairs"]]
            self.study.put("validation", told)
            self._remark(table_off(validation))

    def _given_table(self) -> LatencyTable | None:
        plan = self.plan
        if plan.table is None:
            return None
        return LatencyTable.load(plan.table, plan.space, plan.target, example=self.example)

    def _settled_limits(self) -> dict[Any, float]:
        """Put numbers in the place of "median", once, and keep them in the study."""
        known = self.study.get("limits")
        settled: dict[Any, float] = {}
        for quantity, value in self.plan.limits.items():
            name = quantity_name(quantity)
            if known is not None:
                settled[quantity] = known[name]
            else:
                settled[quantity] = self._median(quantity) if value == "median" else float(value)
        if known is None:
            self.study.put("limits", {quantity_name(q): v for q, v in settled.items()})
        return settled

    def _median(self, quantity: Any) -> float:
        """Return the median over random architectures, those left out on which a function fails."""
        rng = derive(self.plan.seed, "median")
        drawn = [self.plan.space.sample(rng) for _ in range(_DRAWN)]
        values, failed = measure_all(quantity, drawn, self.measures)
        if failed:
            self.steps.note(
                f"{len(failed)} of {_DRAWN} random architectures are left out of the median of "
                f"{quantity_name(quantity)}: {failed[0]}"
            )
        if not values:
            raise failed[0]
        return float(np.median(values))

    # --- 4 search, 5 score instantly ----------------------------------------------------------

    def _search(self) -> None:
        plan = self.plan
        searcher = Searcher(
            self.ctx, self.study, plan.strategy, plan.estimator, self.aims, self.measures
        )
        with ExitStack() as last, ExitStack() as first:  # they go on together, and end in order
            searching = first.enter_context(self.steps.step("search"))
            scoring = last.enter_context(self.steps.step("score"))
            counts = dict(self.study.phase("search").counts or self._search_counts())
            planned = counts["trials"]
            counts |= self.study.get("search replanned") or {}
            searching.total = scoring.total = counts["trials"]
            if searching.finished:
                return
            scoring.checkpoint(device=plan.train_on)
            # Who learns with the supernet has done so; who has none learns from the trials.
            watch = None if hasattr(plan.strategy, "paths") else self._watch

            def learn() -> None:
                if watch is not None:
                    watch.look(searching)
                    watch.keep("trial", counts["trials"])
                    self.study.book("search", Cost(searching.lap()))

            def progress(judged: int, waiting: int, searched: Cost, scored: Cost) -> int:
                searching.done = scoring.done = judged
                searching.cost_s += searched.wall_s
                scoring.cost_s += scored.wall_s
                self.steps.lap()
                if not waiting:  # it learns from whole batches
                    learn()
                searching.tell()
                scoring.tell()
                if not waiting:
                    self._replan(counts, judged, searching.cost_s + scoring.cost_s)
                    searching.total = scoring.total = counts["trials"]
                return int(counts["trials"])

            def unmet() -> None:
                if watch is not None:
                    watch.look(searching)
                    searching.tell()

            if not self.history:
                self._remark(too_few_to_learn(plan, counts["trials"], searcher.at_once()))
            try:
                searcher.run(counts["trials"], progress, unmet=unmet)
            except SpaceExhausted:
                learn()  # what it has come to may show why
                raise
            searching.done = scoring.done = searcher.judged()
            learn()  # of the last batch, too, if a kill came right after its scores
            # That there was time for more than planned, and nothing new for it, is no fault.
            self._remark(searcher.ended_early(min(planned, counts["trials"])))
            self._remark(unclimbed(plan, self.history))
            self._remark(largest_best(plan, self.history))
            judged = [t for t in self.history if t.state != "infeasible"]
            infeasible = len(self.history) - len(judged)
            learned = f", {searching.message}" if searching.message else ""
            searching.message = f"{len(judged)} within the limits, {infeasible} over{learned}"
            failed = sum(t.state == "failed" for t in judged)
            scoring.message = f"{len(judged) - failed} scored" + (
                f", {failed} failed" * bool(failed)
            )

    def _remark(self, said: str) -> None:
        if said:
            self.steps.note(said)

    def _replan(self, counts: dict[str, Any], judged: int, spent_s: float) -> None:
        """End a search that takes longer than its time, and let one go on that has some left."""
        planned, counts["trials"] = counts["trials"], replanned(counts, judged, spent_s)
        if counts["trials"] < planned:
            self.steps.note(
                f"{judged} of {planned} trials took {duration(spent_s)}, where the search has "
                f"{duration(counts['seconds'])}: proposing and measuring took the rest; it ends "
                "here, so that the finalists have their time"
            )
        if counts["trials"] != planned:
            self.study.put("search replanned", {"trials": counts["trials"]})

    def _search_counts(self) -> dict[str, Any]:
        plan = self.plan
        rungs = getattr(plan.strategy, "rungs", [(1, 1.0)])
        each_once = plan.space.size * len({share for _, share in rungs})
        most = min(plan.budget.trials or _MOST_TRIALS, each_once)
        if plan.budget.in_counts:
            trials = plan.budget.trials or _TRIALS_UNTOLD
            return self.study.plan("search", {"trials": min(most, trials)})
        # One that climbs takes each rung as if it were trained anew: not every estimator goes on.
        unit_s = self._estimate_seconds() * mean_share(rungs)
        behind_s, left_s = self._finalists_seconds(), self.left_s()
        try:
            count = count_for("search", "score", left_s, unit_s, most=most, behind_s=behind_s)
        except InvalidSetting as error:
            if not self.study.phase("train").counts["steps"]:
                raise
            # What was prepared is paid for; a score for each finalist makes use of it.
            count = min(most, plan.finalists.k)
            self.steps.note(f"{error}; {count} architectures are scored")
            return self.study.plan("search", {"trials": count})
        time_s = share_of("search", left_s, behind_s=behind_s)
        return self.study.plan("search", {"trials": count, "seconds": time_s, "most": most})

    def _finalists_seconds(self) -> float:
        try:
            dearest = self.aims.dearest(self.plan.space, self.measures, seed=self.plan.seed)
            return finalists_seconds(self.plan, dearest)
        except Exception as error:  # it may never be trained
            self.steps.note(f"the largest networks could not be timed: {reason(error)}")
            return math.inf

    def _estimate_seconds(self) -> float:
        """Return the seconds of one estimate, timed briefly, of those that raise nothing.

        Raises:
            Exception: all of them do; the first.
        """
        plan = self.plan
        told = getattr(plan.estimator, "estimate_seconds", None)
        if told is not None:
            return float(told(self.ctx))
        rng = derive(plan.seed, "timing")
        drawn = (plan.space.canonical(plan.space.sample(rng)) for _ in range(_TIMED_PATHS))
        proposals = [Proposal(point) for point in drawn]
        self._asked(proposals[:1])
        started = time.perf_counter()
        said = self._asked(proposals)
        errors = [answer for answer in said if isinstance(answer, Exception)]
        if len(errors) == len(said):
            raise errors[0]
        return (time.perf_counter() - started) / len(proposals)

    def _asked(self, proposals: Sequence[Proposal]) -> list[Told]:
        answers = each(self.plan.estimator, self.ctx, proposals)
        return [said for part in answers for said in part.values()]

    def left_s(self) -> float:
        """Return the seconds left of a budget in time."""
        assert self.plan.budget.seconds is not None
        return self.plan.budget.seconds - self.steps.spent_s()
