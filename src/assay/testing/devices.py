"""What every device must do."""

from __future__ import annotations

import copy
import json
from typing import ClassVar

import torch
from torch import nn

from assay.hardware.device import Device
from assay.testing.plug import Plug, made

__all__ = ["DeviceContract"]


class _Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.left(a) + self.right(b))


class DeviceContract:
    """Set `device` to the class, or to a function without arguments that makes one."""

    device: ClassVar[Plug | None] = None

    def new(self) -> Device:
        """Make a fresh device."""
        device: Device = made(self, "device")
        return device

    def network(self) -> nn.Module:
        """Return what is measured; takes `[batch, 6]`."""
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def test_a_latency_is_a_median_and_a_decile_of_enough_runs(self) -> None:
        """Measure; median and p90 are in order, runs and settings are told."""
        device = self.new()
        latency = device.latency(self.network(), torch.zeros(device.batch, 6))
        assert 0.0 < latency.median_ms <= latency.p90_ms
        assert latency.runs == device.runs
        assert latency.runs >= 50
        assert latency.settings == device.describe()
        for name in ("runtime", "threads", "batch", "accelerator", "runs", "warmup", "machine"):
            assert name in latency.settings, f"the settings do not tell {name}"
        assert json.loads(json.dumps(latency.to_dict())) == latency.to_dict()

    def test_inputs_may_be_a_tuple(self) -> None:
        """Measure a network of two inputs."""
        device = self.new()
        example = (torch.zeros(device.batch, 6), torch.zeros(device.batch, 3))
        assert device.latency(_Sum(), example).median_ms > 0.0

    def test_measuring_leaves_the_weights_and_the_thread_count(self) -> None:
        """Measure; parameters, statistics and torch's threads are as before."""
        device, network, threads = self.new(), self.network(), torch.get_num_threads()
        before = copy.deepcopy(network.state_dict())
        device.latency(network, torch.zeros(device.batch, 6))
        after = network.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert torch.get_num_threads() == threads

    def test_a_runner_is_timed_as_often_as_it_is_told(self) -> None:
        """Time a runner five times."""
        device = self.new()
        with device.ready():
            runner = device.runner(self.network(), torch.zeros(device.batch, 6))
            times_ms = device.times_ms(runner, 5, warmup=1)
        assert len(times_ms) == 5
        assert all(t > 0.0 for t in times_ms)

    def test_its_fingerprint_is_that_of_its_settings(self) -> None:
        """Compare two alike, before and after measuring."""
        one, two = self.new(), self.new()
        one.latency(self.network(), torch.zeros(one.batch, 6))
        assert one.fingerprint == two.fingerprint
