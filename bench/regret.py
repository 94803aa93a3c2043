"""Regret of each strategy against queries, on the published truth of NAS-Bench-201 on CIFAR-10.

    python -m bench.regret --workers 2                    # 200 seeds of every method
    python -m bench.regret --only random evolution --seeds 20

Over the 6,466 distinct cells. A query tells the validation accuracy after 12 epochs
(`c10valid_val_12`), which guides; what a method has found so far is the cell of the best answer,
and the mean test accuracy after 200 epochs (`c10_test_200`) judges it: regret is the best of the
table less that of this cell, in points. Strategies are as they come, asked for one at a time. A
cell that was queried before is not paid for again: the strategy is asked anew, as often as the
search loop would, and if nothing new comes of that, its curve stays where it is.

`predictor` is `assay.estimators.predictor.Predictor` learning the validation accuracy itself: a
tenth of the queries spread over the space, then 8 at a time by expected improvement.

Each run is a line of `regret.jsonl` in --out, and a run that is there is not repeated. `value` is
the mean regret of evolution after 200 queries ÷ that of random, paired by seed.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from scipy.stats import wilcoxon

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, History, Proposal, Strategy, Trial
from assay.cost import Budget, derive
from assay.estimators.features import Features
from assay.estimators.predictor import Predictor
from assay.report.svg import blank, style
from assay.run.names import STRATEGIES, resolve
from assay.space.space import Space
from assay.zoo.cell import cell, from_arch_string
from bench.harness import interval, report

SHARED = Path("../shared/data")
GUIDES, JUDGES = "c10valid_val_12", "c10_test_200"
QUERIES = 200
AT = (25, 50, 100, 200)
TRIES = 200
"""Of the search loop."""
METHODS = ("random", "evolution", "nsga2", "reinforce", "predictor", "optuna:tpe", "optuna:nsga3")


@dataclass
class Table:
    """The published accuracies of the distinct cells, by canonical architecture.

    An estimator too, whose estimates are its answers; it remembers what it was asked.
    """

    space: Space
    answers: Mapping[Architecture, tuple[float, float]]
    asked: list[Architecture] = field(default_factory=list)

    @property
    def best(self) -> float:
        return max(test for _, test in self.answers.values())

    def regrets(self) -> list[float]:
        """Return the regret after each query; the first of equal answers is kept."""
        found, curve = (-np.inf, 0.0), []
        for point in self.asked:
            found = max(found, self.answers[point], key=lambda answer: answer[0])
            curve.append(self.best - found[1])
        return curve

    def query(self, point: Architecture) -> float:
        self.asked.append(point)
        return self.answers[point][0]

    # --- what a predictor wants of the estimator behind it ------------------------------------

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Any]:
        yield from ()

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        return [Estimate(self.query(p.architecture)) for p in proposals]


@functools.cache
def space() -> Space:
    """One cell a stage: nothing is trained, and MACs of five differ by a scale and a constant."""
    return cell(cells=1)


@functools.cache
def read(truth: Path) -> dict[Architecture, tuple[float, float]]:
    """Return (validation, test) accuracy of each distinct cell."""
    with truth.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rep_index"] == row["index"]]
    points = [space().canonical(from_arch_string(row["arch_str"])) for row in rows]
    assert len(set(points)) == len(rows)  # our classes of cells are the published ones
    return {p: (float(row[GUIDES]), float(row[JUDGES])) for p, row in zip(points, rows)}


@functools.cache
def features(truth: Path) -> Features:
    """Describe every cell once, for all predictors."""
    described = Features(space(), torch.zeros(1, 3, 32, 32))
    for point in read(truth):
        described(point)
    return described


def ask_and_tell(strategy: Strategy, table: Table, seed: int) -> None:
    """Query one new cell after another, as the search loop would."""
    history = History(table.space)
    while len(history) < QUERIES:
        point = new_point(strategy, history, seed)
        if point is None:
            return
        score = table.query(point)
        estimate = Estimate(score)
        history.append(Trial(len(history), point, "scored", estimate, objectives=(score,)))


def new_point(strategy: Strategy, history: History, seed: int) -> Architecture | None:
    for attempt in range(TRIES):
        rng = derive(seed, len(history), attempt)
        (proposal,) = strategy.ask(history, 1, rng=rng)
        point = history.space.canonical(proposal.architecture)
        if history.seen(point) is None:
            return point
    return None


def predict(table: Table, described: Features, seed: int) -> None:
    """Query what a predictor chooses to learn."""
    predictor = Predictor(of=table, sample=QUERIES, explore=0.1)
    predictor._features = described  # else each would describe the space again
    nothing: Any = None  # a table needs no task, no recipe and no executor
    ctx = Context(table.space, nothing, nothing, nothing, "cpu", seed, History(table.space))
    for _ in predictor.prepare(ctx, Budget()):
        pass


def run(method: str, seed: int, truth: Path) -> dict[str, Any]:
    """Return the line of one run."""
    torch.set_num_threads(1)
    table = Table(space(), read(truth))
    described = features(truth) if method == "predictor" else None
    started = time.process_time()
    if described is not None:
        predict(table, described, seed)
    elif method == "reinforce":  # its weights are drawn, too: another draw for each seed
        ask_and_tell(resolve("strategy", STRATEGIES, method, {"seed": seed}), table, seed)
    else:
        ask_and_tell(resolve("strategy", STRATEGIES, method), table, seed)
    spent = time.process_time() - started
    curve = table.regrets()
    return {
        "method": method, "seed": seed, "cpu_s": round(spent, 3), "queries": len(curve),
        "regret": [round(r, 4) for r in curve + curve[-1:] * (QUERIES - len(curve))],
    }  # fmt: skip


def run_all(todo: Sequence[tuple[str, int]], truth: Path, workers: int) -> Iterator[dict[str, Any]]:
    one = functools.partial(run, truth=truth)
    methods, seeds = [m for m, _ in todo], [s for _, s in todo]
    if workers == 1 or not todo:
        yield from map(one, methods, seeds)
        return
    read(truth)  # a forked worker finds it there
    if "predictor" in methods:
        features(truth)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(one, methods, seeds)


# --- what comes of the runs -----------------------------------------------------------------------


def with_interval(
    values: Any,
    statistic: Callable[[Any], float] = np.mean,  # type: ignore[assignment]
) -> list[float]:
    return [round(float(v), 4) for v in (statistic(values), *interval(values, statistic))]


def compared(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each method, after each of `AT`, its regret and how it differs from random's."""
    told: dict[str, Any] = {}
    for method, curve in curves.items():
        told[method] = {"regret": {k: with_interval(curve[:, k - 1]) for k in AT}}
        if method != "random":
            less = {k: curve[:, k - 1] - curves["random"][:, k - 1] for k in AT}
            told[method]["less_random"] = {k: with_interval(d) for k, d in less.items()}
            told[method]["wilcoxon_p"] = {k: p_value(d) for k, d in less.items()}
    return told


