"""The figures: one function each, plain numbers in, one SVG element out.

Above `marks.LIMIT` points a figure shows how many fell into each cell instead of every one, so
a page stays small whatever the length of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from assay import pareto
from assay.report.marks import Floats, bars, cloud, fix_range, legend, rug
from assay.report.svg import COLOURS, blank, style, to_svg
from assay.report.units import amount, axis, duration

__all__ = [
    "front",
    "front_line",
    "ledger",
    "macs_against_latency",
    "predicted_against_measured",
    "progress",
    "saving",
]


def front(
    cost: Sequence[float],
    score: Sequence[float],
    *,
    quantity: str = "latency_ms",
    score_name: str = "score",
    limit: float | None = None,
    infeasible: Sequence[float] = (),
    finalists: Sequence[tuple[float, float]] = (),
    winner: tuple[float, float] | None = None,
) -> str:
    """Draw score against cost for all trials, with the Pareto front and the limit.

    Args:
        cost: `[n]`, of the scored trials; lower is better, in the unit its name tells.
        score: `[n]`, higher is better.
        quantity: What `cost` is.
        score_name: What stands on the axis.
        limit: The most `cost` that was allowed.
        infeasible: `[m]`, the cost of trials over a limit; they were never scored, so they are
            ticks on the axis.
        finalists: (cost, score) of the trials that were trained from scratch.
        winner: (cost, score) of the one handed back.
    """
    x, y = np.asarray(cost, float), np.asarray(score, float)
    over = np.asarray(infeasible, float)
    label, unit = axis(quantity, max([*x, *over, limit or 0], default=1.0))
    x, over = x / unit, over / unit
    with style("front"):
        figure, axes = blank(300)
        fix_range(axes, [*x, *over, *([limit / unit] if limit else [])], y)
        if limit is not None:
            _forbid(axes, limit / unit, f"limit {amount(quantity, float(limit))}")
        cloud(axes, x, y, "trials", f"{len(x):,} scored")
        line = front_line(x, y)
        axes.plot(
            x[line],
            y[line],
            color=COLOURS["front"],
            lw=1.4,
            marker="o",
            ms=3.4,
            drawstyle="steps-post",
            label="front",
            gid="assay-pareto",
        )
        _marks(
            axes, [(a / unit, b) for a, b in finalists], winner and (winner[0] / unit, winner[1])
        )
        rug(axes, over, "infeasible", f"{len(over):,} over a limit")
        axes.set(xlabel=label, ylabel=score_name)
        legend(axes)
        return to_svg(
            figure,
            name="front",
            alt=f"{score_name} against {label}: {len(x)} scored trials, {len(line)} of them on "
            f"the front, {len(over)} over a limit",
        )


def progress(
    numbers: Sequence[int],
    score: Sequence[float],
    *,
    score_name: str = "score",
    infeasible: Sequence[int] = (),
    failed: Sequence[int] = (),
) -> str:
    """Draw the score of each trial in the order of proposing, and the best so far.

    Args:
        numbers: `[n]`, numbers of the scored trials, ascending.
        score: `[n]`, higher is better.
        score_name: What stands on the axis.
        infeasible: Numbers of trials over a limit.
        failed: Numbers of trials that failed.
    """
    x, y = np.asarray(numbers, float), np.asarray(score, float)
    with style("progress"):
        figure, axes = blank(300)
        fix_range(axes, [*x, *infeasible, *failed], y)
        cloud(axes, x, y, "trials", f"{len(x):,} scored")
        best = np.maximum.accumulate(y) if len(y) else y
        steps = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
        ends = [*x[steps], *x[-1:]], [*best[steps], *best[-1:]]
        axes.plot(
            *ends,
            color=COLOURS["front"],
            drawstyle="steps-post",
            label="best so far",
            gid="assay-best",
        )
        over = np.asarray(infeasible, float)
        rug(axes, over, "infeasible", f"{len(over):,} over a limit")
        if len(failed):
            axes.plot(
                failed,
                np.full(len(failed), 0.05),
                "x",
                color=COLOURS["over"],
                ms=5,
                label=f"{len(failed):,} failed",
                mew=1.2,
                transform=axes.get_xaxis_transform(),
                gid="assay-failed",
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="trial", ylabel=score_name)
        legend(axes)
        return to_svg(
            figure,
            name="progress",
            alt=f"{score_name} of {len(x)} trials in the order of proposing; the best so far rose "
            f"{max(len(steps) - 1, 0)} times after the first",
        )


def predicted_against_measured(
    predicted: Sequence[float],
    measured: Sequence[float],
    *,
    rmse_ms: float | None = None,
    tau: float | None = None,
    within_10: float | None = None,
) -> str:
    """Draw what the latency table said against what whole networks took, with a ±10 % band.

    Args:
        predicted: `[n]`, ms.
        measured: `[n]`, ms.
        rmse_ms: Root mean square error.
        tau: Kendall's rank correlation.
        within_10: Share of the networks whose prediction is within ±10 % of the measurement.
    """
    x, y = np.asarray(measured, float), np.asarray(predicted, float)
    with style("predicted"):
        figure, axes = blank(360)
        both = np.concatenate([x, y])
        low, high = (both.min(), both.max()) if len(both) else (0.0, 1.0)
        margin = 0.06 * (high - low) or 0.06 * high or 0.06
        ends = np.array([max(low - margin, 0.0), high + margin])
        axes.fill_between(
            ends,
            ends * 0.9,
            ends * 1.1,
            color=COLOURS["band"],
            alpha=0.16,
            lw=0,
            label="±10 %",
            gid="assay-band",
        )
        axes.plot(ends, ends, color=COLOURS["band"], lw=1.0)
        cloud(axes, x, y, "networks", f"{len(x)} networks it never saw")
        said = [
            f"RMSE {amount('rmse_ms', rmse_ms)}" if rmse_ms is not None else "",
            f"Kendall τ {tau:.3f}" if tau is not None else "",
            f"{within_10 * 100:.0f} % within ±10 %" if within_10 is not None else "",
        ]
        text = "\n".join(part for part in said if part)
        axes.text(0.97, 0.04, text, transform=axes.transAxes, ha="right", va="bottom")
        axes.set(xlabel="measured (ms)", ylabel="predicted (ms)", xlim=ends, ylim=ends)
        axes.set_aspect("equal")
        legend(axes)
        return to_svg(
            figure,
            name="predicted",
            alt=f"Predicted against measured latency of {len(x)} networks. "
            + ", ".join(part for part in said if part),
        )


def macs_against_latency(
    macs: Sequence[float],
    latency_ms: Sequence[float],
    *,
    pairs: Sequence[tuple[int, int]] = (),
) -> str:
    """Draw measured latency against MACs, and name the pairs of equal MACs that differ most.

    At most eight pairs have a letter.

    Args:
        macs: `[n]`.
        latency_ms: `[n]`, measured on whole networks.
        pairs: Indices of two networks of equal MACs; the first is lettered A, then B, C.
    """
    x, y = np.asarray(macs, float), np.asarray(latency_ms, float)
    label, unit = axis("macs", max(x, default=1.0))
    x = x / unit
    with style("macs"):
        figure, axes = blank(300)
        fix_range(axes, x, y)
        cloud(axes, x, y, "networks", f"{len(x)} whole networks")
        for place, (i, j) in enumerate(pairs):
            i, j = (i, j) if y[i] < y[j] else (j, i)
            axes.plot(
                x[[i, j]], y[[i, j]], "o-", color=COLOURS["winner"], ms=5, lw=1.4, gid="assay-pair"
            )
            end, side = (j, 1) if place % 2 == 0 else (i, -1)  # in turn above and below
            axes.annotate(
                f"{'ABCDEFGH'[place]}  {y[j] / y[i]:.2f} ×",
                (x[end], y[end]),
                (0, 6 * side),
                textcoords="offset points",
                ha="center",
                va="bottom" if side > 0 else "top",
                color=COLOURS["winner"],
                fontweight="bold",
                fontsize=10,
                gid="assay-halo",
            )
        axes.set(xlabel=label, ylabel="measured latency (ms)")
        legend(axes)
        return to_svg(
            figure,
            name="macs",
            alt=f"Measured latency against MACs of {len(x)} networks; {len(pairs)} pairs of equal "
            "MACs are marked with the ratio of their latencies",
        )


def ledger(steps: Mapping[str, float]) -> str:
    """Draw the seconds booked to each step as one bar each, in the order given."""
    names, seconds = list(steps), np.fromiter(steps.values(), float, len(steps))
    with style("ledger"):
        figure, axes = blank(46 + 30 * max(len(names), 1))
        bars(axes, names, seconds, ["dot"] * len(names))
        return to_svg(
            figure,
            name="ledger",
            alt="Seconds by step: " + ", ".join(f"{n} {duration(s)}" for n, s in steps.items()),
        )


def saving(spent_s: float, train_each_s: float) -> str:
    """Draw what finding the winner took beside what training every architecture would have."""
    with style("saving"):
        figure, axes = blank(106)
        seconds = np.array([spent_s, train_each_s])
        bars(axes, ["this search", "training each"], seconds, ["winner", "muted"])
        return to_svg(
            figure,
            name="saving",
            alt=f"This search took {duration(spent_s)}; training each architecture it scored would "
            f"have taken {duration(train_each_s)}",
        )


def front_line(cost: Floats, score: Floats) -> npt.NDArray[np.intp]:
    """Return the indices of the points that no other beats, by ascending cost.

    Args:
        cost: `[n]`, lower is better.
        score: `[n]`, higher is better.
    """
    best = np.array(pareto.front(np.stack([score, -cost], axis=1).tolist()), dtype=np.intp)
    return best[np.argsort(cost[best], kind="stable")]


def _forbid(axes: Axes, limit: float, text: str) -> None:
    """Shade what lies beyond a limit on the x axis."""
    right = axes.get_xlim()[1]
    axes.axvspan(limit, right, color=COLOURS["over"], alpha=0.07, lw=0, gid="assay-over")
    axes.axvline(limit, color=COLOURS["over"], lw=1.2, ls=(0, (4, 3)))
    axes.annotate(
        text,
        (limit, 1.0),
        (4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color=COLOURS["over"],
        fontsize=10,
        gid="assay-halo",
    )


def _marks(
    axes: Axes, finalists: Sequence[tuple[float, float]], winner: tuple[float, float] | None
) -> None:
    if finalists:
        axes.plot(
            *np.array(finalists).T,
            "o",
            mfc="none",
            mec=COLOURS["winner"],
            mew=1.4,
            ms=8,
            label="finalists",
            gid="assay-finalists",
        )
    if winner is not None:
        axes.plot(
            *winner,
            "*",
            color=COLOURS["winner"],
            mec=COLOURS["paper"],
            mew=0.8,
            ms=14,
            ls="none",
            label="winner",
            gid="assay-winner",
        )
