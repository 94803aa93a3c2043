from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.errors import InvalidStudy
from assay.train.average import Average


@given(st.floats(0.01, 0.999), st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30))
@settings(max_examples=25)
def test_the_average_in_closed_form(decay, values):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average, expected = Average(layer, decay), 0.0
    for n, value in enumerate(values, start=1):
        nn.init.constant_(layer.weight, value)
        average.update()
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
    assert layer.weight.item() == pytest.approx(values[-1])  # left alone until it is asked for
    average.apply()
    assert layer.weight.item() == pytest.approx(expected, abs=1e-5)


def test_statistics_are_averaged_and_counters_copied():
    norm = nn.BatchNorm1d(2)
    average = Average(norm, 0.5)
    norm.running_mean.fill_(11.0)
    norm.num_batches_tracked.fill_(7)
    average.update()  # keeps 2/11
    average.apply()
    assert norm.running_mean.tolist() == pytest.approx([9.0, 9.0], rel=1e-6)
    assert int(norm.num_batches_tracked) == 7


def test_a_buffer_that_a_forward_replaces_is_followed():
    norm = nn.BatchNorm1d(1)
    average = Average(norm, 0.5)
    norm.running_mean = torch.full((1,), 11.0)  # another tensor than before
    average.update()
    average.apply()
    assert norm.running_mean.tolist() == pytest.approx([9.0], rel=1e-6)


def test_a_parameter_may_bear_any_name():
    module = nn.Module()
    module.updates = nn.Parameter(torch.zeros(1))
    average = Average(module, 0.5)
    average.update()
    again = Average(module, 0.5)
    again.load_state_dict(average.state_dict())
    assert again.state_dict()["updates"] == 1
    assert again.state_dict()["weights.updates"].tolist() == [0.0]


class Counting(nn.Linear):
    """Has extra state, and a buffer that no state holds."""

    def __init__(self):
        super().__init__(1, 1)
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.extra = torch.zeros(1)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def test_extra_state_is_not_averaged():
    module = Counting()
    average = Average(module, 0.5)
    module.extra = torch.ones(1)
    average.update()
    assert set(average.state_dict()) == {"updates", "weights.weight", "weights.bias"}
    with average.in_place():
        assert module.extra.tolist() == [1.0]
    assert module.extra.tolist() == [1.0]


def test_the_state_goes_on_elsewhere():
    layer = nn.Linear(2, 2)
    one, other = Average(layer, 0.9), Average(nn.Linear(2, 2), 0.9)
    one.update()
    other.load_state_dict(one.state_dict())
    assert other.state_dict()["updates"] == 1
    assert torch.equal(other.state_dict()["weights.bias"], layer.bias)
    assert other.state_dict()["weights.bias"] is not one.state_dict()["weights.bias"]


@pytest.mark.parametrize("state", [{}, {"updates": 1, "weights.bias": torch.zeros(2)}])
def test_another_state_is_refused(state):
    with pytest.raises(InvalidStudy, match="use the recipe and the network that it was saved with"):
        Average(nn.Linear(2, 2), 0.9).load_state_dict(state)
