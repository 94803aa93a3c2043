"""The end of a search: finalists, the one look at the test split, the files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from assay.architecture import Architecture
from assay.errors import InvalidSetting, NotFinite
from assay.handover.export import hand_over
from assay.run.finalists import Selection
from assay.run.limits import quantity_name
from assay.run.remarks import slow_file
from assay.run.trainings import Final
from assay.run.workflow import Workflow
from assay.train.task import Split, evaluate

__all__ = ["finish"]

_MEASURED = ("macs", "params", "model_bytes", "memory_bytes")


def finish(workflow: Workflow) -> None:
    """Train the finalists, test the winner once, write `best/`."""
    plan, study = workflow.plan, workflow.study
    with workflow.steps.step("finalists") as step:
        if study.get("winner") is None:
            selection = Selection(workflow)
            winner, network = selection.run(step)
            test = plan.task.open_test()
            metrics = _metrics(workflow, selection, winner, network, test)
            compared = [{"name": "winner", "architecture": dict(winner.architecture),
                         "metrics": metrics}]  # fmt: skip
            for final, other in selection.compared():
                figures = _metrics(workflow, selection, final, other, test)
                compared.append({"name": final.name, "architecture": dict(final.architecture),
                                 "metrics": figures})  # fmt: skip
            files = hand_over(
                network.cpu(), plan.task.example(max(4, plan.target.batch)), plan.out / "best",
                architecture=winner.architecture, metrics=metrics,
                settings={**plan.identity(), **plan.settings()},
                source=bool((plan.origin or {}).get("space")), target=plan.target,
            )  # fmt: skip
            if said := slow_file(workflow.aims.limits, metrics, files):
                workflow.steps.note(said)
            step.checkpoint(device=plan.train_on)
            study.put("comparison", compared)
            study.put("handover", files.to_dict())
            study.put("saving", _saving(workflow, selection))
            study.put("winner", {
                "trial": winner.trial, "architecture": dict(winner.architecture),
                "metrics": metrics | files.figures,
                "blocks": _blocks(workflow, winner.architecture),
            })  # fmt: skip
        won = study.get("winner")
        step.message = f"the winner is trial {won['trial']}"
        step.data = won["metrics"]


def _metrics(
    workflow: Workflow, selection: Selection, final: Final, network: nn.Module, test: Split
) -> dict[str, float]:
    """Test a trained network and say what it costs to run, whole and by the table."""
    task, point = workflow.plan.task, final.architecture
    figures: dict[str, float] = {}
    if task.has_test:
        batches = test.batches(selection.recipe.evaluation_batch, device=workflow.plan.train_on)
        figures = {f"test_{k}": v for k, v in evaluate(network, batches, task).items()}
    figures |= {f"valid_{k}": v for k, v in selection.trained.results[final.key].items()}
    figures["latency_ms"] = selection.whole_latency(point, final.trial)
    figures["latency_table_ms"] = float(workflow.measures("latency_ms", point))
    figures |= {name: float(workflow.measures(name, point)) for name in _MEASURED}
    return figures | _asked(workflow, point)


def _asked(workflow: Workflow, architecture: Architecture) -> dict[str, float]:
    """Return what a user's functions say, as far as they can tell of this one."""
    aims, measures = workflow.aims, workflow.measures
    figures: dict[str, float] = {}
    for quantity in (q for q in aims.quantities if callable(q)):
        with contextlib.suppress(InvalidSetting, NotFinite):  # as in the search: it holds nothing
            figures[quantity_name(quantity)] = float(measures(quantity, architecture))
    return figures


def _saving(workflow: Workflow, selection: Selection) -> dict[str, Any]:
    """Say what finding the winner cost, and what training every candidate would have cost.

    Both are of this machine: the price of one training is what the finalists' own took.
    """
    ledger = workflow.study.ledger()
    scored = len({t.architecture for t in workflow.history if t.state == "scored"})  # once a rung
    each_s = selection.seconds_each()
    spent_s = sum(cost.wall_s for cost in ledger.values())
    return {
        "spent_s": spent_s,
        "scored": scored,
        "training_s": each_s,
        "train_each_s": scored * each_s,
        "ratio": scored * each_s / spent_s if spent_s else 0.0,
        "formula": (
            f"{scored} scored architecture{'s' * (scored != 1)} x {each_s:.3g} s (mean of the "
            f"finalists' own trainings on this machine) = {scored * each_s:.4g} s, against "
            f"{spent_s:.4g} s for all six steps"
        ),
    }


def _blocks(workflow: Workflow, architecture: Architecture) -> list[Mapping[str, Any]]:
    """Return the winner's units in order, for the drawing in the report."""
    return [dict(block) for block in workflow.table.blocks(architecture)]
