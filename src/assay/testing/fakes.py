"""Stand-ins that take a function: for tests of what uses an estimator or a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost
from assay.hardware.device import Device, Latency
from assay.hardware.runtimes import Runner

__all__ = ["FakeDevice", "FakeEstimator"]


class FakeEstimator:
    """Scores by a function and trains nothing; its `prepare` counts steps, as if it did.

    Args:
        score: score(architecture) -> float. What it raises, `estimate` raises.
    Attributes:
        steps: Steps that `prepare` has counted.
        estimated: Architectures that were scored, in order.
    Example:
        >>> FakeEstimator(len).score(Architecture({"a": 1}))
        1
    """

    def __init__(self, score: Callable[[Architecture], float]) -> None:
        self.score = score
        self.steps = 0
        self.estimated: list[Architecture] = []

    def step_seconds(self, ctx: Context) -> float:
        """Return what a step takes: a microsecond."""
        return 1e-6

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Count to `budget.steps`; yields after each."""
        while self.steps < (budget.steps or 0):
            self.steps += 1
            yield Cost(1e-6, ctx.recipe.batch_size, 0, ctx.device)

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Call the function on each architecture."""
        return [self._estimate(ctx, p.architecture) for p in proposals]

    def _estimate(self, ctx: Context, architecture: Architecture) -> Estimate:
        started = time.perf_counter()
        score = float(self.score(architecture))
        self.estimated.append(architecture)
        cost = Cost(time.perf_counter() - started, device=ctx.device)
        return Estimate(score, {"fake": score}, cost, {"estimator": "fake"})

    def state_dict(self) -> Mapping[str, Any]:
        """Return the steps counted."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from where another was."""
        self.steps = int(state["steps"])


class FakeDevice(Device):
    """Tells the latency by a function and runs nothing; it is the same on every machine.

    Args:
        latency_ms: latency_ms(module) -> float, of a whole network or of a part of one.
        settings: As of `Device`.
    Example:
        >>> FakeDevice(lambda module: 0.25).latency(nn.Identity(), None).median_ms
        0.25
    """

    def __init__(self, latency_ms: Callable[[nn.Module], float], **settings: Any) -> None:
        super().__init__(**settings)
        object.__setattr__(self, "latency_ms", latency_ms)

    def latency(self, module: nn.Module, example: Any) -> Latency:
        """Return what the function says, as median and p90."""
        runner = self.runner(module, example)
        times_ms = self.times_ms(runner, self.runs)
        return Latency(times_ms[0], times_ms[-1], len(times_ms), self.describe())

    def runner(self, module: nn.Module, example: Any) -> Runner:
        """Return a function that does nothing and whose time is known."""
        return _Known(float(self.__dict__["latency_ms"](module)))

    def times_ms(self, runner: Runner, runs: int, warmup: int | None = None) -> list[float]:
        """Return the known milliseconds so many times over.

        Raises:
            TypeError: the runner is another device's.
        """
        if not isinstance(runner, _Known):
            raise TypeError(f"{runner!r} is no runner of FakeDevice; take one from its runner()")
        return [runner.known_ms] * runs

    @property
    def machine(self) -> dict[str, Any]:
        """Identity of no machine."""
        return {"processor": "fake", "cores": 1, "system": "fake", "runtime": "fake"}


class _Known:
    def __init__(self, known_ms: float) -> None:
        self.known_ms = known_ms

    def __call__(self) -> None:
        """Do nothing."""
