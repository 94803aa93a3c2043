"""Milliseconds outside the estimator per trial with SQLite, limits by a latency table included."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from assay.contracts import Context, Estimate, History
from assay.executors.inline import Inline
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.run.limits import Aims
from assay.run.loop import Searcher
from assay.strategies.evolution import Evolution
from assay.study.store import Study
from assay.train.recipe import Recipe
from assay.zoo.mobile import mobile
from bench.harness import interval, report

SIZES = (1_000, 20_000)
REPEATS = 3


class Instant:
    """An estimator that costs nothing to speak of; its own time is taken off."""

    def __init__(self, space):
        self.space, self.seconds = space, 0.0
        self.weights = np.random.default_rng(0).normal(size=10_000)

    def estimate(self, ctx, proposals):
        started = time.perf_counter()
        scores = []
        for p in proposals:
            code = self.space.encode(p.architecture)
            scores.append(Estimate(float(code @ self.weights[: len(code)])))
        self.seconds += time.perf_counter() - started
        return scores


def per_trial_ms(trials: int, space, table: LatencyTable, example, limit: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        study = Study.open(Path(folder) / "study", identity={"bench": trials})
        study.begin_session({})
        estimator = Instant(space)
        ctx = Context(space, None, Recipe(), Inline(), "cpu", 0, History(space))
        measures = Measures(space, table.device, example, table)
        aims = Aims({"latency_ms": limit}, ("score", "-latency_ms"), measures.order)
        searcher = Searcher(ctx, study, Evolution(), estimator, aims, measures)
        started = time.perf_counter()
        searcher.run(trials, lambda *known: trials)
        seconds = time.perf_counter() - started - estimator.seconds
        study.end_session()
        study.close()
    return 1e3 * seconds / trials


def main() -> None:
    torch.set_num_threads(1)
    space, example = mobile(), torch.zeros(1, 1, 8, 8)
    space.example = example
    table = LatencyTable.build(space, Device(), example=example)
    rng = np.random.default_rng(0)
    limit = float(np.median([table.predict(space.sample(rng)) for _ in range(500)]))
    found = {
        n: [per_trial_ms(n, space, table, example, limit) for _ in range(REPEATS)] for n in SIZES
    }
    worst = max(SIZES, key=lambda n: float(np.median(found[n])))
    report(
        "evolution_overhead", float(np.median(found[worst])), "ms", "<= 1.0",
        interval(found[worst]), trials=worst,
        **{f"ms_at_{n}": [round(v, 4) for v in vs] for n, vs in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
