"""Where a network will run, and how long it takes there."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from assay.errors import InvalidSetting, nearest
from assay.hardware.runtimes import SESSION, Runner, graph_of, onnx_runner, torch_runner

__all__ = ["Device", "Latency", "cuda_name"]

_ROUNDS = 9
_ROUND_MS = 10.0  # of one runner in one round, where its runs are short
_ROUND_RUNS = (6, 50)
# Runs of a slow network differ little, by share, and there is a budget to keep to: from some 30 ms
# a run on there are fewer of them.
_MOST_MS = 3000.0  # of the counted runs of one runner
_MOST_WARMUP_MS = 1000.0
_FEWEST = 3  # counted runs, or rounds


@dataclass(frozen=True)
class Latency:
    """How long one run took.

    Attributes:
        median_ms: Over all runs, in milliseconds.
        p90_ms: Ninth decile.
        runs: How many were counted.
        settings: What `Device.describe` tells.
    """

    median_ms: float
    p90_ms: float
    runs: int
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Device:
    """A runtime with its settings, on this machine.

    A run is timed from inputs that lie ready to outputs that are there. ONNX Runtime: a plain
    `run` on arrays, one operation at a time, threads that do not spin while they wait; on CUDA
    inputs and outputs are bound to the GPU. torch: eager in inference mode, on CUDA between two
    events.

    Args:
        runtime: "onnxruntime" (how networks are served) or "torch" (eager).
        threads: Threads of one run.
        batch: Samples of one run.
        accelerator: "cpu" or "cuda".
        runs: Counted runs of a measurement, at least 50; those of a slow network end after 3 s,
            of which there are 3 at least.
        warmup: Runs before them that are not counted; they end after 1 s.
    Raises:
        InvalidSetting: a value out of range, or a count that is no whole number.
    """

    runtime: Literal["onnxruntime", "torch"] = "onnxruntime"
    threads: int = 1
    batch: int = 1
    accelerator: Literal["cpu", "cuda"] = "cpu"
    runs: int = 100
    warmup: int = 10

    def __post_init__(self) -> None:
        for name, known in (
            ("runtime", ("onnxruntime", "torch")),
            ("accelerator", ("cpu", "cuda")),
        ):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise InvalidSetting(f"device {name}={given!r}; {nearest(str(given), known)}")
        for name, least in (("threads", 1), ("batch", 1), ("runs", 50), ("warmup", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidSetting(
                    f"device {name}={value!r} must be a whole number of at least {least}"
                )

    def latency(self, module: nn.Module, example: Any) -> Latency:
        """Measure a whole network: warm up, synchronise, median and p90 of the counted runs.

        Args:
            module: A plain network; measured in eval mode, and left as it is.
            example: Inputs at this device's batch: a tensor, or a tuple or dict of tensors.
        Raises:
            InvalidSetting: the accelerator is not there.
            ExportRefused: ONNX Runtime is asked for and the network cannot be written as ONNX.
        """
        with self.ready():
            runner = self.runner(module, example)
            times = self.times_ms(runner, self.runs)
        median, p90 = (float(v) for v in np.percentile(times, (50, 90)))
        return Latency(median, p90, len(times), self.describe())

    def runner(self, module: nn.Module, example: Any) -> Runner:
        """Return a function that runs a network once, with its inputs in place; see `latency`."""
        if self.runtime == "torch":
            return torch_runner(module, example, accelerator=self.accelerator)
        graph = graph_of(module, example)
        return onnx_runner(graph, example, threads=self.threads, accelerator=self.accelerator)

    def times_ms(self, runner: Runner, runs: int, warmup: int | None = None) -> list[float]:
        """Return the milliseconds of each of some runs, after the warm-up; slow ones end early."""
        clock = self._timed_on_cuda if self._on_torch_cuda() else _timed
        warmup = self.warmup if warmup is None else warmup
        _times_ms(lambda: clock(runner), warmup, least=1, most_ms=_MOST_WARMUP_MS)
        return _times_ms(lambda: clock(runner), runs, least=_FEWEST, most_ms=_MOST_MS)

    def medians_ms(
        self, runners: Sequence[Runner], on_round: Callable[[int, int], None] | None = None
    ) -> list[float]:
        """Return the median milliseconds of each of many runners, measured side by side.

        All of them take turns for several rounds, and each gets the median of its rounds' medians:
        a slow moment of the machine falls on a round of every runner it meets, not on all runs of
        a few, and the median passes it over. A minimum would not do: it grows smaller with luck.
        All have as many rounds, 9, or down to 3 where the slowest would run for more than 3 s.

        Args:
            runners: What `runner` returned, within `ready`.
            on_round: Called with (rounds done, rounds in all).
        """
        medians: list[list[float]] = []
        rounds = _ROUNDS
        while len(medians) < rounds:
            taken = [self._turn_ms(runner) for runner in runners]
            medians.append([float(np.median(times)) for times in taken])
            if len(medians) == 1 and runners:
                slowest_ms = max(len(t) * m for t, m in zip(taken, medians[0]))
                rounds = int(np.clip(_MOST_MS / max(slowest_ms, 1e-6), _FEWEST, _ROUNDS))
            if on_round is not None:
                on_round(len(medians), rounds)
        return [float(v) for v in np.median(medians, axis=0)]

    def _turn_ms(self, runner: Runner) -> list[float]:
        """Return the milliseconds of each counted run of a runner in one round."""
        (once_ms,) = self.times_ms(runner, 1, warmup=2)
        once_ms = max(once_ms, 1e-6)
        wanted = float(np.clip(_ROUND_MS / once_ms, *_ROUND_RUNS))
        runs = int(min(wanted, _MOST_MS / _FEWEST / once_ms))
        # The first counts where it is so long that there is no time for another.
        return self.times_ms(runner, runs, warmup=0) or [once_ms]

    def _on_torch_cuda(self) -> bool:
        return self.runtime == "torch" and self.accelerator == "cuda"

    @staticmethod
    def _timed_on_cuda(runner: Runner) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        runner()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within: torch has this device's thread count; the old one is put back after."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def machine(self) -> dict[str, Any]:
        """Identity of the machine and runtime that figures belong to."""
        version = metadata.version("onnxruntime" if self.runtime == "onnxruntime" else "torch")
        return {
            "processor": _processor() if self.accelerator == "cpu" else cuda_name(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "runtime": f"{self.runtime} {version}",
        }

    def describe(self) -> dict[str, Any]:
        """Return settings, how a run is made, and the machine, as JSON values."""
        how = SESSION if self.runtime == "onnxruntime" else "eager, inference mode"
        return {**asdict(self), "how": how, "machine": self.machine}

    @property
    def fingerprint(self) -> str:
        """The settings and machine that a latency table belongs to, as sorted JSON."""
        counted = ("runs", "warmup")
        told = {k: v for k, v in self.describe().items() if k not in counted}
        return json.dumps(told, sort_keys=True)


def _times_ms(run_ms: Callable[[], float], most: int, *, least: int, most_ms: float) -> list[float]:
    """Return the milliseconds of each run: as many as asked for, or as fit in a time."""
    times: list[float] = []
    while len(times) < most and (len(times) < least or sum(times) < most_ms):
        times.append(run_ms())
    return times


def _timed(runner: Callable[[], object]) -> float:
    started = time.perf_counter()
    runner()
    return (time.perf_counter() - started) * 1e3


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines: Sequence[str] = info.read_text().splitlines() if info.is_file() else ()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cuda_name() -> str | None:
    """Return the name of the first CUDA device, or None where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
