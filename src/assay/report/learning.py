"""What a search learned, drawn: how the choices were settled, and the curves beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from assay.report.svg import COLOURS, WIDTH, printable, style, to_svg
from assay.report.tables import Table
from assay.report.units import axis, share, shortened

__all__ = ["curves", "likeliest", "settling"]

_SHADES = (0.06, 0.22, 0.4, 0.6, 0.8, 1.0)  # of as many equal ranges of probability
_ROW = 13  # height of one, in the figure's units
_GAP = 0.4  # of a row, between the options of one choice and those of the next
_MOST_ROWS = 44
_LABEL = 20  # characters


class _Row(NamedTuple):
    """What a line of the map shows: an option of a choice."""

    choice: str
    option: str
    y: float
    probabilities: Sequence[float | None]


def settling(document: Mapping[str, Any], options: Mapping[str, Sequence[Any]]) -> str:
    """Draw how likely options were, step by step; darker is likelier.

    Each option has a row, or where these would be too many each choice, with the option that is
    likeliest in the end.

    Args:
        document: "learning" of a study.
        options: Label -> options of the space's choices.
    """
    records, unit = document["records"], document["unit"]
    rows, of = _rows(records, options)
    steps = [record["step"] for record in records]
    ends = [*steps[1:], max(document["total"], steps[-1] + 1)]
    with style("settling"):
        shown = min(rows[-1].y + 1, _MOST_ROWS)
        figure = Figure(figsize=(WIDTH / 72, (90 + _ROW * shown) / 72), layout="constrained")
        axes = figure.add_subplot()
        cells: dict[int, list[Path]] = {level: [] for level in range(len(_SHADES))}
        for row in rows:
            spans = zip(steps, ends, map(_level, row.probabilities))
            for level, run in groupby(spans, key=lambda span: span[2]):
                whole = list(run)
                if level is not None:
                    cells[level].append(_box(whole[0][0], whole[-1][1], row.y))
        for level, paths in cells.items():
            if paths:
                _shade(axes, Path.make_compound_path(*paths), _SHADES[level])
        _name(axes, rows)
        axes.set(xlabel=unit, xlim=(steps[0], ends[-1]), ylim=(rows[-1].y + 0.6, -0.6))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        _key(axes)
        return to_svg(
            figure,
            name="settling",
            alt=f"Probability of {len(rows)} {of} from {unit} {steps[0]:,} to {steps[-1]:,}; "
            + _closing(records),
        )


def _rows(
    records: Sequence[Mapping[str, Any]], options: Mapping[str, Sequence[Any]]
) -> tuple[list[_Row], str]:
    last = _latest(records)
    best = {label: int(np.argmax(p)) for label, p in last.items()}
    few = sum(map(len, last.values())) <= _MOST_ROWS
    rows = list[_Row]()
    for group, (label, p) in enumerate(last.items()):
        known = [record["probabilities"].get(label) for record in records]
        for i in range(len(p)) if few else [best[label]]:
            values = [None if now is None else now[i] for now in known]
            y = len(rows) + (_GAP * group if few else 0.0)
            rows.append(_Row(printable(label), printable(str(options[label][i])), y, values))
    return rows, "options" if few else "choices' likeliest options"


def _latest(records: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[float]]:
    """Return what was last known of each choice."""
    return {label: p for record in records for label, p in record["probabilities"].items()}


def _level(probability: float | None) -> int | None:
    """Return the shade of a probability; None where it was not known."""
    return None if probability is None else min(int(probability * len(_SHADES)), len(_SHADES) - 1)


def _box(left: float, right: float, y: float) -> Path:
    bottom, top = y - 0.44, y + 0.44
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (0, 0)]
    return Path(corners, [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY])


def _shade(axes: Axes, path: Path, alpha: float) -> None:
    axes.add_patch(PathPatch(path, color=COLOURS["dot"], alpha=alpha, lw=0, gid="assay-cells"))


def _name(axes: Axes, rows: Sequence[_Row]) -> None:
    """Write each choice where its rows begin, on the left, and the options on the right."""
    every = -(-len(rows) // _MOST_ROWS)  # where there are more rows than lines of text fit
    named = rows[::every]
    firsts = [next(group) for _, group in groupby(named, key=lambda row: row.choice)]
    axes.set_yticks([r.y for r in firsts], [shortened(r.choice, _LABEL) for r in firsts])
    right = axes.secondary_yaxis("right")
    right.set_yticks([r.y for r in named], [shortened(r.option, _LABEL) for r in named])
    for side in (axes, right):
        side.tick_params(axis="y", length=0, pad=3, labelcolor=COLOURS["ink"], labelsize=9.5)
    right.spines["right"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(False)


def _key(axes: Axes) -> None:
    bounds = np.linspace(0, 100, len(_SHADES) + 1)
    patches = [
        Patch(color=COLOURS["dot"], alpha=alpha, lw=0, label=f"{low:.0f}–{high:.0f} %")
        for alpha, low, high in zip(_SHADES, bounds, bounds[1:])
    ]
    axes.legend(
        handles=patches, title="probability", alignment="left", loc="lower left",
        bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.2,
        handleheight=0.9, columnspacing=1.4, handletextpad=0.5, labelspacing=0.25,
    )  # fmt: skip


def _closing(records: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"the entropy went from {share(records[0]['entropy'])} to {share(records[-1]['entropy'])}"
    )


def curves(document: Mapping[str, Any]) -> str:
    """Draw the entropy, what is expected of the quantity in the loop, and the reward.

    Args:
        document: "learning" of a study.
    """
    records, unit = document["records"], document["unit"]
    steps = np.array([record["step"] for record in records], float)
    panels = [
        (key, values)
        for key in ("entropy", "expected", "reward")
        for values in [np.array([np.nan if r[key] is None else r[key] for r in records], float)]
        if np.isfinite(values).any()
    ]
    with style("curves"):
        figure = Figure(figsize=(WIDTH / 72, (50 + 104 * len(panels)) / 72), layout="constrained")
        for axes, (key, values) in zip(
            figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels
        ):
            if key == "entropy":
                axes.set(ylabel="entropy (%)", ylim=(0, 105), yticks=(0, 50, 100))
                values = 100 * values
            elif key == "expected":
                values = _against_target(axes, records[-1], values)
            else:
                axes.set(ylabel="reward")
                axes.yaxis.set_major_locator(MaxNLocator(4))
            alone = "o" if len(steps) == 1 else ""
            axes.plot(steps, values, color=COLOURS["front"], marker=alone, gid=f"assay-{key}")
        axes.set(xlabel=unit, xlim=(steps[0], max(document["total"], steps[-1], steps[0] + 1)))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.align_ylabels()
        return to_svg(figure, name="curves", alt=f"By {unit}: {_closing(records)}")


def _against_target(
    axes: Axes, last: Mapping[str, Any], values: np.ndarray[Any, np.dtype[np.float64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Label the axis of the quantity in the loop; draw its target."""
    target = last["target"]
    label, scale = axis(last["quantity"], max(np.nanmax(values), target or 0.0))
    axes.set(ylabel=label)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if target is not None:
        axes.axhline(target / scale, color=COLOURS["over"], lw=1.2, ls=(0, (4, 3)))
        axes.annotate(
            "target", (1.0, target / scale), (-2, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", color=COLOURS["over"],
            fontsize=10, gid="assay-halo",
        )  # fmt: skip
    return values / scale


def likeliest(document: Mapping[str, Any], options: Mapping[str, Sequence[Any]]) -> Table:
    """Set what was known in the end: each choice with its options, the likeliest first.

    Args:
        document: "learning" of a study.
        options: Label -> options of the space's choices.
    """
    rows = []
    for label, p in _latest(document["records"]).items():
        ranked = sorted(zip(p, map(str, options[label])), key=lambda pair: -pair[0])
        others = ", ".join(f"{option} {100 * q:.0f} %" for q, option in ranked[1:])
        rows.append([label, ranked[0][1], share(ranked[0][0]), others])
    return Table(["choice", "likeliest", "probability", "others"], rows, frozenset({2}))
