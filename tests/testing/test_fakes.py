from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.contracts import Proposal
from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.testing import FakeDevice, FakeEstimator, tiny_context, tiny_space


def num_weights(module: nn.Module) -> float:
    return 0.001 * sum(p.numel() for p in module.parameters())


def test_a_fake_estimator_tells_its_function_and_keeps_count():
    ctx = tiny_context()
    points = [ctx.space.largest(), ctx.space.smallest()]
    fake = FakeEstimator(lambda a: -len(a))
    estimates = fake.estimate(ctx, [Proposal(p) for p in points])
    assert [e.score for e in estimates] == [-len(p) for p in points]
    assert fake.estimated == points
    assert sum(c.samples for c in fake.prepare(ctx, Budget(steps=3))) == 3 * ctx.recipe.batch_size
    assert fake.state_dict() == {"steps": 3}


def test_what_its_function_raises_is_raised():
    def refuse(architecture):
        raise ZeroDivisionError(str(architecture["body"]))

    ctx = tiny_context()
    with pytest.raises(ZeroDivisionError, match="5"):
        FakeEstimator(refuse).estimate(ctx, [Proposal(ctx.space.largest())])


def test_a_fake_device_tells_its_function_to_whoever_asks():
    device = FakeDevice(num_weights, threads=2)
    assert device.threads == 2
    assert device.latency(nn.Linear(9, 10), torch.zeros(1, 9)).median_ms == 0.1
    with pytest.raises(TypeError, match=r"no runner of FakeDevice; take one from its runner\(\)"):
        device.times_ms(lambda: None, 3)
    with pytest.raises(InvalidSetting, match="threads=0"):
        FakeDevice(num_weights, threads=0)
    assert device.fingerprint != Device().fingerprint


def test_a_table_of_a_fake_device_is_exact():
    space, example = tiny_space(), torch.zeros(1, 6)
    table = LatencyTable.build(space, FakeDevice(num_weights), example=example)
    rng = torch.manual_seed(0)
    assert rng is not None
    for point in list(space.all())[::100]:
        assert table.predict(point) == pytest.approx(num_weights(space.build(point)), rel=0.02)
