from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph import assert_same_function, grow_kernel, shrink_kernel
from tests.weights.morph import nets

SETTINGS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2},
    {"kernel_size": (3, 1), "padding": (0, 1), "groups": 2, "bias": False},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_larger_kernel_computes_the_same_and_goes_back(settings):
    model = nn.Sequential(nn.Conv2d(2, 4, **settings), nn.ReLU()).double()
    large = grow_kernel(model, "0", 5)
    assert large[0].kernel_size == (5, 5)
    assert_same_function(model, large, nets.images(), tolerance=1e-12)
    if settings["kernel_size"] == 3:
        back = shrink_kernel(large, "0", 3)
        assert torch.equal(back[0].weight, model[0].weight)
        assert torch.equal(back(nets.images()), model(nets.images()))


def test_the_centre_is_the_centre():
    model = nn.Sequential(nn.Conv1d(1, 1, 5, padding=2, bias=False))
    model[0].weight.data = torch.arange(5.0).reshape(1, 1, 5)
    assert shrink_kernel(model, "0", 3)[0].weight.flatten().tolist() == [1.0, 2.0, 3.0]
    assert grow_kernel(model, "0", 7)[0].weight.flatten().tolist() == [0, 0, 1, 2, 3, 4, 0]


def test_a_module_at_two_places_stays_one_and_keeps_what_it_has():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    shared.note = "mine"
    model = nn.Sequential(shared, nn.ReLU(), shared).double()
    for path in ("0", "2"):
        large = grow_kernel(model, path, 5)
        assert large[0] is large[2]
        assert large[0].note == "mine"
        assert_same_function(model, large, nets.images(), tolerance=1e-12)
    assert grow_kernel(shared, "", 5).kernel_size == (5, 5)
    assert shared.kernel_size == (3, 3)
    tied = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(UnsupportedLayer, match="0 and 1 share the weight of '1'"):
        grow_kernel(tied, "1", 5)


def test_what_cannot_be():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding="valid"))
    with pytest.raises(InvalidSetting, match="a kernel of 4 has not the centre"):
        grow_kernel(model, "0", 4)
    with pytest.raises(InvalidSetting, match="use shrink_kernel"):
        grow_kernel(model, "0", 1)
    with pytest.raises(InvalidSetting, match="use grow_kernel"):
        shrink_kernel(model, "0", 5)
    with pytest.raises(InvalidSetting, match="would take 1; crop its input"):
        shrink_kernel(model, "0", 1)
    with pytest.raises(InvalidSetting, match="no layer '7'"):
        grow_kernel(model, "7", 5)
    with pytest.raises(UnsupportedLayer, match="'1' is a ReLU"):
        grow_kernel(model, "1", 5)
    with pytest.raises(UnsupportedLayer, match="padding='valid'"):
        grow_kernel(model, "2", 5)
