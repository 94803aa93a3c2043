"""The tables of an audit: figures with their intervals, and a note wherever one is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.report.tables import Table
from assay.report.units import amount, duration

__all__ = [
    "CEILINGS",
    "WORTH",
    "Cell",
    "Line",
    "Notes",
    "correlation",
    "failures",
    "gains",
    "ranking",
    "speed",
    "told",
    "truths",
    "versus",
    "worth",
]

WORTH = (
    ("tau", "τ"), ("rho", "ρ"), ("tau_top", "τ, top half"), ("precision_10", "precision, top 10 %"),
    ("regret_1", "regret of top 1"), ("regret_5", "regret of top 5"),
)  # fmt: skip
"""Figure of a row of the table -> head of its column."""

CEILINGS = (("seed against seed", "between"), ("noise ceiling", "mean"))
"""Name of a row below the estimators -> tau of the ceiling that it shows."""

_MOST_TRUTHS = 300


@dataclass(frozen=True)
class Cell:
    """A figure as it is set.

    Attributes:
        text: The figure, or a dash.
        detail: Its interval, or that it has none.
        note: Number of the note that says why something is missing; 0 for none.
    """

    text: str
    detail: str = ""
    note: int = 0


@dataclass(frozen=True)
class Line:
    """A row as it is set.

    Attributes:
        name: Of the estimator.
        tag: What it is beside that: "baseline", "refused", or "".
        cells: One a column.
    """

    name: str
    tag: str
    cells: Sequence[Cell]


@dataclass
class Notes:
    """Reasons, each told once and numbered as they come.

    Attributes:
        reasons: From note 1 on.
    """

    reasons: list[str] = field(default_factory=list)

    def number(self, reason: str) -> int:
        """Return the number of a reason; 0 for none."""
        if not reason:
            return 0
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def told(
    interval: Mapping[str, Any], notes: Notes, said: Callable[[float], str], unit: str = ""
) -> Cell:
    """Set a figure with its interval.

    Args:
        interval: `value`, `low`, `high` and `reason`.
        notes: Where the reason for what is missing goes.
        said: Writes a number.
        unit: What stands behind the figure, and once behind its interval.
    """
    note = notes.number(str(interval["reason"]))
    if interval["value"] is None:
        return Cell("–", note=note)
    if interval["low"] is None:
        return Cell(said(interval["value"]) + unit, "no interval", note)
    ends = f"{said(interval['low'])} to {said(interval['high'])}"
    return Cell(said(interval["value"]) + unit, ends + unit)


def correlation(value: float) -> str:
    """Write a correlation, or a difference of two."""
    return f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")


def worth(table: Mapping[str, Any], refused: Mapping[str, str], notes: Notes) -> list[Line]:
    """Set one row for each estimator: how well it ranks, what it costs, where it failed.

    The noise ceiling comes last, if it is known.

    Args:
        table: Of the audit.
        refused: Estimator -> why it scored nothing.
        notes: Where reasons go.
    """
    lines = []
    for row in table["rows"]:
        name = row["estimator"]
        cells = [told(row[figure], notes, *_writer(figure)) for figure, _ in WORTH]
        if name in refused:
            cells += [Cell("–")] * 3
        else:
            each_s = float(row["each_s"])
            costs = (row["prepare_s"], each_s, row["prepare_s"] + 1000 * each_s)
            cells += [Cell(_time(float(seconds))) for seconds in costs]
        cells.append(Cell(str(row["num_failed"])))
        tag = "baseline" if row["baseline"] else "refused" if name in refused else ""
        lines.append(Line(name, tag, cells))
    blanks = [Cell("")] * (len(WORTH) + 3)
    for name, part in CEILINGS:
        if table["ceiling"] is not None:
            tau = told(table["ceiling"][part], notes, correlation)
            lines.append(Line(name, "ceiling", [tau, *blanks]))
    return lines


def ranking(table: Mapping[str, Any]) -> Table:
    """Set `worth` and `speed` as one table, reasons in place of notes: for a report of a search."""
    notes, faster = Notes(), speed(table, {})
    lines = worth(table, {}, notes)
    ratios = {name: said for name, *said in faster.rows}
    cells = [
        [line.name, *(_in_line(c, notes) for c in line.cells), *ratios.get(line.name, ("", ""))]
        for line in lines
    ]
    costs = ("to prepare", "each", "for 1,000", "failed")
    return Table(["estimator", *(head for _, head in WORTH), *costs, *faster.head[1:]], cells)


def speed(table: Mapping[str, Any], refused: Mapping[str, str]) -> Table:
    """Set the measured speed-up over training each beside what was published of the kind."""
    cells = []
    for row in table["rows"]:
        if row["estimator"] in refused:
            ratio = "it refused"
        elif row["speedup"] is None:
            ratio = "no truth was trained here" if row["each_s"] else "it took no time"
        else:
            ratio = f"{amount('times', float(row['speedup']))} ×"
        claim = row["claim"] or ("–" if row["baseline"] else "nothing that can be compared")
        cells.append([row["estimator"], ratio, claim])
    head = ["estimator", "speed-up, measured", "published"]
    return Table(head, cells, frozenset({1}))


def versus(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Set differences in tau: with their interval, p before and after Holm's correction."""
    cells = [
        [
            f"{row['one']} less {row['other']}",
            _plain(row["tau"]),
            "–" if row["p"] is None else f"{row['p']:.3f}",
            "–" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
            "real" if row["real"] else "may be chance",
        ]
        for row in rows
    ]
    return Table(
        ["pair", "difference in τ", "p", "p, corrected", "it is"], cells, frozenset({2, 3})
    )


