"""The marks that figures share: points or what they add up to, ticks, bars, ranges, legends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from assay.report.svg import COLOURS
from assay.report.units import duration

__all__ = ["LIMIT", "Floats", "bars", "bin_points", "cloud", "fix_range", "legend", "rug"]

LIMIT = 2000
"""The most points a figure draws one by one."""

Floats = npt.NDArray[np.float64]
"""Plain numbers of a figure, `[n]`."""

_SHADES = (0.18, 0.34, 0.52, 0.72, 0.95)


def bin_points(
    x: Floats,
    y: Floats,
    limits: tuple[float, float, float, float],
    *,
    cells: tuple[int, int] = (46, 28),
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Count points by the cell they fall into.

    Args:
        x: `[n]`.
        y: `[n]`.
        limits: Left, right, bottom and top of the grid.
        cells: Columns and rows.
    Returns:
        Counts `[columns, rows]`, column edges and row edges.
    """
    left, right, bottom, top = limits
    counts, x_edges, y_edges = np.histogram2d(
        x, y, bins=cells, range=((left, right), (bottom, top))
    )
    return counts.astype(np.int64), x_edges, y_edges


def cloud(axes: Axes, x: Floats, y: Floats, gid: str, label: str, *, most: int = LIMIT) -> None:
    """Draw points one by one, or where they are more than `most` the cells they fall into."""
    if len(x) <= most:
        alpha, size = (0.75, 4.5) if len(x) <= 300 else (0.45, 3.2)
        axes.plot(
            x,
            y,
            "o",
            color=COLOURS["dot"],
            alpha=alpha,
            ms=size,
            mew=0,
            label=label,
            gid=f"assay-{gid}",
        )
        return
    bottom = max(y.min(), axes.get_ylim()[0])
    counts, x_edges, y_edges = bin_points(x, y, (x.min(), x.max(), bottom, y.max()))
    levels = np.zeros_like(counts)
    filled = counts > 0
    dark = np.sqrt(counts[filled] / counts.max())
    levels[filled] = np.ceil(dark * len(_SHADES)).astype(int)
    named = np.unique(levels[filled])[len(np.unique(levels[filled])) // 2]
    for level, alpha in enumerate(_SHADES, start=1):
        cells = [
            Path(
                [
                    (x_edges[i], y_edges[j]),
                    (x_edges[i + 1], y_edges[j]),
                    (x_edges[i + 1], y_edges[j + 1]),
                    (x_edges[i], y_edges[j + 1]),
                    (0, 0),
                ],
                [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY],
            )
            for i, j in np.argwhere(levels == level)
        ]
        if cells:
            patch = PathPatch(
                Path.make_compound_path(*cells),
                color=COLOURS["dot"],
                alpha=alpha,
                lw=0,
                gid=f"assay-{gid}-binned",
                label=f"{label}, darker is more" if level == named else None,
            )
            axes.add_patch(patch)


def rug(axes: Axes, x: Floats, gid: str, label: str) -> None:
    """Draw ticks at the foot of the axes; above `LIMIT` one for each of 400 places taken."""
    if len(x) == 0:
        return
    if len(x) > LIMIT:
        left, right = axes.get_xlim()
        x = np.unique(np.round((x - left) / (right - left) * 400)) / 400 * (right - left) + left
    axes.plot(
        x,
        np.full(len(x), 0.018),
        "|",
        color=COLOURS["over"],
        alpha=0.6,
        ms=8,
        mew=0.9,
        transform=axes.get_xaxis_transform(),
        label=label,
        gid=f"assay-{gid}",
    )


def fix_range(axes: Axes, x: Sequence[float] | Floats, y: Floats) -> None:
    """Fix the range before drawing, with room at the foot for the ticks of what was not scored.

    A few scores far below all others are left outside and counted in words.
    """
    x = np.asarray(x, float)
    left, right = (x.min(), x.max()) if len(x) else (0.0, 1.0)
    bottom, top = (_floor(y), y.max()) if len(y) else (0.0, 1.0)
    below = int((y < bottom).sum())
    if below:
        said = f"{below:,} score{'s' if below > 1 else ''} below this axis"
        axes.text(
            0.99,
            0.06,
            said,
            transform=axes.transAxes,
            ha="right",
            color=COLOURS["muted"],
            fontsize=10,
            gid="assay-halo",
        )
    width, height = right - left or abs(right) or 1.0, top - bottom or abs(top) or 1.0
    axes.set_xlim(left - 0.03 * width, right + 0.03 * width)
    axes.set_ylim(bottom - 0.09 * height, top + 0.07 * height)


def _floor(y: Floats) -> float:
    """Return the lowest value, or where a few far below it would flatten all the others."""
    low, high = np.quantile(y, [0.05, 0.95])
    return float(max(y.min(), low - 2 * (high - low)))


def bars(axes: Axes, names: Sequence[str], seconds: Floats, colours: Sequence[str]) -> None:
    """Draw one lying bar a name, the first on top, with its duration written at its end.

    Args:
        axes: Empty; what it shows of axes is taken away.
        names: One a bar.
        seconds: `[n]`.
        colours: Names in `COLOURS`.
    """
    rows = np.arange(len(names))
    axes.barh(rows, seconds, height=0.62, color=[COLOURS[c] for c in colours], gid="assay-bar")
    for row, value in zip(rows, seconds):
        axes.annotate(
            duration(float(value)), (value, row), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"], labelsize=10.5)
    axes.set_xlim(0, 1.22 * max([*seconds, 1e-9]))
    axes.set_xticks([])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)


def legend(axes: Axes) -> None:
    """Set the legend above the axes, in two columns that a phone can show."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
        borderaxespad=0.2,
        handlelength=1.4,
        columnspacing=1.4,
        handletextpad=0.5,
        labelspacing=0.25,
    )
