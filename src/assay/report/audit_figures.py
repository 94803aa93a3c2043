"""The figures of an audit: ranks against true ranks, worth against cost, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from assay import pareto
from assay.report.labels import Box, place_names
from assay.report.marks import Floats, cloud, legend
from assay.report.svg import COLOURS, blank, printable, style, to_svg
from assay.report.units import duration, shortened

__all__ = ["differences", "frontier", "gains", "ranks"]

_PANEL = 280  # width of one of several figures beside each other
_MOST_BARS = 300  # points that are drawn one by one, with their noise
_TICKS_S = {
    1e-3: "1 ms", 1e-2: "10 ms", 0.1: "100 ms", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min",
    3600: "1 h", 36000: "10 h", 345600: "4 d", 3456000: "40 d", 31536000: "1 y",
}  # fmt: skip
_LEAST_S = 1e-3  # what took no measurable time has a place on a logarithmic axis, too
_LETTER, _LINE = 6.4, 12.0  # what a letter of a name takes, and a line


def ranks(
    truths: Sequence[Sequence[float]], scores: Sequence[float | None], *, name: str, key: str
) -> str:
    """Draw the rank of each architecture by an estimator against its rank by truth.

    Args:
        truths: One value a seed, for each architecture; the mean is its truth.
        scores: As many, higher is better; None where the estimator failed, which ranks last.
        name: Of the estimator.
        key: Of the figure in its page.
    """
    means = np.array([float(np.mean(values)) for values in truths])
    failed = np.array([score is None for score in scores], bool)
    x = _ranks(means)
    y = _ranks(np.array([-np.inf if score is None else score for score in scores], float))
    num = len(means)
    with style(key):
        figure, axes = blank(_PANEL, width=_PANEL)
        axes.axvspan(
            (num + 1) // 2 + 0.5, 0, color=COLOURS["band"], alpha=0.12, lw=0, gid="assay-better"
        )
        axes.plot([num, 1], [num, 1], color=COLOURS["band"], lw=1.0)
        if num <= _MOST_BARS:
            _noise(axes, truths, means, y)
        cloud(axes, x[~failed], y[~failed], "estimates", "", most=_MOST_BARS)
        axes.plot(
            x[failed], y[failed], "x", color=COLOURS["over"], ms=5.5, mew=1.3, gid="assay-failed"
        )
        for which, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
            limits(num + 0.04 * num + 0.5, 0.5 - 0.04 * num)  # the best is at the top right
            which.set_major_locator(FixedLocator(_rank_ticks(num)))
        axes.set(xlabel="rank by truth (1 is best)", ylabel="rank by estimate")
        axes.set_aspect("equal")
        told = f", {failed.sum()} of them failed and ranked last" if failed.any() else ""
        return to_svg(
            figure,
            name="ranks",
            alt=f"Rank by {printable(name)} against rank by truth of {num} architectures{told}",
        )


def frontier(rows: Sequence[Mapping[str, Any]], ceiling: Mapping[str, Any] | None) -> str:
    """Draw rank correlation against the cost of scoring 1,000 architectures.

    Args:
        rows: Of the table, those with a tau.
        ceiling: Interval of the noise ceiling, or None.
    """
    x = np.array([max(_thousand_s(row), _LEAST_S) for row in rows])
    y = np.array([float(row["tau"]["value"]) for row in rows])
    with style("frontier"):
        figure, axes = blank(330)
        axes.set_xscale("log")
        _spread(axes, rows, x, ceiling)
        if ceiling is not None and ceiling["value"] is not None:
            _ceiling(axes, ceiling)
        for row, at in zip(rows, x):
            if row["tau"]["low"] is not None:
                ends = [row["tau"]["low"], row["tau"]["high"]]
                axes.plot([at, at], ends, color=COLOURS["dot"], lw=1.2, alpha=0.55,
                          gid="assay-interval")  # fmt: skip
        best = np.array(pareto.front(np.stack([y, -np.log(x)], axis=1).tolist()), dtype=np.intp)
        best = best[np.argsort(x[best], kind="stable")]
        axes.plot(x[best], y[best], color=COLOURS["front"], lw=1.2, drawstyle="steps-post",
                  label="none is both cheaper and better")  # fmt: skip
        for baseline, mark, said in ((False, "o", "estimator"), (True, "s", "baseline")):
            chosen = np.array([bool(row["baseline"]) is baseline for row in rows], bool)
            if not chosen.any():
                continue
            axes.plot(x[chosen], y[chosen], mark, ms=6.5, color=COLOURS["dot"],
                      mfc=COLOURS["paper"] if baseline else COLOURS["dot"], mew=1.4, ls="none",
                      label=said, gid=f"assay-{said}")  # fmt: skip
        axes.set(xlabel="cost of scoring 1,000 architectures", ylabel="Kendall τ against truth")
        legend(axes)
        level = None if ceiling is None else ceiling["value"]
        _name(figure, axes, rows, np.stack([x, y], axis=1), _lines(rows, x, y, best, level))
        told = ", ".join(
            f"{printable(row['estimator'])} {value:.2f} in {duration(at)}"
            for row, value, at in zip(rows, y, x)
        )
        return to_svg(figure, name="frontier", alt=f"Kendall τ against cost: {told}")


def differences(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the difference in tau of each estimator to the best baseline, with its interval.

    Args:
        rows: Of `against_baseline`, all with the same `other`.
    """
    told = [(str(row["one"]), row["tau"], bool(row["real"])) for row in rows]
    alt = "Difference in τ to the best baseline"
    label = "difference in Kendall τ"
    return _gaps(told, key="differences", label=label, alt=alt, form=".2f")


