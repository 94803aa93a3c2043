"""Rows of a study's tables, to and from what they stand for."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost

__all__ = ["cost_row", "estimate_row", "trial_of", "trial_row"]


def cost_row(session: int | None, phase: str, cost: Cost, kind: str = "work") -> dict[str, Any]:
    """Return the row of a cost.

    Args:
        session: Number of the run that spent it.
        phase: Step it is booked to.
        cost: What was spent.
        kind: "work" or "lost".
    """
    return {"session": session or 0, "phase": phase, "kind": kind, **cost.to_dict()}


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return the row of a trial."""
    return {
        "number": trial.number,
        "architecture": trial.architecture.to_json(),
        "state": trial.state,
        "parent": trial.parent,
        "fidelity": trial.fidelity,
        "measured": json.dumps(dict(trial.measured)),
        "objectives": json.dumps(list(trial.objectives)),
        "violation": trial.violation,
        "error": trial.error,
    }


def estimate_row(trial: Trial) -> dict[str, Any]:
    """Return the row of a scored trial's estimate."""
    estimate = trial.estimate
    assert estimate is not None
    return {
        "trial": trial.number,
        "score": estimate.score,
        "metrics": json.dumps(dict(estimate.metrics)),
        "cost": json.dumps(estimate.cost.to_dict()),
        "made_from": json.dumps(dict(estimate.made_from)),
    }


def trial_of(row: Row[Any]) -> Trial:
    """Return the trial of a row of trials joined with estimates."""
    estimate = None
    if row.score is not None:
        estimate = Estimate(
            row.score, json.loads(row.metrics), Cost(**json.loads(row.cost)),
            json.loads(row.made_from),
        )  # fmt: skip
    return Trial(
        number=row.number,
        architecture=Architecture.from_json(row.architecture),
        state=row.state,
        estimate=estimate,
        measured=json.loads(row.measured),
        objectives=tuple(json.loads(row.objectives)),
        violation=row.violation,
        parent=row.parent,
        fidelity=row.fidelity,
        error=row.error,
    )
