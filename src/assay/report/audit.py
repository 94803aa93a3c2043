"""Writes an audit as one offline HTML page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from assay.report import audit_figures, audit_tables, figures, tables
from assay.report.audit_tables import Notes, correlation
from assay.report.content import Record
from assay.report.page import group_failures, set_page, write_page
from assay.report.svg import printable
from assay.report.units import duration, in_full, shortened

__all__ = ["behind", "write_audit"]

_SECTIONS = (
    ("table", "The table"), ("compared", "Worth against cost"), ("gain", "What a search gains"),
    ("ranks", "Estimate against truth"),
    ("cost", "The cost"), ("truth", "The truth"),
)  # fmt: skip
_HASHED = ("space", "task", "truths")  # of these the identity holds fingerprints
_STEPS = {
    "sample": "draw the sample", "truth": "train the truth", "plan": "time the estimators",
    "baselines": "count the baselines", "lost": "lost to kills",
}  # fmt: skip
_NAME = 30  # characters of a step that a figure has room for
_KNOWN = ("kind", "published", "audit")  # told in words


def write_audit(study: Record, path: str | os.PathLike[str], *, live: bool = False) -> Path:
    """Write the report of an audit, finished or not, as one file that needs no other.

    The same study gives the same bytes. The file appears whole or not at all.

    Args:
        study: An open or read `Study` of an audit.
        path: Where the page goes; its folder must exist.
        live: Whether the page is to load itself again, since the run goes on.
    Returns:
        The path written.
    Raises:
        OSError: the page cannot be written there.
    """
    found = study.get("audit")
    values = _unfinished() if found is None else _judged(study, found)
    ledger = {_step(name): cost for name, cost in study.ledger().items()}
    drawn = values.pop("figures")
    if ledger:
        steps = {shortened(printable(step), _NAME): cost.wall_s for step, cost in ledger.items()}
        drawn["ledger"] = figures.ledger(steps)
    page = set_page(
        "audit.html.j2",
        kind="audit",
        of="audit",
        live=live,
        tiles_of="The sample, the best and the cost",
        sections=_SECTIONS,
        figures={name: Markup(svg) for name, svg in drawn.items()},
        tables={**_run_again(study, found or {}, ledger), **values.pop("tables")},
        failures=group_failures([_row(row) for row in study.failures()]),
        notes=study.get("notes") or [],
        published=bool(study.identity.get("published")),
        **values,
    )
    return write_page(page, path)


def behind(study: Record) -> str:
    """Say that what was found answers an earlier question than the last one; "" where not.

    Args:
        study: An open or read `Study` of an audit.
    """
    found, asked = study.get("audit"), study.get("asked")
    if not found or not asked or found.get("asked", asked) == asked:
        return ""
    rows = len(asked["estimators"])
    return (
        "What is told here is of an earlier question. Asked for since were "
        f"{asked['num']} architectures, {asked['seeds']} seed{'s' * (asked['seeds'] != 1)} and "
        f"{rows} estimator{'s' * (rows != 1)} within {asked['budget']}, which has not finished."
    )


def _unfinished() -> dict[str, Any]:
    return {
        "title": "not finished", "headline": "No verdict yet: the audit has not finished.",
        "lead": [], "tiles": [], "judged": None, "figures": {}, "tables": {},
    }  # fmt: skip


def _judged(study: Record, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a finished audit says, for the template."""
    table = json.loads(found["table"])
    refused = {name: why for name, why in (found.get("failures") or {}).items() if why}
    notes = Notes()
    lines = audit_tables.worth(table, refused, notes)
    seeds = {len(values) for values in found["truths"].values()}
    task = found.get("task") or {}
    headline, *lead = found["verdict"]
    made = {
        "speed": audit_tables.speed(table, refused),
        "truths": audit_tables.truths(found["truths"], found["architectures"]),
    }
    if found.get("failed"):
        made["failed"] = audit_tables.failures(found["failed"], found["architectures"])
    for name, rows in (("versus", table["against_baseline"]), ("pairs", table["pairs"])):
        if rows:
            made[name] = audit_tables.versus(rows)
    if found.get("gains"):
        made["gains"] = audit_tables.gains(found["gains"])
    return {
        "title": f"{task.get('name', 'a task')}",
        "headline": headline,
        "lead": [*filter(None, [behind(study)]), *lead],
        "tiles": _tiles(study, found, table, seeds),
        "figures": _figures(found, table),
        "tables": made,
        "judged": {
            "heads": [head for _, head in audit_tables.WORTH],
            "lines": lines, "notes": notes.reasons, "refused": refused,
            "num": table["num"], "seeds": _span(seeds), "several": max(seeds) > 1,
            "epochs": found.get("epochs"), "space": found.get("space") or "a space",
            "score": task.get("score") or "score", "panels": _panels(table, refused),
            "baseline": next((row["other"] for row in table["against_baseline"]), None),
        },
    }  # fmt: skip