def gains(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw what a search by each estimator gains over training at random in the same time.

    Args:
        rows: Of one time, without training at random itself.
    """
    told = [(str(row["estimator"]), row["more"], bool(row["real"])) for row in rows]
    alt = "Gain of a search less that of training at random"
    label = "gain less that of training at random"
    return _gaps(told, key="gains", label=label, alt=alt, form=".2g")


def _gaps(
    rows: Sequence[tuple[str, Mapping[str, Any], bool]],
    *,
    key: str,
    label: str,
    alt: str,
    form: str,
) -> str:
    """Draw a difference a row, with its interval, filled where it is real."""
    names = [printable(shortened(name, 22)) for name, _, _ in rows]
    places = range(len(rows))
    with style(key):
        figure, axes = blank(74 + 28 * len(rows))
        axes.axvline(0, color=COLOURS["ink"], lw=1.0)
        for place, (_, gap, _) in zip(places, rows):
            if gap["low"] is not None:
                axes.plot([gap["low"], gap["high"]], [place, place], color=COLOURS["dot"], lw=1.8,
                          solid_capstyle="butt", gid="assay-interval")  # fmt: skip
        for real, fill, said in ((True, "dot", "real"), (False, "paper", "may be chance")):
            chosen = [place for place in places if rows[place][2] is real]
            axes.plot([rows[place][1]["value"] for place in chosen], chosen, "o", ms=7,
                      mec=COLOURS["dot"], mfc=COLOURS[fill], mew=1.5, ls="none", label=said,
                      gid=f"assay-{said.split()[0]}")  # fmt: skip
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"], labelsize=10.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set(xlabel=label)
        legend(axes)
        told = ", ".join(
            f"{name} {gap['value']:{form}}" + (" (real)" if real else "")
            for name, (_, gap, real) in zip(names, rows)
        )
        return to_svg(figure, name=key, alt=f"{alt}: {told}")


# --- ranks --------------------------------------------------------------------------------------


def _ranks(values: Floats) -> Floats:
    """Return ranks `[n]`, 1 the highest; equal values share the middle of theirs."""
    _, group, counts = np.unique(-values, return_inverse=True, return_counts=True)
    middle: Floats = np.cumsum(counts) - (counts - 1) / 2
    return middle[group]


def _noise(axes: Axes, truths: Sequence[Sequence[float]], means: Floats, y: Floats) -> None:
    """Draw from the rank of its lowest seed to that of its highest, among the others' means."""
    bars = []
    for i, values in enumerate(truths):
        others = np.delete(means, i)
        ends = [1 + float((others > value).sum()) for value in (min(values), max(values))]
        bars.append([(ends[0], y[i]), (ends[1], y[i])])
    axes.add_collection(
        LineCollection(bars, colors=COLOURS["dot"], linewidths=0.9, alpha=0.35, gid="assay-noise")
    )


def _rank_ticks(num: int) -> list[int]:
    """Return the first and the last rank, and round ones between."""
    step = next(s * 10**e for e in range(9) for s in (1, 2, 5) if num / (s * 10**e) <= 5)
    return sorted({1, *range(step, num - step // 2, step), num})


# --- frontier -----------------------------------------------------------------------------------


def _thousand_s(row: Mapping[str, Any]) -> float:
    return float(row["prepare_s"]) + 1000 * float(row["each_s"])


def _spread(
    axes: Axes, rows: Sequence[Mapping[str, Any]], x: Floats, ceiling: Mapping[str, Any] | None
) -> None:
    """Fix the range, so that what is drawn has its place when names are placed."""
    intervals = [row["tau"] for row in rows] + ([] if ceiling is None else [ceiling])
    parts = [interval[part] for interval in intervals for part in ("low", "value", "high")]
    ends = [float(end) for end in parts if end is not None]
    low, high = min([*ends, 0.0]), max([*ends, 0.2])
    axes.set_ylim(low - 0.06, high + 0.06)
    below = max(tick for tick in _TICKS_S if tick <= x.min())
    left, right = min(x.min() / 2.5, below / 1.2), x.max() * 2.5
    ticks = {tick: text for tick, text in _TICKS_S.items() if left <= tick <= right}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(left, right)
    axes.xaxis.set_minor_locator(NullLocator())


def _ceiling(axes: Axes, ceiling: Mapping[str, Any]) -> None:
    if ceiling["low"] is not None:
        axes.axhspan(ceiling["low"], ceiling["high"], color=COLOURS["band"], alpha=0.16, lw=0,
                     gid="assay-ceiling")  # fmt: skip
    axes.axhline(
        ceiling["value"], color=COLOURS["band"], lw=1.2, ls=(0, (4, 3)), label="noise ceiling"
    )


def _lines(
    rows: Sequence[Mapping[str, Any]], x: Floats, y: Floats, best: NDArray[np.intp], level: Any
) -> list[Box]:
    """Return what is drawn as lines: intervals, the steps of the frontier and the ceiling."""
    found = [
        (at, row["tau"]["low"], at, row["tau"]["high"])
        for row, at in zip(rows, x)
        if row["tau"]["low"] is not None
    ]
    for i, j in pairwise(best):
        found += [(x[i], y[i], x[j], y[i]), (x[j], y[i], x[j], y[j])]
    return found if level is None else [*found, (x.min(), level, x.max(), level)]


def _name(
    figure: Figure,
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    points: Floats,
    lines: Sequence[Box],
) -> None:
    """Write each name beside its point `[n, 2]`, and join the two where they are apart."""
    figure.draw_without_rendering()  # settles where the axes are
    figure.set_layout_engine("none")
    scale = 72 / figure.dpi

    def placed(where: Any) -> list[tuple[float, float]]:
        return [(float(a), float(b)) for a, b in axes.transData.transform(where) * scale]

    at = placed(points)
    taken: list[Box] = [(a - 4, b - 4, a + 4, b + 4) for a, b in at]
    for left, low, right, high in lines:
        (x0, y0), (x1, y1) = placed([(left, low), (right, high)])
        taken.append((x0 - 1.5, y0 - 1.5, x1 + 1.5, y1 + 1.5))
    x0, y0, x1, y1 = (float(edge) * scale for edge in axes.get_window_extent().extents)
    names = [printable(shortened(str(row["estimator"]), 24)) for row in rows]
    sizes = [(len(name) * _LETTER, _LINE) for name in names]
    for name, point, box in zip(
        names, at, place_names(at, sizes, taken=taken, within=(x0, y0, x1, y1))
    ):
        _write(axes, name, point, box)


def _write(axes: Axes, name: str, point: tuple[float, float], box: Box) -> None:
    left, bottom, right, top = box
    near = (min(max(point[0], left), right), min(max(point[1], bottom), top))
    apart = float(np.hypot(near[0] - point[0], near[1] - point[1])) > 10
    if apart:
        axes.annotate(
            "", point, near, xycoords="figure points", textcoords="figure points",
            arrowprops={"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.7, "shrinkA": 0,
                        "shrinkB": 4},
        )  # fmt: skip
    side = "left" if left >= point[0] else "right" if right <= point[0] else "center"
    x = {"left": left, "right": right, "center": (left + right) / 2}[side]
    axes.annotate(
        name, (x, (bottom + top) / 2), xycoords="figure points", ha=side, va="center", fontsize=10,
        gid="assay-halo",
    )  # fmt: skip
