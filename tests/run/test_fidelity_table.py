"""The table of a finished search: what its scores cost, rungs and parallel trainings included."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from assay.cost import Cost
from assay.executors.inline import Inline
from assay.run.fidelity import fidelity
from assay.study.store import Study
from assay.testing import FakeEstimator
from assay.trust.claims import CLAIMS
from tests.run.test_fidelity import halving, no_files, search
from tests.run.test_fidelity_failures import outcomes

__all__ = ["no_files", "outcomes"]  # fixtures


@dataclass
class Climbing(FakeEstimator):
    """Trains nothing, and says that a rung took what it adds to the one below."""

    heeds_fidelity: ClassVar[bool] = True
    told_s: float = 1.0

    def __post_init__(self):
        super().__init__(len)

    def estimate(self, ctx, proposals):
        return [self._at(ctx, p) for p in proposals]

    def _at(self, ctx, proposal):
        ninths = round(9 * proposal.fidelity)
        cost = Cost(self.told_s * {1: 1, 3: 2, 9: 6}[ninths], 32, 320, "cpu")
        return replace(self._estimate(ctx, proposal.architecture), cost=cost)


def climb(out, estimator):
    """Search by rungs of 18, 6 and 2 architectures."""
    settings = {"strategy": {"num": 18, "eta": 3, "depth": 2}}
    budget = "steps=1,trials=26"
    return halving(out, estimator=estimator, settings=settings, budget=budget)


def told(result, outcomes, name):
    """Return the row of the estimator, and the seconds of all scoring."""
    outcomes.append(0.5)  # the finalist's truth is its own training
    found = result.fidelity(num=4)
    assert found.table.num == 2
    with Study.read(result.out) as study:
        score_s = study.ledger()["score"].wall_s
    return next(row for row in found.table.rows if row.estimator == name), score_s


@pytest.mark.parametrize(
    ("told_s", "share"),
    # Of 18 x 1, 6 x 2 and 2 x 6 a judged architecture took 1 + 2 + 6; where nothing is told, it
    # has 3 of 26 estimates.
    [(1.0, 9 / 42), (0.0, 3 / 26)],
)
def test_a_score_costs_what_all_rungs_of_its_architecture_took(tmp_path, outcomes, told_s, share):
    row, score_s = told(climb(tmp_path / "out", Climbing(told_s)), outcomes, "Climbing")
    assert row.each_s == pytest.approx(share * score_s)
    assert row.claim == ""


def test_what_was_published_stands_beside_it(tmp_path, outcomes):
    result = search(tmp_path / "out", strategy="random", budget="steps=1,trials=2")
    row, _ = told(result, outcomes, "LowFidelity")
    assert row.claim == CLAIMS["low-fidelity"]


class ThreeAtOnce(Inline):
    """Runs what is gathered together, as if at once."""

    together: ClassVar[list[int]] = []

    @property
    def at_once(self):
        return 3

    def gather(self, jobs):
        self.together.append(len(jobs))
        return super().gather(jobs)


def test_truths_are_trained_together_and_share_their_seconds(tmp_path, outcomes, monkeypatch):
    result = search(tmp_path / "out", strategy="random", budget="steps=1,trials=6")
    plan = replace(result._plan, executor=ThreeAtOnce())
    outcomes += [0.5, ArithmeticError("diverged"), 0.7, 0.6]
    with Study.read(result.out) as study:
        before_s = study.ledger().get("fidelity", Cost()).wall_s
    fidelity(plan, result.trials(), num=4)
    assert ThreeAtOnce.together[0] == 4  # the finalist's truth is its own training
    with Study.read(result.out) as study:
        spent_s = study.ledger()["fidelity"].wall_s - before_s
    assert spent_s == pytest.approx(3 * 1e-3 / 3)