def _tiles(
    study: Record, found: Mapping[str, Any], table: Mapping[str, Any], seeds: set[int]
) -> list[dict[str, str]]:
    """Return the figures that stand first, each with a note."""
    published = bool(study.identity.get("published"))
    how = "published" if published else f"{_span(seeds)} {'seed' if seeds == {1} else 'seeds'} each"
    if found.get("epochs"):
        how += f", {found['epochs']} epoch{'' if found['epochs'] == 1 else 's'}"
    if found.get("limits"):
        how += "; " + ", ".join(f"{k} <= {in_full(v)}" for k, v in found["limits"].items())
    tiles = [{"name": "architectures with a truth", "value": f"{table['num']:,}", "note": how}]
    ranked = [row for row in table["rows"] if row["tau"]["value"] is not None]
    others = ((False, "highest τ of an estimator"), (True, "highest τ of a baseline"))
    for baseline, said in others:
        best = next((row for row in ranked if row["baseline"] is baseline), None)
        if best is not None:
            note = f"{best['estimator']}; {_ends(best['tau'])}"
            tiles.append({"name": said, "value": correlation(best["tau"]["value"]), "note": note})
    top = (table["ceiling"] or {}).get("mean") or {"value": None}
    if top["value"] is not None:
        note = f"{_ends(top)}; what noise in the truth allows"
        tiles.append({"name": "noise ceiling", "value": correlation(top["value"]), "note": note})
    costs = study.ledger()
    spent_s = sum(cost.wall_s for cost in costs.values())
    truth_s = costs["truth"].wall_s if "truth" in costs else 0.0
    note = f"{duration(truth_s)} of it for the truth" if truth_s else "no truth was trained"
    tiles.append({"name": "spent on the audit", "value": duration(spent_s), "note": note})
    return tiles


def _figures(found: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, str]:
    drawn: dict[str, str] = {}
    keys = list(found["truths"])
    for place, row in enumerate(table["rows"]):
        scores = [found["scores"][row["estimator"]].get(key) for key in keys]
        if any(score is not None for score in scores):
            drawn[f"ranks-{place}"] = audit_figures.ranks(
                list(found["truths"].values()), scores,
                name=row["estimator"], key=f"ranks-{place}",
            )  # fmt: skip
    ranked = [row for row in table["rows"] if row["tau"]["value"] is not None]
    if ranked:
        drawn["frontier"] = audit_figures.frontier(ranked, (table["ceiling"] or {}).get("mean"))
    if table["against_baseline"]:
        drawn["differences"] = audit_figures.differences(table["against_baseline"])
    gains = found.get("gains") or []
    longest = [row for row in gains if row["trainings"] == gains[-1]["trainings"]]
    if longest[1:]:
        drawn["gains"] = audit_figures.gains(longest[1:])
    return drawn


def _panels(table: Mapping[str, Any], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one panel a row: where its figure is, and what is said below it."""
    return [
        {
            "figure": f"ranks-{place}",
            "name": row["estimator"],
            "baseline": row["baseline"],
            "tau": "undefined: " + row["tau"]["reason"]
            if row["tau"]["value"] is None
            else f"{correlation(row['tau']['value'])}, {_ends(row['tau'])}",
            "failed": 0 if row["estimator"] in refused else row["num_failed"],
        }
        for place, row in enumerate(table["rows"])
    ]


def _run_again(
    study: Record, found: Mapping[str, Any], ledger: Mapping[str, Any]
) -> dict[str, tables.Table]:
    """Set what it takes to run an audit again, and what that cost."""
    known = {**study.identity, **study.settings, **(study.get("asked") or {})}
    settings = {n: v for n, v in known.items() if n not in (*_HASHED, *_KNOWN)}
    if found:
        settings |= {"space": found.get("space"), "task": found.get("task")}
    prints = {name: study.identity[name] for name in _HASHED if name in study.identity}
    made = {
        name: tables.Table(["name", "value"], tables.flatten(rows))
        for name, rows in (
            ("settings", settings), ("fingerprints", prints), ("versions", found.get("versions")),
        )
        if rows
    }  # fmt: skip
    if ledger:
        made["ledger"] = tables.ledger(ledger, 0.0)
    sessions = [_row(row) for row in study.sessions()]
    if sessions:
        made["sessions"] = tables.sessions(sessions)
    return made


def _step(name: str) -> str:
    return _STEPS.get(name, name)


def _ends(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return "no interval"
    return f"{correlation(interval['low'])} to {correlation(interval['high'])}"


def _span(seeds: set[int]) -> str:
    return f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"


def _row(row: Any) -> Mapping[str, Any]:
    return row if isinstance(row, Mapping) else row._asdict()