def p_value(differences: Any) -> float:
    """Return the two-sided p of Wilcoxon's signed ranks; 1 where no pair differs."""
    return float(f"{wilcoxon(differences).pvalue:.3g}") if differences.any() else 1.0


def draw(curves: Mapping[str, Any], file: Path) -> None:
    """Draw mean regret against queries; the bands are 95 % intervals of the mean."""
    shown = np.unique(np.geomspace(1, QUERIES, 40).round().astype(int))
    with style("regret"):
        figure, axes = blank(300, width=480)
        for method, curve in curves.items():
            (line,) = axes.plot(range(1, QUERIES + 1), curve.mean(0), label=method)
            bands = np.array([interval(curve[:, k - 1], np.mean, draws=500) for k in shown])
            axes.fill_between(shown, *bands.T, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set(xscale="log", yscale="log", xlim=(5, QUERIES), ylim=(0.01, 5))
        axes.set(xlabel="queries of distinct cells", ylabel="regret of test accuracy, points")
        axes.xaxis.set(major_locator=FixedLocator([5, 10, *AT]), major_formatter="{x:g}")
        axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.legend(labelspacing=0.2)
        figure.savefig(file, facecolor="white", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-regret"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    truth, file = given.data / "nasbench201_cifar10.csv", given.out / "regret.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    file.touch()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    known = {(line["method"], line["seed"]) for line in lines}
    # Random is what all others are compared with.
    methods = [m for m in METHODS if m in given.only or m == "random"]
    todo = [(m, s) for m in methods for s in range(given.seeds) if (m, s) not in known]
    with file.open("a") as out:
        for line in run_all(todo, truth, given.workers):
            print(json.dumps(line), file=out, flush=True)
            lines.append(line)
    runs = {m: {x["seed"]: x for x in lines if x["method"] == m} for m in methods}
    seeds = range(given.seeds)
    curves = {m: np.array([runs[m][s]["regret"] for s in seeds]) for m in methods}
    draw(curves, given.out / "regret.svg")
    told = compared(curves)
    for m in methods:
        told[m]["cpu_s"] = round(float(np.mean([runs[m][s]["cpu_s"] for s in seeds])), 3)
        told[m]["queries_least"] = min(runs[m][s]["queries"] for s in seeds)
    rival = "evolution" if "evolution" in methods else methods[-1]
    pairs = np.stack([curves[rival][:, -1], curves["random"][:, -1]], axis=1)
    value, *bounds = with_interval(pairs, lambda p: p[:, 0].mean() / p[:, 1].mean())
    report(
        "regret", value, f"regret of {rival} / regret of random, after {QUERIES} queries", "< 1",
        (bounds[0], bounds[1]), seeds=given.seeds, guides=GUIDES, judges=JUDGES, methods=told,
    )  # fmt: skip


if __name__ == "__main__":
    main()
