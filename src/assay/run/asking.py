"""Asking every estimator of an audit about its sample: each prepares, and each scores all of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Estimator, Proposal
from assay.cost import Cost
from assay.errors import InvalidSetting, Unwritable, reason
from assay.estimators.each import Diverged, Told, each
from assay.run import names
from assay.run.audit_plan import AuditPlan, key_of
from assay.run.failing import may_pass
from assay.run.parts import Needs, equal_parts
from assay.run.preparing import prepare
from assay.run.rows import Rows
from assay.run.steps import Steps
from assay.study.store import Study
from assay.trust.table import Price

__all__ = ["Asked", "Asking"]

_BATCH = 10


@dataclass(frozen=True)
class Asked:
    """What one estimator said.

    Attributes:
        scores: Key of an architecture -> score, None where it failed.
        price: What it took; what was spent on it if it refused.
        refused: Why it scored nothing, "" if it scored something.
        failed: Key of an architecture -> why it failed there, of one that scored others.
    """

    scores: Mapping[str, float | None]
    price: Price
    refused: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)


class Asking:
    """Times, prepares and asks the estimators of an audit, one after another.

    Args:
        plan: Of the audit.
        ctx: What an estimator may use; there is no truth in it.
        study: Keeps every score under its row and architecture.
        steps: Of the run.
        sample: Architectures to score.
    """

    def __init__(
        self, plan: AuditPlan, ctx: Context, study: Study, steps: Steps,
        sample: Sequence[Architecture],
    ) -> None:  # fmt: skip
        self.plan = plan
        self.ctx = ctx
        self.study = study
        self.steps = steps
        self.sample = sample
        self.rows = Rows(study)
        self._row_of: dict[str, str] = {}
        self._estimators: dict[str, Estimator] = {}
        self._untimed: dict[str, Exception] = {}
        self._passing: dict[str, str] = {}

    def run(self) -> dict[str, Asked]:
        """Return what each estimator says, by the name of its row.

        An error of an estimator counts against it and stops no other.
        """
        for name, estimator in self.plan.estimators.items():
            row, changed = self.rows.find(name, names.describe(estimator), self.plan.budget)
            self._row_of[name], self._estimators[row] = row, estimator
            if changed:
                self.steps.note(
                    f"{name} is set otherwise than before ({changed}): it is prepared and scored "
                    "anew"
                )
        self._plan()
        return {name: self._ask(row) for name, row in self._row_of.items()}

    def settings(self) -> dict[str, Any]:
        """Return what each row was set to, by its name."""
        return {name: dict(self.rows[row].settings) for name, row in self._row_of.items()}

    # --- how long each may prepare --------------------------------------------------------------

    def _plan(self) -> None:
        """Write the steps of each preparation, before the first; what is written there stays."""
        asked, question = list(self._row_of.values()), self._question()
        other = [r for r in asked if self.rows[r].why and self.rows[r].question != question]
        self.rows.change({row: {"steps": None, "why": ""} for row in other})
        new = [r for r in asked if self.rows[r].steps is None and not self.rows[r].why]
        if not new:
            return
        budget, recipe = self.plan.budget, self.ctx.recipe
        if budget.seconds is None:
            whole = recipe.epochs * self.plan.task.steps_per_epoch(recipe.batch_size)
            self.rows.change({row: {"steps": budget.steps or whole} for row in new})
            return
        with self.steps.step("plan", len(new), title="time the estimators") as step:
            needs: dict[str, Needs] = {}
            for done, row in enumerate(new, start=1):
                self._time(row, needs)
                step.done = done
                step.tell()
            parts = equal_parts(budget.seconds - self.steps.spent_s() - self._owed_s(), needs)
            self.rows.change({
                row: {"question": question, **self._planned(row, need, parts.get(row))}
                for row, need in needs.items()
            })  # fmt: skip

    def _question(self) -> dict[str, Any]:
        """Return what a refusal for want of a budget answers."""
        rows = sorted(self._row_of.values())
        return {"budget": str(self.plan.budget), "num": len(self.sample), "rows": rows}

    def _time(self, row: str, needs: dict[str, Needs]) -> None:
        estimator = self._estimators[row]
        told = getattr(estimator, "estimate_seconds", None)
        try:
            step_s = estimator.step_seconds(self.ctx)
            each_s = 0.0 if told is None else told(self.ctx)
            if not (0 <= step_s < np.inf and 0 <= each_s < np.inf):
                raise InvalidSetting(
                    f"a step of {step_s} s and an estimate of {each_s} s were stated; seconds are "
                    "finite and not negative"
                )
            needs[row] = Needs(step_s, each_s, len(self._left(row)))
        except Exception as error:  # raised again where it is asked, and counted against it there
            self._untimed[row] = error

    def _owed_s(self) -> float:
        """Return the seconds that are set aside for rows planned before."""
        owed_s, ledger = 0.0, self.study.ledger()
        for row in self._row_of.values():
            entry, name = self.rows[row], _preparing(row)
            if entry.steps is None:
                continue
            owed_s += entry.each_s * len(self._left(row))
            if self.study.phase(name).state != "done":
                owed_s += max(0.0, entry.part_s - ledger.get(name, Cost()).wall_s)
        return owed_s

    def _planned(self, row: str, need: Needs, part_s: float | None) -> dict[str, Any]:
        """Return how many steps a part pays for, or why it is refused."""
        budget = self.plan.budget
        if part_s is None:
            return {
                "why": f"scoring {need.num} architectures takes {need.score_s:.3g} s, which "
                f"{budget} does not leave beside the scoring of the others; give a larger budget, "
                "or leave it out"
            }
        setup = getattr(self._estimators[row], "setup_seconds", None)
        if setup is not None and need.step_s > 0:
            try:
                part_s -= setup(self.ctx, int(part_s / need.step_s))
            except Exception as error:  # raised again where it is asked, as of a step
                self._untimed[row] = error
                return {}
        steps = int(max(0.0, part_s) / need.step_s) if need.step_s > 0 else 0
        if need.step_s > 0 and steps < 1:
            return {
                "why": f"{part_s:.3g} s of {budget} are left to {_preparing(row)}, where one step "
                f"takes {need.step_s:.3g} s; give a larger budget"
            }
        steps = min(steps, budget.steps or steps)
        return {"steps": steps, "part_s": part_s, "each_s": need.each_s}

    # --- one row --------------------------------------------------------------------------------

    def _ask(self, row: str) -> Asked:
        if self._left(row) or self.study.phase(_preparing(row)).state != "done":
            try:
                self._prepare(row)
            except Unwritable:  # no fault of the estimator's, and it would meet the next one, too
                raise
            except Exception as error:
                return self._refused(row, error)
            self._score(row)
        return self._said(row)

    def _refused(self, row: str, error: Exception) -> Asked:
        """Keep why an estimator scores nothing; with a larger budget it is planned anew."""
        name, why = self.rows[row].name, reason(error)
        begun = self.study.phase(_preparing(row)).checkpoint.get("file")
        if not begun and row not in self._untimed:  # what could not be timed is timed again
            self.rows.change({row: {"why": why, "question": self._question()}})
        self.study.add_failure(f"audit {name}", None, why, _trace(error))
        self.steps.note(f"{name}: {why}")
        return Asked(dict.fromkeys(map(key_of, self.sample)), self._price(row, 0.0), why)

    def _prepare(self, row: str) -> None:
        if row in self._untimed:
            raise self._untimed[row]
        entry, estimator = self.rows[row], self._estimators[row]
        if entry.steps is None:
            raise InvalidSetting(entry.why)
        with self.steps.step(_preparing(row), entry.steps, title=_preparing(row)) as step:
            try:
                prepare(
                    estimator, self.ctx, step, entry.steps, out=self.plan.out,
                    name=quote(row, safe=""),
                )  # fmt: skip
            except Exception:
                step.checkpoint(device=self.ctx.device)  # what it took is booked to no other
                raise
        self.rows.change({row: {"why": "", "counted": bool(estimator.state_dict())}})

    def _price(self, row: str, each_s: float) -> Price:
        prepare_s = self.study.ledger().get(_preparing(row), Cost()).wall_s
        kind = names.name_of(names.ESTIMATORS, self._estimators[row])
        return Price(prepare_s, each_s, kind)

    def _left(self, row: str) -> list[Architecture]:
        return [a for a in self.sample if self.study.get(_score(row, a)) is None]

    def _score(self, row: str) -> None:
        """Score what is not scored yet."""
        left = self._left(row)
        with self.steps.step(f"score {row}", len(self.sample), title=f"score by {row}") as step:
            step.done = len(self.sample) - len(left)
            started = time.perf_counter()
            for told in self._told(row, left):
                each_s = (time.perf_counter() - started) / len(told)
                for a, said in told:
                    self._keep(row, a, said, each_s)
                costs = [said.cost for _, said in told if isinstance(said, Estimate | Diverged)]
                step.done += len(told)
                step.checkpoint(
                    samples=sum(c.samples for c in costs), macs=sum(c.macs for c in costs),
                    device=self.ctx.device,
                )  # fmt: skip
                started = time.perf_counter()

    def _told(
        self, row: str, points: Sequence[Architecture]
    ) -> Iterator[list[tuple[Architecture, Told]]]:
        """Yield what an estimator says as it says it; who says all at once is asked for a few."""
        estimator = self._estimators[row]
        size = max(1, len(points)) if hasattr(estimator, "estimate_each") else _BATCH
        for start in range(0, len(points), size):
            batch = points[start : start + size]
            for told in each(estimator, self.ctx, [Proposal(a) for a in batch]):
                yield [(batch[index], said) for index, said in told.items()]

    def _keep(self, row: str, a: Architecture, estimate: Told, each_s: float) -> None:
        """Keep a score, or name the architecture that has none."""
        key = _score(row, a)
        if isinstance(estimate, Estimate):
            self.study.put(key, {"score": float(estimate.score), "seconds": each_s, "error": ""})
            return
        why = reason(estimate)
        self.study.add_failure(
            f"audit {self.rows[row].name}", None, f"{a.to_json()}: {why}", _trace(estimate)
        )
        if may_pass(estimate):
            self._passing[key] = why
        else:
            self.study.put(key, {"score": None, "seconds": each_s, "error": why})

    def _said(self, row: str) -> Asked:
        scores: dict[str, float | None] = {}
        failed, seconds = {}, []
        for a in self.sample:
            key = _score(row, a)
            known = self.study.get(key)
            if known is None:
                known = {"score": None, "seconds": 0.0, "error": self._passing[key]}
            scores[key_of(a)] = known["score"]
            seconds.append(known["seconds"])
            if known["score"] is None:
                failed[key_of(a)] = known["error"]
        price = self._price(row, float(np.mean(seconds)))
        if len(failed) == len(self.sample):
            return Asked(scores, price, next(iter(failed.values())))
        return Asked(scores, price, "", failed)


def _preparing(row: str) -> str:
    return f"prepare {row}"


def _score(row: str, architecture: Architecture) -> str:
    return f"score {row} {key_of(architecture)}"


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
