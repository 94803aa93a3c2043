"""The result of a study on the screen."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from assay.cli.asked import how_to_continue
from assay.report.tables import is_tested, network_names
from assay.report.units import in_full
from assay.study.store import Study

__all__ = ["print_result", "summary"]


def summary(out: Path) -> dict[str, Any]:
    """Return what a study knows, as JSON values.

    Args:
        out: Folder of the study.
    Raises:
        InvalidStudy: it holds none.
    """
    with Study.read(out) as study:
        ledger = {step: round(cost.wall_s, 3) for step, cost in study.ledger().items()}
        states = [trial.state for trial in study.trials()]
        return {
            "out": str(out),
            "winner": study.get("winner"),
            "comparison": study.get("comparison") or [],
            "limits": study.get("limits") or {},
            "validation": _without_pairs(study.get("validation")),
            "saving": study.get("saving"),
            "handover": study.get("handover"),
            "trials": {state: states.count(state) for state in sorted(set(states))},
            "failures": len(study.failures()),
            "cost_s": ledger,
        }


def _without_pairs(validation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if validation is None else {k: v for k, v in validation.items() if k != "pairs"}


def print_result(out: Path, *, json: bool = False) -> None:
    """Print the result of a study: a table for a person or one line of JSON.

    Args:
        out: Folder of the study.
        json: Print JSON.
    """
    found = summary(Path(out))
    if json:
        print(_json.dumps({"kind": "result", **found}))
        return
    console = Console()
    if found["winner"] is None:
        _print_unfinished(console, found)
        return
    console.print(_comparison(found["comparison"], found["limits"]))
    _print_facts(console, found, Path(out))


def _comparison(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Table:
    table = Table(title="The winner beside networks of the same space, trained alike")
    table.add_column("network")
    tested = is_tested(name for row in rows for name in row["metrics"])
    split, said = ("test", "test") if tested else ("valid", "validation")
    columns = {
        f"{split}_accuracy": (f"{said} accuracy", "{:.4f}"),
        f"{split}_loss": (f"{said} loss", "{:.4f}"),
        "latency_ms": ("latency ms", "{:.4f}"), "macs": ("MACs", "{:,.0f}"),
        "params": ("parameters", "{:,.0f}"),
    }  # fmt: skip
    shown = {k: v for k, v in columns.items() if any(k in row["metrics"] for row in rows)}
    for title, _ in shown.values():
        table.add_column(title, justify="right")
    for row, name in zip(rows, network_names(rows, limits)):
        cells = [form.format(row["metrics"][key]) for key, (_, form) in shown.items()]
        table.add_row(name, *cells, style="bold" if row["name"] == "winner" else "")
    return table


def _print_facts(console: Console, found: Mapping[str, Any], out: Path) -> None:
    limits = ", ".join(f"{name} <= {in_full(value)}" for name, value in found["limits"].items())
    spent = sum(found["cost_s"].values())
    console.print(f"limits       {limits or 'none'}", highlight=False)
    validation = found["validation"]
    if validation:
        console.print(
            f"latency      table against {_unseen(validation)} whole networks: "
            f"tau {_tau(validation)}, {validation['within_10']:.0%} within 10 %",
            highlight=False,
        )
    if found["saving"]:
        said = f"cost         {spent:.1f} s; {found['saving']['formula']}"
        console.print(said, highlight=False, soft_wrap=True)
    gap = (found["handover"] or {}).get("onnx_max_difference")
    if gap is not None:
        console.print(f"model.onnx   largest difference from torch {gap:.2g}", highlight=False)
    for name, reason in ((found["handover"] or {}).get("refused") or {}).items():
        console.print(f"no {name}: {reason}", highlight=False, markup=False)
    for name, path in (("network", out / "best"), ("report", out / "report.html")):
        console.print(f"{name:12} {path}", highlight=False, markup=False, soft_wrap=True)


def _tau(validation: Mapping[str, Any]) -> str:
    return "undefined" if validation["tau"] is None else f"{validation['tau']:.3f}"


def _unseen(validation: Mapping[str, Any]) -> str:
    return str(validation.get("networks", "unseen"))


def _print_unfinished(console: Console, found: Mapping[str, Any]) -> None:
    states = ", ".join(f"{n} {state}" for state, n in found["trials"].items()) or "no trial yet"
    unfinished = f"{found['out']} has not finished: {states}"
    console.print(unfinished, highlight=False, markup=False, soft_wrap=True)
    for step, seconds in found["cost_s"].items():
        console.print(f"  {step:12} {seconds:.1f} s", highlight=False)
    further = how_to_continue(Path(found["out"]))
    console.print(further, highlight=False, markup=False, soft_wrap=True)
