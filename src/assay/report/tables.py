"""The report's tables: rows of text, ready to be set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay.cost import Cost
from assay.report.units import amount, compact, duration, plain_name

__all__ = ["Table", "comparison", "finalists", "flatten", "ledger", "metric_order", "plain"]

_FIRST = ("test_accuracy", "latency_ms", "latency_table_ms", "macs", "params")


@dataclass(frozen=True)
class Table:
    """Text by rows.

    Attributes:
        head: One name a column.
        rows: As many cells each; the first names the row.
        numbers: Columns set to the right.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


def metric_order(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every name in any of the mappings: the known ones first, then by name."""
    names = {name for row in metrics for name in row}
    return [name for name in _FIRST if name in names] + sorted(names - set(_FIRST))


def comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Set the winner beside the space's largest, smallest and a random architecture.

    Args:
        rows: Each with `name` and `metrics`.
    """
    names = metric_order(row.get("metrics") or {} for row in rows)
    cells = [
        [str(row["name"]), *(amount(name, (row.get("metrics") or {}).get(name)) for name in names)]
        for row in rows
    ]
    head = ["network", *map(plain_name, names)]
    return Table(head, cells, frozenset(range(1, len(head))))


def finalists(rows: Sequence[Mapping[str, Any]], winner: int | None) -> Table:
    """Set the trials that were trained from scratch, one row a seed.

    Args:
        rows: Each with `trial`, `seed`, `state` and `metrics`.
        winner: Trial number of the one handed back.
    """
    names = metric_order(row.get("metrics") or {} for row in rows)
    cells = [
        [
            f"trial {row['trial']}" + (" (winner)" if row["trial"] == winner else ""),
            str(row.get("seed", "–")),
            str(row["state"]),
            *(amount(name, (row.get("metrics") or {}).get(name)) for name in names),
        ]
        for row in rows
    ]
    head = ["finalist", "seed", "state", *map(plain_name, names)]
    return Table(head, cells, frozenset(range(3, len(head))))


def ledger(steps: Mapping[str, Cost], lost_s: float) -> Table:
    """Set the cost of each step, what was lost, and their sum."""
    total = sum(cost.wall_s for cost in steps.values()) + lost_s
    costs = dict(steps)
    if lost_s:
        costs["lost to kills"] = Cost(wall_s=lost_s)
    costs["all"] = sum(costs.values(), Cost())
    cells = [
        [
            name,
            duration(cost.wall_s),
            f"{100 * cost.wall_s / total:.0f} %" if total else "–",
            compact(cost.samples) if cost.samples else "–",
            compact(cost.macs) if cost.macs else "–",
            cost.device or "–",
        ]
        for name, cost in costs.items()
    ]
    head = ["step", "time", "share", "samples passed", "MACs passed", "device"]
    return Table(head, cells, frozenset({1, 2, 3, 4}))


def plain(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Set rows whose columns are not known beforehand, under their own names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(name, row.get(name)) for name in names] for row in rows]
    return Table([plain_name(name) for name in names], cells)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted names and values: {"a": {"b": 1}} is [("a.b", "1")]."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _text(value)))
    return rows


def _cell(name: str, value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return _text(value)
    return amount(name, value)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(item)}" for name, item in value.items()) or "none"
    return str(value)
