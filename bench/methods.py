"""Searches that learn against random search and evolution, at equal time, on Fashion-MNIST.

    python -m bench.methods --out runs/bench-methods                     # 3 seeds, over two hours
    python -m bench.methods --seeds 1 --minutes 1 --random 3 --only random --also   # a look

A chain of six inverted bottlenecks, 3 kernels x 2 expansions each, or none; ONNX Runtime, one
thread; limit = half of what the largest takes by the table. Each process trains with one thread,
and two run at a time, but for the searches on torch. What has ended lies in the folder and is not
run again, so a run that was stopped goes on, and one with other minutes or seeds takes over what it
can (one by another version needs a folder of its own). Strategies, estimators and the number of
finalists are as they come: so `random`, `evolution` and `nsga2` are scored by agreement with the
largest network, and those that bring their own paths by loss. Four questions; the last two are
those of `--also`, which without a word leaves both out:

1. Each search has the same time in all, the measuring of the latency table included, and the score
   as its only objective; its winner is trained from scratch by one recipe: test accuracy, latency,
   whether the limit held when all winners were measured again side by side; intervals of the means
   of three seeds are little more than their range. `random 40` trains so many random architectures
   by that recipe, and keeps the best on validation; its interval resamples the trainings. In either
   what is trained holds the limit by the table and when its whole network is measured. The other
   job trains meanwhile, and no tolerance makes up for it: either may lose what is near the limit.
   `seconds` of a search has its judging, files and report in it, those of a training have not;
   `cpu_s`, of each run, is what its process used, from its start to its end.
2. How much cheaper is a search? The method that is best on validation at the longest time is run
   at all `--minutes`; `value` is the cost of the 40 trainings ÷ that of the shortest searches whose
   mean over the seeds is as good on test as the best of the 40 on validation, 0 where none is. Its
   interval resamples the 40, and the seeds of each time; it leans upward, as the interval of
   `random 40` leans downward: a draw may lack the best of the 40, and none has a better one.
3. `proxyless` aiming at the limit of latency, at as large a share of the largest MACs, and at
   nothing, with no limit beside and its likeliest architecture taken: what do the winners take?
4. The winners of `evolution` for two targets, ONNX Runtime and torch, each under half of what the
   largest takes there (`limit_ms`; midway where the smallest takes more): each measured on both.

A job that fails is named in `failed`, and begun anew when the benchmark is run again, one that was
killed goes on; `seeds` of a row says how many runs it is of.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture
from assay.train.ready import load_task
from bench.harness import interval, report
from bench.jobs import run_all
from bench.methods_jobs import (
    RANDOM,
    TARGETS,
    Search,
    Training,
    chain,
    prepare_table,
)

AIMS = ("latency_ms", "macs", "nothing")
METHODS = (
    "random", "evolution", "nsga2", "enas", "darts", "proxyless", "proxyless reinforce",
    "random by low-fidelity", "evolution by low-fidelity",
)  # fmt: skip
"""Strategies, with the estimator `one-shot` where none is named."""
ALSO = ("aims", "targets")


# --- what they say --------------------------------------------------------------------------------


def parted(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of what did not fail, and the names of what did."""
    done = [row for row in rows if "failed" not in row]
    return done, [row["failed"] for row in rows if "failed" in row]


