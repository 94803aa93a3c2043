"""The steps of an audit: train the truth, ask every estimator, judge; each goes on after a kill."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Context, Estimator, Executor, History, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, InvalidStudy
from assay.estimators.scratch import Scratch
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.report.audit import write_audit
from assay.run import names
from assay.run.plan import versions
from assay.run.preparing import prepare
from assay.run.steps import Step, Steps
from assay.space.space import Space
from assay.study.store import Study
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.trust.claims import CLAIMS
from assay.trust.stratify import stratified
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict

__all__ = ["BASELINES", "Audit", "AuditPlan", "Auditing", "baselines"]

BASELINES = ("params", "macs")
"""What needs no weights, and what an estimator must beat to be worth its price."""

_CANDIDATES = 20  # for each architecture of the sample
_FEWEST_CANDIDATES = 1000
_TRUTH_SHARE = 0.5
_BATCH = 10


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        table: One row for each estimator.
        verdict: What it means, in sentences.
        out: Folder of its study and its `report.html`.
    """

    table: Table
    verdict: Sequence[str]
    out: Path


@dataclass(frozen=True)
class AuditPlan:
    """The settled arguments of `audit`; see there."""

    space: Space
    task: Task
    recipe: Recipe
    estimators: Mapping[str, Estimator]
    num: int
    seeds: int
    budget: Budget
    out: Path
    seed: int
    truths: Mapping[Architecture, float] | None
    train_on: str
    executor: Executor
    origin: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return what makes the truths comparable; sample and estimators may grow."""
        return {
            "kind": "audit",
            "space": self.space.fingerprint,
            "task": self.task.fingerprint,
            "recipe": names.describe(self.recipe),
            "published": self.truths is not None,
            "seed": self.seed,
        }


class Auditing:
    """Takes an audit through its steps on a study."""

    def __init__(self, plan: AuditPlan, study: Study, steps: Steps) -> None:
        self.plan = plan
        self.study = study
        self.steps = steps
        plan.space.example = plan.task.example(1)
        self.ctx = Context(
            plan.space, plan.task, plan.recipe, plan.executor, plan.train_on, plan.seed,
            History(plan.space),
        )  # fmt: skip
        self.measures = Measures(plan.space, Device(), plan.space.example)

    def run(self) -> Audit:
        """Train truths, ask every estimator, judge, and write the report.

        Raises:
            InvalidStudy: fewer than two truths could be trained.
        """
        sample = self._sample()
        truths = self._truths(sample)
        kept = [a for a in sample if _key(a) in truths]
        if len(kept) < 2:
            raise InvalidStudy(
                f"{len(kept)} of {len(sample)} truths could be trained; see failures"
            )
        scores, costs = baselines(self.measures, {_key(a): a for a in kept})
        for i, (name, estimator) in enumerate(self.plan.estimators.items()):
            left = len(self.plan.estimators) - i
            scores[name], costs[name] = self._asked(name, estimator, kept, left)
        table = Table.make(
            truths, scores, costs, baselines=BASELINES, claims=CLAIMS,
            train_s=self._train_s(), seed=self.plan.seed,
        )  # fmt: skip
        refused = {n: self.study.get(f"refused {n}") for n in self.plan.estimators}
        said = verdict(table, refused={n: why for n, why in refused.items() if why})
        self.study.put("audit", {
            "table": table.to_json(), "verdict": list(said), "truths": truths, "scores": scores,
            "architectures": {_key(a): dict(a) for a in kept}, "versions": versions(),
            "task": self.plan.task.describe(), "space": repr(self.plan.space),
            "failures": refused,
            "epochs": self.study.phase("truth").counts.get("epochs"),
        })  # fmt: skip
        write_audit(self.study, self.plan.out / "report.html")
        return Audit(table, said, self.plan.out)

    # --- the truth ----------------------------------------------------------------------------

    def _sample(self) -> list[Architecture]:
        """Return the sample: of more, the first are the same."""
        plan, rng = self.plan, derive(self.plan.seed, "audit sample")
        if plan.truths is None:
            count = min(max(_FEWEST_CANDIDATES, _CANDIDATES * plan.num), 4 * plan.space.size)
            drawn = (plan.space.canonical(plan.space.sample(rng)) for _ in range(count))
            pool = list(dict.fromkeys(drawn))
            macs = [self.measures("macs", a) for a in pool]
            return [pool[i] for i in stratified(macs, min(plan.num, len(pool)), rng=rng)]
        pool = list(plan.truths)
        return [pool[int(i)] for i in rng.permutation(len(pool))[: plan.num]]

    def _truths(self, sample: Sequence[Architecture]) -> dict[str, list[float]]:
        if self.plan.truths is not None:
            return {_key(a): [self.plan.truths[a]] for a in sample}
        wanted = [(a, s) for s in range(self.plan.seeds) for a in sample]
        with self.steps.step("truth", len(wanted), title="train the truth") as step:
            epochs = self._epochs(len(wanted))
            self.ctx = replace(self.ctx, recipe=self.plan.recipe.with_(epochs=epochs))
            self._train(wanted, step)
            step.message = f"{len(sample)} architectures, epochs of each: {epochs}"
        found: dict[str, list[float]] = {}
        for a, s in wanted:
            known = self.study.get(_truth(a, s))
            if known["score"] is not None:
                found.setdefault(_key(a), []).append(known["score"])
        return found

    def _epochs(self, count: int) -> int:
        """Return the epochs of each training: all of the recipe, or what half the time allows."""
        known = self.study.phase("truth").counts
        if known:
            return int(known["epochs"])
        plan = self.plan
        epochs = plan.budget.epochs or plan.recipe.epochs
        if plan.budget.seconds is not None:
            epoch_s = Scratch().training_step_seconds(self.ctx) / plan.executor.at_once
            epoch_s *= plan.task.steps_per_epoch(plan.recipe.batch_size)
            paid = int(_TRUTH_SHARE * plan.budget.seconds / (count * epoch_s))
            if paid < 1:
                least_s = count * epoch_s / _TRUTH_SHARE
                raise InvalidSetting(
                    f"half of {plan.budget} pays for no epoch of each of {count} trainings; "
                    f"give a budget of at least {least_s:.0f}s, or fewer architectures or seeds"
                )
            epochs = min(epochs, paid)
        return int(self.study.plan("truth", {"epochs": epochs})["epochs"])

    def _train(self, wanted: Sequence[tuple[Architecture, int]], step: Step) -> None:
        """Train what has no truth yet, one after another or as many at once as the executor can."""
        left = [(a, s) for a, s in wanted if self.study.get(_truth(a, s)) is None]
        step.done = len(wanted) - len(left)
        step.tell()
        scratch = Scratch()
        recipe = self.ctx.recipe
        steps = recipe.epochs * self.plan.task.steps_per_epoch(recipe.batch_size)
        jobs = {
            id(job): (job, a, s)
            for a, s in left
            for job in [self.ctx.executor.submit(scratch.job(self.ctx, a, ("truth", s), steps))]
        }
        for job in self.ctx.executor.gather([job for job, _, _ in jobs.values()]):
            _, a, s = jobs[id(job)]
            try:
                trained = job.result()
                score, error = scratch.score_of(self.ctx, trained.figures), ""
                cost = trained.cost
            except (AssayError, RuntimeError, MemoryError) as failed:
                score, error, cost = None, str(failed), Cost()
                self.study.add_failure("truth", None, str(failed), traceback.format_exc())
            self.study.put(_truth(a, s), {"score": score, "seconds": cost.wall_s, "error": error})
            step.done += 1
            step.checkpoint(samples=cost.samples, device=self.plan.train_on)

    def _train_s(self) -> float | None:
        if self.plan.truths is not None:
            return None
        # The wall time of all over their number: where several are trained at once, that counts.
        trained = self.study.phase("truth").done
        return self.study.ledger()["truth"].wall_s / trained

    # --- the estimators -----------------------------------------------------------------------

    def _asked(
        self, name: str, estimator: Estimator, sample: Sequence[Architecture], left: int
    ) -> tuple[dict[str, float | None], Price]:
        """Return an estimator's scores and price; one that refuses has none, and says why."""
        try:
            prepare_s = self._prepared(name, estimator, len(sample), left)
            each_s = self._scored(name, estimator, sample)
        except AssayError as error:
            self.study.put(f"refused {name}", str(error))
            self.study.add_failure(f"audit {name}", None, str(error), traceback.format_exc())
            self.steps.note(f"{name}: {error}")
            return dict.fromkeys(map(_key, sample)), Price(0.0, 0.0)
        known = {_key(a): self.study.get(_score(name, a)) for a in sample}
        if any(told["score"] is not None for told in known.values()):
            self.study.put(f"refused {name}", None)
        return {key: told["score"] for key, told in known.items()}, Price(prepare_s, each_s)

    def _prepared(self, name: str, estimator: Estimator, num: int, left: int) -> float:
        with self.steps.step(f"prepare {name}", title=f"prepare {name}") as step:
            counts = self.study.phase(step.name).counts or self._counts(step, estimator, num, left)
            step.total = counts["steps"]
            prepare(
                estimator, self.ctx, step, counts["steps"], out=self.plan.out, name=_file(name)
            )  # fmt: skip
        return self.study.ledger()[step.name].wall_s

    def _counts(self, step: Step, estimator: Estimator, num: int, left: int) -> dict[str, Any]:
        """Return how long it prepares: an equal part of the time left, less what scoring takes."""
        plan = self.plan
        whole = self.ctx.recipe.epochs * plan.task.steps_per_epoch(plan.recipe.batch_size)
        steps = plan.budget.steps or whole
        if plan.budget.seconds is not None:
            step_s = estimator.step_seconds(self.ctx)
            told = getattr(estimator, "estimate_seconds", None)
            part_s = (plan.budget.seconds - self.steps.spent_s()) / left
            part_s -= 0.0 if told is None else num * told(self.ctx)
            steps = int(part_s / step_s) if step_s > 0 else 0
            steps = min(steps, plan.budget.steps or steps)
            if step_s > 0 and steps < 1:
                raise InvalidSetting(
                    f"{max(0.0, part_s):.3g} s of {plan.budget} are left to {step.name}, where one "
                    f"step takes {step_s:.3g} s; give a larger budget"
                )
        return self.study.plan(step.name, {"steps": steps})

    def _scored(self, name: str, estimator: Estimator, sample: Sequence[Architecture]) -> float:
        """Score what is not scored yet; return the seconds of one architecture, on average."""
        left = [a for a in sample if self.study.get(_score(name, a)) is None]
        with self.steps.step(f"score {name}", len(sample), title=f"score by {name}") as step:
            step.done = len(sample) - len(left)
            for start in range(0, len(left), _BATCH):
                batch = left[start : start + _BATCH]
                started = time.perf_counter()
                told = list(self._estimates(name, estimator, batch))
                each_s = (time.perf_counter() - started) / len(batch)
                for a, score in zip(batch, told):
                    self.study.put(_score(name, a), {"score": score, "seconds": each_s})
                step.done += len(batch)
                step.checkpoint(device=self.plan.train_on)
        return float(np.mean([self.study.get(_score(name, a))["seconds"] for a in sample]))

    def _estimates(
        self, name: str, estimator: Estimator, batch: Sequence[Architecture]
    ) -> Iterator[float | None]:
        """Yield a score for each, None where it failed; one that raises takes no other with it."""
        try:
            told = estimator.estimate(self.ctx, [Proposal(a) for a in batch])
            yield from (e.score if np.isfinite(e.score) else None for e in told)
        except (AssayError, RuntimeError, MemoryError) as error:
            if len(batch) == 1:
                self.study.put(f"refused {name}", str(error))
                self.study.add_failure(f"audit {name}", None, str(error), traceback.format_exc())
                yield None
                return
            for a in batch:
                yield from self._estimates(name, estimator, [a])


def baselines(
    measures: Measures, points: Mapping[str, Architecture]
) -> tuple[dict[str, dict[str, float | None]], dict[str, Price]]:
    """Return the scores and prices of the baselines, the time of counting measured.

    Args:
        measures: Of the space.
        points: Key -> architecture.
    """
    scores: dict[str, dict[str, float | None]] = {}
    costs = {}
    for name in BASELINES:
        started = time.perf_counter()
        scores[name] = {key: measures(name, a) for key, a in points.items()}
        costs[name] = Price(0.0, (time.perf_counter() - started) / len(points))
    return scores, costs


def _key(architecture: Architecture) -> str:
    return hashlib.blake2b(architecture.to_json().encode(), digest_size=8).hexdigest()


def _truth(architecture: Architecture, seed: int) -> str:
    return f"truth {_key(architecture)} {seed}"


def _score(name: str, architecture: Architecture) -> str:
    return f"score {name} {_key(architecture)}"


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
