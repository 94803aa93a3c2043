"""Rows of a study's tables, to and from what they stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost

__all__ = ["cost_row", "estimate_row", "failure_rows", "to_json", "trial_of", "trial_row"]

_MOST = 2**63 - 1  # that a column holds


def to_json(value: Any) -> str:
    """Write a value as JSON; numbers of numpy and the like become plain ones.

    Raises:
        TypeError: something in it is neither JSON nor a number.
    """
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be kept as JSON")


def cost_row(session: int | None, phase: str, cost: Cost, kind: str = "work") -> dict[str, Any]:
    """Return the row of a cost; a count that no column holds becomes the largest that one does.

    Args:
        session: Number of the run that spent it.
        phase: Step it is booked to.
        cost: What was spent.
        kind: "work" or "lost".
    """
    counts = {"samples": min(cost.samples, _MOST), "macs": min(cost.macs, _MOST)}
    return {"session": session or 0, "phase": phase, "kind": kind, **cost.to_dict(), **counts}


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return the row of a trial."""
    return {
        "number": trial.number,
        "architecture": trial.architecture.to_json(),
        "state": trial.state,
        "parent": trial.parent,
        "fidelity": trial.fidelity,
        "measured": to_json(dict(trial.measured)),
        "objectives": to_json(list(trial.objectives)),
        "violation": float(trial.violation),
        "error": trial.error,
    }


def estimate_row(trial: Trial) -> dict[str, Any]:
    """Return the row of a scored trial's estimate."""
    estimate = trial.estimate
    assert estimate is not None
    return {
        "trial": trial.number,
        "score": float(estimate.score),
        "metrics": to_json(dict(estimate.metrics)),
        "cost": to_json(estimate.cost.to_dict()),
        "made_from": to_json(dict(estimate.made_from)),
    }


def failure_rows(phase: str, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the rows of what went wrong with the failed ones among trials.

    Args:
        phase: Step in which they failed.
        trials: In any state.
    """
    return [
        {"phase": phase, "trial": t.number, "error": _last_line(t.error), "traceback": t.error}
        for t in trials
        if t.error is not None
    ]


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "unknown error"


def trial_of(row: Row[Any]) -> Trial:
    """Return the trial of a row of trials joined with estimates."""
    estimate = None
    if row.state == "scored":
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