def rows_of(
    rows: Sequence[dict[str, Any]],
    name: str,
    *,
    target: str = "onnxruntime",
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of a name and target; those of some minutes, if these are given."""
    own = [row for row in rows if (row["name"], row["target"]) == (name, target)]
    return [row for row in own if minutes is None or row["minutes"] == minutes]


def mean_of(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def ranked(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return runs by their accuracy on validation, the best one last."""
    return sorted(runs, key=lambda run: float(run["valid"]))


def best_of(runs: Sequence[dict[str, Any]], num: int) -> float:
    """Return the expected test accuracy of the best on validation of `num` drawn from the runs.

    Exact, over all draws without replacement.
    """
    # The i-th worst is the best of the draw if the others come from the i below it.
    draws = comb(len(runs), num)
    return sum(
        comb(i, num - 1) / draws * float(run["accuracy"]) for i, run in enumerate(ranked(runs))
    )


def as_good(runs: Sequence[dict[str, Any]], accuracy: float) -> int | None:
    """Return the fewest random trainings that are expected to reach an accuracy; None if none."""
    for num in range(1, len(runs) + 1):
        if best_of(runs, num) >= accuracy:
            return num
    return None


def cheaper(runs: Sequence[dict[str, Any]], *searches: Sequence[Mapping[str, Any]]) -> float:
    """Return the cost of random trainings ÷ that of the shortest searches that are as good.

    These are the first whose mean on test reaches what the best training on validation has there;
    0 where none do. A mean, because the best of some seeds is as good by luck.

    Args:
        runs: The trainings.
        searches: The rows of each length, from the shortest on.
    """
    bar, cost_s = ranked(runs)[-1]["accuracy"], sum(run["seconds"] for run in runs)
    for rows in searches:
        if mean_of(rows, "accuracy") >= bar:
            return float(cost_s / mean_of(rows, "seconds"))
    return 0.0


def bootstrap(
    statistic: Callable[..., float], *samples: Sequence[Any], draws: int = 2000
) -> tuple[float, float]:
    """Return a 95 % percentile-bootstrap interval of a statistic of samples, each resampled."""
    rng = np.random.default_rng(0)

    def again(sample: Sequence[Any]) -> list[Any]:
        return [sample[i] for i in rng.integers(len(sample), size=len(sample))]

    found = [statistic(*map(again, samples)) for _ in range(draws)]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def measured_again(rows: Sequence[dict[str, Any]]) -> None:
    """Measure all winners side by side on every target, which no selection has seen."""
    space, example = chain(), load_task("fashion-mnist").example(1)
    networks = [space.build(Architecture(row["architecture"])) for row in rows]
    for name, device in TARGETS.items():
        with device.ready():
            runners = [device.runner(network, example) for network in networks]
            for row, median in zip(rows, device.medians_ms(runners)):
                row[f"{name}_ms"] = round(median, 5)
    for row in rows:
        row["over"] = round(row[f"{row['target']}_ms"] / row["limit_ms"] - 1, 4)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of a method's runs, and what of them is not to be averaged."""
    accuracies = [row["accuracy"] for row in rows]
    return {
        "seeds": len(rows),
        "accuracy": round(mean_of(rows, "accuracy"), 4),
        "interval": [round(v, 4) for v in interval(accuracies, np.mean)],
        "valid": round(mean_of(rows, "valid"), 4),
        "seconds": round(mean_of(rows, "seconds"), 1),
        "cpu_s": [round(row["cpu_s"], 1) for row in rows],
        "whole_recipe": all(row["whole_recipe"] for row in rows),
        "limit_ms": rows[0]["limit_ms"],
        "macs": [int(row["macs"]) for row in rows],
        "over": [row["over"] for row in rows],
        **{f"{name}_ms": [row[f"{name}_ms"] for row in rows] for name in TARGETS},
    }


def summary_of_random(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the same of the best random training on validation, at the cost of all of them."""
    bounds = bootstrap(lambda drawn: ranked(drawn)[-1]["accuracy"], runs)
    return summary(ranked(runs)[-1:]) | {
        "trainings": len(runs),
        "interval": [round(v, 4) for v in bounds],
        "seconds": round(sum(run["seconds"] for run in runs), 1),
        "cpu_s": [round(sum(run["cpu_s"] for run in runs), 1)],
    }


def best_on_validation(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Return the method that is best on validation; without it or a training there is no report."""
    done, failed = parted(rows)
    by_name = {name: own for name in names if (own := rows_of(done, name))}
    for what, found in (("search", by_name), ("random training", rows_of(done, RANDOM))):
        if not found:
            raise SystemExit(f"no {what} came through, so nothing is compared; failed={failed}")
    return max(by_name, key=lambda name: mean_of(by_name[name], "valid"))


def conclude(
    rows: Sequence[dict[str, Any]],
    best: str,
    *,
    names: Sequence[str],
    minutes: Sequence[float],
    seeds: int,
) -> None:
    """Measure all winners again, and report."""
    done, failed = parted(rows)
    runs, longest = rows_of(done, RANDOM), max(minutes)
    measured_again([*(row for row in done if row["name"] != RANDOM), ranked(runs)[-1]])
    by_name = {n: own for n in names if (own := rows_of(done, n, minutes=longest))}
    by_minutes = {m: own for m in sorted(minutes) if (own := rows_of(done, best, minutes=m))}
    searches = [*by_minutes.values()]
    scoring = {
        n: 1000 * mean_of(runs, "seconds")
        / float(np.mean([r["prepare_s"] + 1000 * r["each_s"] for r in own]))
        for n, own in by_name.items()
    }  # fmt: skip
    report(
        "methods", cheaper(runs, *searches), "ratio", ">= 20", bootstrap(cheaper, runs, *searches),
        best=best, failed=failed, seeds=seeds, minutes=minutes,
        worth={name: as_good(runs, mean_of(own, "accuracy")) for name, own in by_name.items()},
        scoring_1000={name: round(ratio, 1) for name, ratio in scoring.items()},
        table={RANDOM: summary_of_random(runs),
               **{name: summary(own) for name, own in by_name.items()}},
        by_minutes={f"{m:g}": summary(own) for m, own in by_minutes.items()},
        aims={aim: summary(own) for aim in AIMS if (own := rows_of(done, f"aim {aim}"))},
        targets={target: summary(own) for target in TARGETS
                 if (own := rows_of(done, "evolution", target=target, minutes=longest))},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/bench-methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--random", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--also", nargs="*", default=[*ALSO], choices=ALSO)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    task, space = load_task("fashion-mnist"), chain()
    for target in TARGETS:
        prepare_table(given.out, target, space, task)
    longest, seeds, also = max(given.minutes), range(given.seeds), given.also
    rows = run_all(given.out, [
        *(Search(name, longest, seed) for seed in seeds for name in given.only),
        *(Training(i) for i in range(given.random)),
        *(Search("proxyless", longest, s, aim=a) for s in seeds for a in AIMS if "aims" in also),
    ])  # fmt: skip
    # Beside another job most of what torch runs seemed over the limit when it was measured whole.
    torch_runs = [
        Search("evolution", longest, seed, target="torch") for seed in seeds if "targets" in also
    ]
    rows += run_all(given.out, torch_runs, at_once=1)
    best = best_on_validation(rows, given.only)
    rows += run_all(
        given.out, [Search(best, m, s) for s in seeds for m in given.minutes if m < longest]
    )
    conclude(rows, best, names=given.only, minutes=given.minutes, seeds=given.seeds)


if __name__ == "__main__":
    main()
