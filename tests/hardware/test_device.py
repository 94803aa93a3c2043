from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch
from torch import nn

from assay.errors import InvalidSetting
from assay.hardware import device as device_module
from assay.hardware.device import Device, cuda_name


class Scripted(Device):
    """Its runners are iterators over the milliseconds that their runs take."""

    def runner(self, module: nn.Module, example: Any) -> Any:
        return iter(example)

    def times_ms(self, runner: Any, runs: int, warmup: int | None = None) -> list[float]:
        for _ in range(self.warmup if warmup is None else warmup):
            next(runner)
        return [next(runner) for _ in range(runs)]


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [("runtime", "onnx", "did you mean 'onnxruntime'"), ("accelerator", "gpu", "cpu, cuda"),
     ("threads", 0, "at least 1"), ("batch", 0, "at least 1"), ("runs", 49, "at least 50"),
     ("warmup", 0, "at least 1"), ("threads", "2", "a whole number of at least 1"),
     ("threads", 1.5, "a whole number"), ("batch", True, "a whole number"),
     ("runs", None, "a whole number of at least 50")],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(setting, value, fix):
    with pytest.raises(InvalidSetting, match=f"{setting}={value!r}.*{fix}"):
        Device(**{setting: value})


def test_a_latency_is_the_median_and_ninth_decile_after_the_warm_up():
    device = Scripted(runs=101, warmup=3)
    latency = device.latency(nn.Identity(), [1e6] * 3 + [float(v) for v in range(101)])
    assert (latency.median_ms, latency.p90_ms, latency.runs) == (50.0, 90.0, 101)
    assert latency.settings == device.describe()


def test_side_by_side_a_slow_round_is_passed_over():
    def steady(ms: float, slow: range) -> Any:
        for run in range(10**6):
            yield 50.0 * ms if run in slow else ms

    rounds: list[tuple[int, int]] = []
    runners = [steady(0.1, range(120, 140)), steady(2.0, range(0)), steady(30.0, range(0))]
    medians = Scripted().medians_ms(runners, lambda done, total: rounds.append((done, total)))
    assert medians == [0.1, 2.0, 30.0]
    assert rounds == [(i, 9) for i in range(1, 10)]


class Ticking:
    """A runner that takes so many milliseconds, and counts its runs."""

    def __init__(self, *ms: float) -> None:
        self.ms, self.runs = ms, 0

    def __call__(self) -> float:
        self.runs += 1
        return self.ms[min(self.runs, len(self.ms)) - 1]


@pytest.fixture
def told_by_runners(monkeypatch):
    monkeypatch.setattr(device_module, "_timed", lambda runner: runner())


@pytest.mark.usefixtures("told_by_runners")
@pytest.mark.parametrize(
    ("ms", "runs"),
    [(0.1, 9 * (3 + 50)), (2.0, 9 * (3 + 6)), (30.0, 9 * (3 + 6)), (100.0, 5 * (3 + 6)),
     (400.0, 3 * (3 + 2)), (1000.0, 3 * (2 + 1)), (5000.0, 3 * (1 + 1))],
)  # fmt: skip
def test_side_by_side_slow_networks_run_less_often(ms, runs):
    runner = Ticking(ms)
    assert Device().medians_ms([runner]) == [ms]
    assert runner.runs == runs


@pytest.mark.usefixtures("told_by_runners")
def test_side_by_side_all_have_as_many_rounds_as_the_slowest():
    fast, slow, rounds = Ticking(2.0), Ticking(1000.0), list[tuple[int, int]]()
    medians = Device().medians_ms([fast, slow], lambda *at: rounds.append(at))
    assert medians == [2.0, 1000.0]
    assert fast.runs == 3 * (3 + 6)
    assert rounds == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("told_by_runners")
@pytest.mark.parametrize(
    ("ms", "warmup", "runs"),
    [(0.1, 10, 100), (30.0, 10, 100), (100.0, 10, 30), (400.0, 3, 8), (5000.0, 1, 3)],
)
def test_a_slow_network_runs_for_some_seconds(ms, warmup, runs):
    runner = Ticking(ms)
    assert Device().times_ms(runner, 100) == [ms] * runs
    assert runner.runs == warmup + runs


@pytest.mark.usefixtures("told_by_runners")
def test_a_slow_first_run_takes_no_counted_runs_away():
    runner = Ticking(900.0, 0.5)  # as on a GPU that loads its kernels
    assert Device().times_ms(runner, 100) == [0.5] * 100
    assert runner.runs == 10 + 100


def test_the_thread_count_is_put_back_after_an_error():
    before, within = torch.get_num_threads(), []
    with pytest.raises(ZeroDivisionError), Device(threads=before + 1).ready():
        within.append(torch.get_num_threads() / (within != []))
    with Device(threads=before + 1).ready():
        within.append(torch.get_num_threads())
    assert within == [before + 1]
    assert torch.get_num_threads() == before


def test_the_description_tells_machine_and_settings():
    device = Device(threads=2)
    told = device.describe()
    assert told["machine"]["runtime"].startswith("onnxruntime ")
    assert told["machine"]["cores"] == os.cpu_count()
    assert told["machine"]["processor"]
    assert "spinning" in told["how"]
    assert Device("torch").describe()["how"] == "eager, inference mode"
    assert json.loads(json.dumps(told)) == told


def test_a_fingerprint_is_of_all_that_changes_a_latency():
    same = Device(runs=50, warmup=3).fingerprint
    assert same == Device().fingerprint
    others = [Device("torch"), Device(threads=2), Device(batch=2)]
    assert len({same, *(d.fingerprint for d in others)}) == 4


def test_the_processor_is_read_where_the_system_tells_it(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast Chip 9000\n")
    monkeypatch.setattr(device_module, "Path", lambda _: info)
    assert Device().machine["processor"] == "Fast Chip 9000"
    info.unlink()
    assert Device().machine["processor"] != "Fast Chip 9000"


@pytest.mark.gpu
def test_on_cuda_the_machine_is_the_gpu():
    assert Device("torch", accelerator="cuda").machine["processor"] == cuda_name()
    assert cuda_name()
