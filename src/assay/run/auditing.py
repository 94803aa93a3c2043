"""The steps of an audit: train the truth, ask every estimator, judge; each goes on after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from assay.architecture import Architecture
from assay.contracts import Context, History
from assay.cost import Cost
from assay.errors import InvalidStudy
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.run.asking import Asking
from assay.run.audit_plan import AuditPlan, key_of
from assay.run.plan import versions
from assay.run.refusals import uncounted
from assay.run.steps import Steps
from assay.run.tabling import kept_table
from assay.run.truths import Truths
from assay.study.store import Study
from assay.trust.claims import CLAIMS
from assay.trust.gain import Gain, gains
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict

__all__ = ["BASELINES", "Audit", "Auditing", "baselines"]

BASELINES = ("params", "macs")
"""What needs no weights, and what an estimator must beat to be worth its price."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        table: One row for each estimator.
        verdict: What it means, in sentences.
        out: Folder of its study and its `report.html`.
        gains: What a search by each estimator would hand back, against training at random; empty
            where truths are of one training each, or were not trained here.
    """

    table: Table
    verdict: Sequence[str]
    out: Path
    gains: Sequence[Gain] = ()


class Auditing:
    """Takes an audit through its steps on a study."""

    def __init__(self, plan: AuditPlan, study: Study, steps: Steps) -> None:
        self.plan = plan
        self.study = study
        self.steps = steps
        plan.task.close_test()
        self.ctx = Context(
            plan.space, plan.task, plan.recipe, plan.executor, plan.train_on, plan.seed,
            History(plan.space),
        )  # fmt: skip
        self.truths = Truths(plan, study, steps)

    def settle(self) -> list[Architecture]:
        """Draw the sample, and settle or refuse its trainings before the first of them.

        Raises:
            InvalidSetting: the budget pays for no epoch of each, or not for so many more.
            SpaceExhausted: nothing that was drawn holds the limits.
            InvalidStudy: it asks for other epochs than the truths there have.
        """
        self.truths.check()
        sample = self.truths.sample(self._limiting())
        self._book("sample")
        self.truths.settle(self.ctx, sample)
        return sample

    def run(self, sample: Sequence[Architecture]) -> Audit:
        """Train truths, ask every estimator, and judge.

        Args:
            sample: As settled.
        Raises:
            InvalidStudy: fewer than two truths could be trained.
        """
        truths = self.truths.train(self.ctx, sample)
        kept = [a for a in sample if key_of(a) in truths]
        if len(kept) < 2:
            raise InvalidStudy(
                f"{len(kept)} of {len(sample)} truths could be trained; see the failures in "
                f"{self.plan.out}: assay report {self.plan.out}"
            )
        if missing := uncounted(self.plan.space, self._measures()):
            self.steps.note(missing)
        scores, costs = baselines(self._measures(), {key_of(a): a for a in kept})
        self._book("baselines")
        asking = Asking(self.plan, self.truths.context(self.ctx), self.study, self.steps, kept)
        asked = asking.run()
        for name, said in asked.items():
            scores[name], costs[name] = dict(said.scores), said.price
        seconds, seed = self.truths.seconds(kept), self.plan.seed
        train_s = None if seconds is None else fmean(seconds.values())
        table = Table.make(
            truths, scores, costs, baselines=BASELINES, claims=CLAIMS, train_s=train_s, seed=seed
        )
        refused = {name: said.refused for name, said in asked.items()}
        why = {name: reason for name, reason in refused.items() if reason}
        spoke = {name: said for name, said in scores.items() if name not in why}
        gained = gains(truths, spoke, costs, seconds=seconds, seed=seed)
        found = verdict(table, refused=why, gained=gained)
        self.study.put("audit", {
            "table": table.to_json(), "verdict": list(found), "truths": truths, "scores": scores,
            "gains": [asdict(gain) for gain in gained],
            "architectures": {key_of(a): dict(a) for a in kept}, "versions": versions(),
            "task": self.plan.task.describe(), "space": repr(self.plan.space),
            "failures": {name: why or None for name, why in refused.items()},
            "failed": {name: dict(said.failed) for name, said in asked.items() if said.failed},
            "settings": asking.settings(), "asked": self.study.get("asked"),
            "epochs": self.truths.epochs,
            "limits": self.truths.limits,
        })  # fmt: skip
        return Audit(table, found, self.plan.out, gained)

    def _limiting(self) -> Measures:
        """Return measures by a latency table, where latency is limited; it lies in the folder."""
        plan = self.plan
        if "latency_ms" not in plan.limits:
            return self._measures()
        path, example = plan.out / "table.json", plan.task.example(plan.target.batch)
        with self.steps.step("measure", title="measure the hardware") as step:
            table = kept_table(
                step, plan.space, plan.target, example, path=path, given=plan.table, seed=plan.seed
            )
            step.done = 0  # a table alone is no work that a refusal would leave
        return Measures(plan.space, plan.target, example, table)

    def _measures(self) -> Measures:
        """Return measures that remember nothing yet: what they take is timed."""
        return Measures(self.plan.space, Device(), self.plan.space.example)

    def _book(self, name: str) -> None:
        """Book the time since the last booking to what it was spent on."""
        self.study.book(name, Cost(self.steps.lap()))


def baselines(
    measures: Measures, points: Mapping[str, Architecture]
) -> tuple[dict[str, dict[str, float | None]], dict[str, Price]]:
    """Return the scores and prices of the baselines, the time of counting measured.

    Args:
        measures: Of the space; new ones, since what they remember takes no time.
        points: Key -> architecture.
    """
    scores: dict[str, dict[str, float | None]] = {}
    costs = {}
    for name in BASELINES:
        started = time.perf_counter()
        scores[name] = {key: measures(name, a) for key, a in points.items()}
        costs[name] = Price(0.0, (time.perf_counter() - started) / len(points))
    return scores, costs
