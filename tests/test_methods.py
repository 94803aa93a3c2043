"""What the benchmark of methods makes of its runs: nothing picked by luck, nothing left out."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bench import methods, methods_jobs
from bench.harness import interval
from bench.jobs import run, run_all
from bench.methods import (
    METHODS,
    as_good,
    best_of,
    best_on_validation,
    bootstrap,
    cheaper,
    conclude,
    parted,
    rows_of,
    summary,
    summary_of_random,
)
from bench.methods_jobs import RANDOM, TARGETS, Search, Training, chain, whole_ms
from torch import nn

from assay.cost import derive
from assay.testing.fakes import FakeDevice


def trained(valid: float, accuracy: float, seconds: float = 10.0) -> dict:
    """Return the row of a random training whose latencies were measured."""
    return {
        "name": RANDOM, "target": "onnxruntime", "valid": valid, "accuracy": accuracy,
        "seconds": seconds, "cpu_s": seconds + 1, "macs": 1e6, "whole_recipe": True,
        "over": -0.1, "limit_ms": 0.5,
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
    assert told["cpu_s"] == [11.0, 11.0, 11.0]


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
    done, failed = parted(rows)
    assert failed == ["enas-0"]
    assert done[0] == done[1] == {"name": "enas", "cpu_s": done[0]["cpu_s"]}
    assert 0 < done[0]["cpu_s"] <= time.process_time()


def test_a_row_that_was_cut_off_as_it_was_written_is_made_again(tmp_path, monkeypatch):
    write = Path.write_text

    def killed(path: Path, text: str) -> None:
        write(path, text[:5])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Job({"name": "enas"}))
    assert run(tmp_path, Job({"name": "enas"}))["name"] == "enas"


@pytest.mark.parametrize("text", ["", '{"na'])
def test_a_row_that_cannot_be_read_stops_no_other(tmp_path, text):
    (tmp_path / "enas-0.json").write_text(text)
    row = run(tmp_path, Job())
    assert row["failed"] == "enas-0"
    assert "JSONDecodeError" in row["error"]


class Killed(Job):
    key = "enas-1"  # of a file of its own: what another has written would only be read

    def __call__(self, out: Path) -> dict:
        os._exit(1)


def test_a_job_whose_process_is_killed_stops_no_other(tmp_path):
    rows = run_all(tmp_path, [Killed(), Job({"name": "enas"})])
    assert [row.get("failed") for row in rows] == ["enas-1", None]
    assert rows[1]["name"] == "enas"


def test_a_search_that_failed_begins_anew(tmp_path):
    (tmp_path / "enas-0").mkdir()
    assert run(tmp_path, Job())["failed"] == "enas-0"
    assert not (tmp_path / "enas-0").exists()


# --- the same rules for all -----------------------------------------------------------------------


TASK = SimpleNamespace(example=lambda num: None)


class Disturbed(FakeDevice):
    """Takes twice as long where a network is measured once."""

    def latency(self, module, example):
        told = super().latency(module, example)
        return replace(told, median_ms=2 * told.median_ms)


@pytest.mark.parametrize(("limit", "told_ms"), [(1.5, 1.2), (1.0, 0.6), (0.5, 0.6)])
def test_a_network_that_seems_over_the_limit_is_measured_once_more(limit, told_ms):
    assert whole_ms(nn.Identity(), None, Disturbed(lambda module: 0.6), limit) == told_ms


def test_what_is_trained_at_random_holds_the_limit_by_the_table_and_whole(monkeypatch):
    space, rng = chain(), derive(0, RANDOM, 7)
    points = [space.canonical(space.sample(rng)) for _ in range(3)]
    whole = iter((2.0, 2.0, 0.5))  # the second point once and again, and the third
    monkeypatch.setitem(TARGETS, "onnxruntime", FakeDevice(lambda module: next(whole)))

    def by_table(quantity: str, point) -> float:
        return 2.0 if point == points[0] else 0.5

    assert Training(7).drawn(space, TASK, by_table, 1.0) == points[2]


@pytest.mark.parametrize("method", METHODS)
def test_the_score_is_all_that_a_search_is_to_raise(tmp_path, monkeypatch, method):
    given: dict = {}

    class Called(Exception):
        pass

    def search(*args, **kwargs):
        given.update(kwargs)
        raise Called

    monkeypatch.setattr(methods_jobs, "search", search)
    monkeypatch.setattr(methods_jobs, "load_task", lambda name: TASK)
    monkeypatch.setattr(methods_jobs, "half", lambda *args: 0.5)
    (tmp_path / "table-onnxruntime.seconds").write_text("1.0")
    with pytest.raises(Called):
        Search(method, 1.0, 0)(tmp_path)
    assert (given["objectives"], given["limits"]) == (("score",), {"latency_ms": 0.5})


# --- the report at the end of hours ---------------------------------------------------------------


@cache
def point() -> dict:
    """Return an architecture as rows have it."""
    return dict(chain().sample(derive(0, "row")))


def won(name: str, accuracy: float, *, seed: int = 0, minutes: float = 4.0) -> dict:
    """Return the row of a search."""
    return {
        "name": name, "seed": seed, "minutes": minutes, "target": "onnxruntime",
        "seconds": 60 * minutes, "cpu_s": 60 * minutes + 1, "accuracy": accuracy, "valid": accuracy,
        "macs": 1e6, "limit_ms": 0.5, "whole_recipe": True, "prepare_s": 10.0, "each_s": 0.01,
        "architecture": point(),
    }  # fmt: skip


def ended() -> list[dict]:
    """Return rows of which all of a method failed, and all but one of another."""
    more = {"architecture": point(), "limit_ms": 0.5}
    return [
        *(won("random", 0.8, seed=seed) for seed in range(3)),
        won("evolution", 0.9),
        {"failed": "evolution-onnxruntime-4min-1", "error": "..."},
        {"failed": "enas-onnxruntime-4min-0", "error": "..."},
        *(run | more for run in RUNS),
        won("aim macs", 0.7),
    ]


def test_the_report_is_made_of_what_came_through(monkeypatch, capsys):
    monkeypatch.setitem(TARGETS, "onnxruntime", FakeDevice(lambda module: 0.4))
    monkeypatch.setitem(TARGETS, "torch", FakeDevice(lambda module: 0.6))
    monkeypatch.setattr(methods, "load_task", lambda name: TASK)
    names = ["random", "evolution", "enas"]
    best = best_on_validation(ended(), names)
    rows = [*ended(), won(best, 0.85, minutes=1.0)]
    conclude(rows, best, names=names, minutes=[4.0, 1.0, 2.0], seeds=3)
    told = json.loads(capsys.readouterr().out)
    assert (told["best"], told["value"]) == ("evolution", round(40 / 60, 4))
    assert told["failed"] == ["evolution-onnxruntime-4min-1", "enas-onnxruntime-4min-0"]
    assert {name: row["seeds"] for name, row in told["table"].items()} == {
        RANDOM: 1, "random": 3, "evolution": 1,
    }  # fmt: skip
    assert told["table"]["random"]["over"] == [-0.2] * 3
    assert told["table"][RANDOM]["torch_ms"] == [0.6]
    assert {m: row["accuracy"] for m, row in told["by_minutes"].items()} == {"1": 0.85, "4": 0.9}
    assert [told[part].keys() for part in ("aims", "targets")] == [{"macs"}, {"onnxruntime"}]


@pytest.mark.parametrize(
    ("kept", "what"), [((RANDOM,), "search"), (("random", "evolution"), "random training")]
)
def test_a_comparison_without_one_side_says_so_in_a_line(kept, what):
    rows = [row for row in ended() if row.get("name", "failed") in (*kept, "failed")]
    with pytest.raises(SystemExit, match=rf"^no {what} came through.*'enas-onnxruntime-4min-0'\]$"):
        best_on_validation(rows, ["random", "evolution", "enas"])
