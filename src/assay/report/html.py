"""Writes a study as one offline HTML page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from assay.report import figures, lead, learning, tables
from assay.report.audit_tables import ranking
from assay.report.blocks import blocks, largest_share
from assay.report.content import Content, Record, read_content
from assay.report.marks import LIMIT
from assay.report.page import group_failures, set_page, write_page
from assay.report.svg import printable

__all__ = ["render", "write_report"]

_SECTIONS = (
    ("winner", "The winner"), ("search", "The search"), ("hardware", "The hardware"),
    ("cost", "The cost"),
)  # fmt: skip
_LEARNING = ("learning", "What the search learned")


def write_report(study: Record, path: str | os.PathLike[str], *, live: bool = False) -> Path:
    """Write the report of a study, finished or not, as one file that needs no other.

    The same study gives the same bytes. The file appears whole or not at all.

    Args:
        study: An open or read `Study`.
        path: Where the page goes; its folder must exist.
        live: Whether the page is to load itself again, since the run goes on.
    Returns:
        The path written.
    Raises:
        OSError: the page cannot be written there.
    """
    return write_page(render(read_content(study), live=live), path)


def render(content: Content, *, live: bool = False) -> str:
    """Return the page as text."""
    chain = blocks(content.winner)
    learned = () if content.learning is None else (_LEARNING,)
    return set_page(
        "search.html.j2",
        kind="report",
        of="search",
        live=live,
        tiles_of="The winner and the cost",
        sections=(*_SECTIONS[:2], *learned, *_SECTIONS[2:]),
        content=content,
        title=lead.title(content),
        headline=lead.headline(content),
        lead=lead.lead(content),
        tiles=lead.tiles(content),
        estimator=lead.estimator_name(content),
        left_out=_left_out(content),
        tested=tables.is_tested((content.winner or {}).get("metrics") or {}),
        blocks=chain,
        bar_scale=largest_share(chain),
        figures={name: Markup(svg) for name, svg in _figures(content).items()},
        tables=_tables(content),
        weights=lead.weights_of(content),
        failures=group_failures(content.failures),
        notes=content.notes,
        limit=LIMIT,
    )


def _figures(content: Content) -> dict[str, str]:
    """Draw what there is data for; a score that is not finite has no place in a figure."""
    drawn: dict[str, str] = {}
    score = printable(f"{lead.estimator_name(content)} score".strip())
    quantity = content.quantity
    finite = [trial for trial in content.compared if math.isfinite(_score(trial))]
    priced = [trial for trial in finite if quantity in trial.measured]
    if priced:
        at = {t.number: (float(t.measured[quantity]), _score(t)) for t in priced}
        winner = (content.winner or {}).get("trial")
        others = dict.fromkeys(row["trial"] for row in content.finalists)
        drawn["front"] = figures.front(
            [cost for cost, _ in at.values()],
            [value for _, value in at.values()],
            quantity=printable(quantity),
            score_name=score,
            limit=content.limit,
            infeasible=[t.measured[quantity] for t in content.infeasible if quantity in t.measured],
            finalists=[at[number] for number in others if number in at],
            winner=at.get(winner) if winner is not None else None,
        )
    if finite:
        drawn["progress"] = figures.progress(
            [trial.number for trial in finite],
            [_score(trial) for trial in finite],
            score_name=score,
            infeasible=[trial.number for trial in content.infeasible],
            failed=[trial.number for trial in content.failed],
        )
    if content.learning:
        drawn["settling"] = learning.settling(content.learning, content.space["choices"])
        drawn["curves"] = learning.curves(content.learning)
    drawn |= _hardware(content)
    if content.ledger:
        drawn["ledger"] = figures.ledger(
            {printable(step): cost.wall_s for step, cost in content.ledger.items()}
        )
    if content.saving:
        drawn["saving"] = figures.saving(
            float(content.saving["spent_s"]), float(content.saving["train_each_s"])
        )
    return drawn


def _left_out(content: Content) -> str:
    """Say which scores the figures leave out; "" for none."""
    drawn = {trial.number for trial in content.compared}
    shorter = {trial.number for trial in content.scored} - drawn
    if not shorter:
        return ""
    trials = f"{len(shorter):,} trial{'s' if len(shorter) > 1 else ''} of shorter training"
    won = ", the winner's among them" if (content.winner or {}).get("trial") in shorter else ""
    return f"Left out: {trials}{won}; scores of different lengths of training do not compare."


def _hardware(content: Content) -> dict[str, str]:
    drawn: dict[str, str] = {}
    if content.validation and content.validation.get("pairs"):
        pairs = content.validation["pairs"]
        drawn["predicted"] = figures.predicted_against_measured(
            [pair[0] for pair in pairs],
            [pair[1] for pair in pairs],
            rmse_ms=content.validation.get("rmse_ms"),
            tau=content.validation.get("tau"),
            within_10=content.validation.get("within_10"),
        )
    if content.networks:
        drawn["macs"] = figures.macs_against_latency(
            [network.macs for network in content.networks],
            [network.latency_ms for network in content.networks],
            pairs=[(pair.fast, pair.slow) for pair in content.pairs],
        )
    return drawn


def _tables(content: Content) -> dict[str, tables.Table]:
    made: dict[str, tables.Table] = {}
    if content.comparison:
        made["comparison"] = tables.comparison(content.comparison, content.limits)
    if content.finalists:
        made["finalists"] = tables.finalists(content.finalists, (content.winner or {}).get("trial"))
    if content.ledger:
        made["ledger"] = tables.ledger(content.ledger, content.lost_s)
    if content.handover:
        made["handover"] = tables.handover(content.handover)
    if isinstance(content.space.get("choices"), Mapping):
        taken = None if content.winner is None else content.winner["architecture"]
        made["decisions"] = tables.decisions(content.space["choices"], taken)
    if content.learning:
        made["likeliest"] = learning.likeliest(content.learning, content.space["choices"])
    if content.fidelity:
        made["fidelity"] = ranking(json.loads(content.fidelity["table"]))
    if content.sessions:
        made["sessions"] = tables.sessions(content.sessions)
    for name, rows in (
        ("settings", content.settings),
        ("fingerprints", content.fingerprints),
        ("versions", content.versions),
    ):
        if rows:
            made[name] = tables.Table(["name", "value"], tables.flatten(rows))
    return made


def _score(trial: Any) -> float:
    return float(trial.estimate.score)
