"""The report's tables: rows of text, ready to be set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from assay.cost import Cost
from assay.report.units import amount, compact, duration, plain_name

__all__ = [
    "Table",
    "comparison",
    "decisions",
    "finalists",
    "flatten",
    "handover",
    "is_tested",
    "ledger",
    "metric_order",
    "network_names",
    "sessions",
]

_OPTIONS = 160  # characters of a list of options that are shown
_MOST_LISTED = 64  # of a list among the settings

_FIRST = (
    "test_accuracy", "test_loss", "valid_accuracy", "valid_loss", "latency_ms",
    "latency_table_ms", "macs", "params", "memory_bytes", "model_bytes",
)  # fmt: skip


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


def is_tested(names: Iterable[str]) -> bool:
    """Whether figures of these names are of a test split, too; a task may have none."""
    return any(name.startswith("test_") for name in names)


def network_names(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Sequence[str]:
    """Name the networks of a comparison, and say which is over a limit or the winner once more.

    Args:
        rows: Each with `name`, `metrics` and perhaps `architecture`; the winner's is the first.
        limits: Name of a metric -> largest value allowed.
    """
    won = rows[0].get("architecture") if rows else None
    names = []
    for i, row in enumerate(rows):
        metrics = row.get("metrics") or {}
        over = any(metrics[name] > limit for name, limit in limits.items() if name in metrics)
        again = i > 0 and won is not None and row.get("architecture") == won
        remarks = ["over the limit"] * over + ["the winner's architecture"] * again
        names.append(f"{row['name']} ({', '.join(remarks)})" if remarks else str(row["name"]))
    return names


def comparison(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Table:
    """Set the winner beside the space's largest, smallest and a random architecture.

    What was measured on validation is left out where there are test figures: it chose the winner,
    so it flatters it.

    Args:
        rows: Each with `name` and `metrics`, and perhaps `architecture`.
        limits: Name of a metric -> largest value allowed.
    """
    known = metric_order(row.get("metrics") or {} for row in rows)
    tested = is_tested(known)
    names = [name for name in known if not (tested and name.startswith("valid_"))]
    cells = [
        [called, *(amount(name, (row.get("metrics") or {}).get(name)) for name in names)]
        for row, called in zip(rows, network_names(rows, limits))
    ]
    head = ["network", *map(plain_name, names)]
    return Table(head, cells, frozenset(range(1, len(head))))


def finalists(rows: Sequence[Mapping[str, Any]], winner: int | None) -> Table:
    """Set the trials that were trained from scratch, one row a seed.

    Args:
        rows: Each with `trial`, `seed`, `state` and `metrics`.
        winner: Trial number of the one handed back.
    """
    metrics = [
        {_on_validation(name): value for name, value in (row.get("metrics") or {}).items()}
        for row in rows
    ]
    names = metric_order(metrics)
    cells = [
        [
            f"trial {row['trial']}" + (" (winner)" if row["trial"] == winner else ""),
            str(row.get("seed", "–")),
            str(row["state"]),
            *(amount(name, figures.get(name)) for name in names),
        ]
        for row, figures in zip(rows, metrics)
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


def sessions(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Set the runs that worked on a study: when, for how long, how they ended, with what.

    Args:
        rows: Each with `id`, `started`, `heartbeat`, `ended` (seconds since 1970; `ended` is None
            for one that was killed or still runs) and `versions`.
    """
    cells, before = [], None
    for row in rows:
        ended = row.get("ended")
        last = ended if ended is not None else row["heartbeat"]
        moment = datetime.fromtimestamp(row["started"], tz=UTC)
        versions = row.get("versions") or {}
        changes = [
            f"{name} {version}"
            for name, version in versions.items()
            if before is not None and before.get(name) != version
        ]
        same = "as before" if before is not None else f"{len(versions)} recorded"
        cells.append(
            [
                f"run {row['id']}",
                f"{moment:%Y-%m-%d %H:%M:%S} UTC",
                duration(last - row["started"]),
                "cleanly" if ended is not None else "cut short, or still running",
                ", ".join(changes) or same,
            ]
        )
        before = versions
    return Table(["session", "started", "lasted", "ended", "versions"], cells, frozenset({2}))


def decisions(choices: Mapping[str, Sequence[Any]], winner: Mapping[str, Any] | None) -> Table:
    """Set every decision of a space with its options, and with the winner's if there is one.

    Args:
        choices: Label -> options.
        winner: Label -> the option it took, without what it did not decide; None before there is a
            winner.
    """
    cells = []
    for label, options in choices.items():
        said = ", ".join(map(str, options))
        if len(said) > _OPTIONS:
            said = f"{said[:_OPTIONS]}… ({len(options)} in all)"
        taken = [] if winner is None else [str(winner.get(label, "not taken"))]
        cells.append([label, *taken, said])
    head = ["decision", "options"] if winner is None else ["decision", "the winner's", "options"]
    return Table(head, cells)


def handover(made: Mapping[str, Any]) -> Table:
    """Set the files handed back, how exactly they repeat the network, and what was refused."""
    cells = [["files", _text(made.get("files"))]]
    for name, value in made.items():
        if name.endswith("_max_difference"):
            said = "not compared" if value is None else f"differs by at most {float(value):.2g}"
            cells.append([f"{name.removesuffix('_max_difference')} against torch", said])
    if timed := made.get("onnx_timed"):
        took = [amount(name, timed[name]) for name in ("file_ms", "measured_ms")]
        said = f"{took[0]} at batch {timed['batch']}; the graph that was measured: {took[1]}"
        cells.append(["model.onnx, timed", said])
    for name, reason in (made.get("refused") or {}).items():
        cells.append([f"{name}, refused", str(reason)])
    return Table(["what", "value"], cells)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted names and values: {"a": {"b": 1}} is [("a.b", "1")]."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _text(value)))
    return rows


def _on_validation(name: str) -> str:
    """Name a finalist's metric by the split it is of."""
    told = name.startswith(("valid_", "test_")) or name.endswith("_s")
    return name if told else f"valid_{name}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        more = len(value) - _MOST_LISTED
        rest = [f"and {more:,} more"] if more > 0 else []
        return ", ".join([*map(_text, value[:_MOST_LISTED]), *rest]) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(item)}" for name, item in value.items()) or "none"
    return str(value)