def gains(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Set what a search by each estimator would hand back in each time, training at random first.

    Args:
        rows: Time after time.
    """
    cells = []
    for row in rows:
        spent = f"{row['scored']} scored, the best {row['trained']} trained"
        cells.append([
            f"{duration(float(row['time_s']))}, {row['trainings']} trainings",
            row["estimator"] or "training at random",
            spent if row["estimator"] else f"{row['trained']} trained",
            _plain(row["gain"], _fine),
            _plain(row["more"], _fine) if row["estimator"] else "–",
            "–" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
            ("real" if row["real"] else "may be chance") if row["estimator"] else "–",
        ])  # fmt: skip
    head = ["in the time of", "by", "how", "gain", "more than at random", "p, corrected", "it is"]
    return Table(head, cells, frozenset({5}))


def failures(
    given: Mapping[str, Mapping[str, str]], architectures: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Set the architectures that estimators failed on, each with its options and the reason.

    Args:
        given: Estimator -> architecture -> reason.
        architectures: Architecture -> its decisions.
    """
    cells = [
        [name, _options(architectures[key]), why]
        for name, failed in given.items()
        for key, why in failed.items()
    ]
    return Table(["estimator", "architecture", "why"], cells)


def truths(
    given: Mapping[str, Sequence[float]], architectures: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Set the architectures by falling truth, each with its options and its seeds' values.

    Args:
        given: Architecture -> one value a seed.
        architectures: Architecture -> its decisions.
    """
    means = {key: sum(values) / len(values) for key, values in given.items()}
    best_first = sorted(means, key=lambda key: (-means[key], key))[:_MOST_TRUTHS]
    cells = [
        [
            str(place),
            amount("truth", means[key]),
            ", ".join(amount("truth", float(value)) for value in given[key]),
            _options(architectures[key]),
        ]
        for place, key in enumerate(best_first, start=1)
    ]
    return Table(["rank", "truth", "its seeds", "architecture"], cells, frozenset({1}))


def _options(architecture: Mapping[str, Any]) -> str:
    return ", ".join(f"{label}={option}" for label, option in architecture.items())


def _writer(figure: str) -> tuple[Callable[[float], str], str]:
    """Return how a figure is written, and its unit."""
    if figure.startswith("regret"):
        return _fine, ""
    if figure.startswith("precision"):
        return lambda value: f"{100 * value:.0f}", "\N{NO-BREAK SPACE}%"
    return correlation, ""


def _time(seconds: float) -> str:
    """Write seconds; what counts parameters takes less than a millisecond."""
    return amount("each_ms", 1e3 * seconds) if 0 < seconds < 0.01 else duration(seconds)


def _fine(value: float) -> str:
    """Write a difference of truths, which may be small."""
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")


def _plain(interval: Mapping[str, Any], said: Callable[[float], str] = correlation) -> str:
    """Write a difference in a line."""
    notes = Notes()
    return _in_line(told(interval, notes, said), notes)


def _in_line(cell: Cell, notes: Notes) -> str:
    """Write a figure, and behind it its interval or why something is missing."""
    said = notes.reasons[cell.note - 1] if cell.note else cell.detail
    return f"{cell.text}, {said}" if said else cell.text
