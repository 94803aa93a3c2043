"""What the benchmark of methods makes of its runs: nothing picked by luck, nothing left out."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from bench.harness import interval
from bench.methods import (
    RANDOM,
    TARGETS,
    as_good,
    best_of,
    bootstrap,
    cheaper,
    parted,
    rows_of,
    run,
    summary,
    summary_of_random,
)


def trained(valid: float, accuracy: float, seconds: float = 10.0) -> dict:
    """Return the row of a random training whose latencies were measured."""
    return {
        "name": RANDOM, "target": "onnxruntime", "valid": valid, "accuracy": accuracy,
        "seconds": seconds, "macs": 1e6, "whole_recipe": True, "over": -0.1,
        **{f"{target}_ms": 0.5 for target in TARGETS},
    }  # fmt: skip


def searched(*accuracies: float, seconds: float) -> list[dict]:
    return [{"accuracy": accuracy, "seconds": seconds} for accuracy in accuracies]


RUNS = [trained(0.7, 0.99), trained(0.9, 0.8), trained(0.8, 0.6), trained(0.6, 0.7)]
"""The best on validation is the second on test, at 40 seconds in all."""


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_the_best_of_a_draw_is_the_mean_over_all_draws(num):
    told = [max(drawn, key=lambda r: r["valid"])["accuracy"] for drawn in combinations(RUNS, num)]
    assert best_of(RUNS, num) == pytest.approx(np.mean(told))


def test_an_accuracy_is_worth_the_fewest_trainings_that_reach_it():
    runs = [trained(accuracy, accuracy) for accuracy in (0.6, 0.7, 0.8)]
    assert [as_good(runs, a) for a in (0.69, 0.76, 0.79, 0.81)] == [1, 2, 3, None]


def test_a_search_is_as_good_by_its_mean_and_not_by_its_luckiest_seed():
    lucky = searched(0.95, 0.7, 0.7, seconds=1.0)
    good = [*searched(0.8, seconds=2.0), *searched(0.8, seconds=3.0)]
    assert cheaper(RUNS, lucky, good, searched(0.9, seconds=4.0)) == 40 / 2.5
    assert cheaper(RUNS, lucky) == 0.0


def test_the_bar_is_resampled_too():
    """Where the only training that it rests on is not drawn, no search needs to be as good."""
    good = searched(0.9, 0.9, seconds=4.0)
    assert bootstrap(cheaper, RUNS[1:], good) == (7.5, 7.5)
    assert bootstrap(cheaper, [*RUNS[1:], trained(0.95, 0.95)], good) == (0.0, 10.0)


def test_of_one_sample_an_interval_is_that_of_the_other_benchmarks():
    values = [0.3, 0.9, 0.4, 0.7]
    assert bootstrap(np.mean, values) == interval(values, np.mean)


def test_the_best_random_training_stands_in_the_table_as_a_method_does():
    told = summary_of_random(RUNS)
    assert told.keys() == {*summary(RUNS), "trainings"}
    assert (told["accuracy"], told["seeds"], told["trainings"]) == (0.8, 1, 4)
    assert (told["seconds"], told["over"], told["torch_ms"]) == (40.0, [-0.1], [0.5])
    assert told["interval"] == [0.6, 0.99]  # where the best on validation is not drawn


def test_a_row_of_the_table_says_how_many_runs_it_is_the_mean_of():
    told = summary(RUNS[:3])
    assert (told["seeds"], told["accuracy"]) == (3, round((0.99 + 0.8 + 0.6) / 3, 4))


def test_rows_are_of_a_name_a_target_and_minutes():
    wanted = {"name": "enas", "target": "torch", "minutes": 2.0}
    others = [{**wanted, key: None} for key in wanted]
    assert rows_of([*RUNS, wanted, *others], "enas", target="torch", minutes=2.0) == [wanted]
    assert rows_of([*others, *RUNS], RANDOM) == RUNS


class Job:
    key = "enas-0"

    def __init__(self, *told: dict | None) -> None:
        self.told = iter(told)

    def __call__(self, out: Path) -> dict:
        found = next(self.told)
        if found is None:
            raise ZeroDivisionError("once")
        return found


def test_a_job_that_fails_is_named_and_tried_again_and_one_that_ends_is_not(tmp_path):
    job = Job(None, {"name": "enas"})
    rows = [run(tmp_path, job) for _ in range(3)]
    assert "ZeroDivisionError: once" in rows[0]["error"]
    assert parted(rows) == ([{"name": "enas"}] * 2, ["enas-0"])
