"""What an audit found, on the screen."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from assay.cli.asked import how_to_continue
from assay.report.audit import behind
from assay.report.audit_tables import CEILINGS
from assay.report.units import amount, duration, in_full
from assay.study.store import Study

__all__ = ["is_audit", "print_audit"]

_SHOWN = (("tau", "tau"), ("tau_top", "top half"), ("regret_1", "regret"))


def is_audit(out: Path) -> bool:
    """Whether a folder holds an audit and no search.

    Args:
        out: The folder.
    Raises:
        InvalidStudy: it holds no study.
    """
    with Study.read(out) as study:
        return bool(study.identity.get("kind") == "audit")


def print_audit(out: Path, *, json: bool = False) -> None:
    """Print the table and the verdict of an audit: for a person, or one line of JSON.

    Args:
        out: Its folder.
        json: Print JSON.
    """
    with Study.read(out) as study:
        found = study.get("audit")
        cost_s = {step: round(cost.wall_s, 3) for step, cost in study.ledger().items()}
        earlier = behind(study)
    table = None if found is None else _json.loads(found["table"])
    if json:
        told = {k: v for k, v in (found or {}).items() if k != "table"}
        line = {"kind": "result", "out": str(out), "table": table, **told, "cost_s": cost_s}
        line["finished"] = found is not None and not earlier
        print(_json.dumps(line))
        return
    console = Console()
    if found is None or table is None:
        _print_unfinished(console, out, cost_s)
        return
    shown = _table(table, found.get("failures") or {}, found.get("limits") or {})
    console.print(shown, markup=False)
    for sentence in found["verdict"]:
        console.print(f"- {sentence}", highlight=False, markup=False)
    lines = [f"report       {out / 'report.html'}"]
    if earlier:
        lines += [earlier, how_to_continue(out)]
    for text in lines:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(
    table: Mapping[str, Any], refused: Mapping[str, Any], limits: Mapping[str, float]
) -> Table:
    held = ", ".join(f"{name} <= {in_full(value)}" for name, value in limits.items())
    shown = Table(
        title=f"Estimators against the truth of {table['num']} architectures"
        + f" with {held}" * bool(held),
        caption="* a baseline, which the others must beat",
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("estimator", overflow="fold")
    for head in (*(head for _, head in _SHOWN), "1,000 in", "speed-up", "failed"):
        shown.add_column(head, justify="right", no_wrap=True)
    for row in table["rows"]:
        thousand_s = row["prepare_s"] + 1000 * row["each_s"]
        faster = "–" if row["speedup"] is None else f"{amount('times', float(row['speedup']))}x"
        shown.add_row(
            f"{row['estimator']}*" if row["baseline"] else row["estimator"],
            *(_interval(row[figure], figure) for figure, _ in _SHOWN),
            "–" if refused.get(row["estimator"]) else duration(float(thousand_s)),
            faster,
            str(row["num_failed"]),
        )
    for name, part in CEILINGS:
        if table["ceiling"] is not None:
            shown.add_row(name, _interval(table["ceiling"][part], "tau"))
    return shown


def _interval(interval: Mapping[str, Any], figure: str) -> str:
    """Write a figure and below it its interval; a dash where it is undefined."""
    form = "{:.2g}" if figure.startswith("regret") else "{:z.2f}"
    if interval["value"] is None:
        return "–"
    if interval["low"] is None:
        return form.format(interval["value"])
    ends = f"{form.format(interval['low'])}…{form.format(interval['high'])}"
    return f"{form.format(interval['value'])}\n{ends}"


def _print_unfinished(console: Console, out: Path, cost_s: Mapping[str, float]) -> None:
    unfinished = f"the audit in {out} has not finished"
    console.print(unfinished, highlight=False, markup=False, soft_wrap=True)
    for step, seconds in cost_s.items():
        console.print(f"  {step:24} {seconds:.1f} s", highlight=False, markup=False)
    console.print(how_to_continue(out), highlight=False, markup=False, soft_wrap=True)
