"""Every device, hooked to the suite that it must pass."""

from __future__ import annotations

import pytest

from assay.hardware.device import Device
from assay.testing import DeviceContract, FakeDevice


class TestONNXRuntime(DeviceContract):
    device = staticmethod(lambda: Device(runs=50, warmup=1))


class TestTorch(DeviceContract):
    device = staticmethod(lambda: Device("torch", runs=50, warmup=1, batch=2))


@pytest.mark.gpu
class TestTorchOnCUDA(DeviceContract):
    device = staticmethod(lambda: Device("torch", accelerator="cuda", runs=50, warmup=1))


class TestFakeDevice(DeviceContract):
    device = staticmethod(lambda: FakeDevice(lambda module: 0.5))
