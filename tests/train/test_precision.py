from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assay.errors import InvalidSetting
from assay.train.precision import LossScale, autocast, in_full, working_dtype
from assay.train.recipe import Recipe

AUTO = Recipe()
Pair = namedtuple("Pair", "one other")
WIDE = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 128, 3), nn.Linear(128, 10))
NARROW = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 10))
DEPTHWISE = nn.Conv2d(256, 256, 7, groups=256)
INVERTED = nn.Sequential(nn.Conv2d(64, 256, 1), DEPTHWISE, nn.Conv2d(256, 64, 1))
GROUPED = nn.Conv2d(256, 256, 3, groups=2)


@pytest.mark.parametrize(
    ("network", "tiles", "expected"),
    [
        (WIDE, True, torch.bfloat16),
        (WIDE, False, None),
        (NARROW, True, None),
        (DEPTHWISE, True, None),
        (INVERTED, True, None),  # wide, but for the one whose backward is slow in 16 bits
        (GROUPED, True, torch.bfloat16),
        (nn.ReLU(), True, None),
    ],
)
def test_a_cpu_computes_in_16_bits_where_it_has_tiles_and_the_network_fills_them(
    network, tiles, expected, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert working_dtype(AUTO, network, "cpu") is expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_computes_in_bfloat16_where_it_is_not_emulated(native, expected, monkeypatch):
    asked = {}

    def supported(**options):
        asked.update(options)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert working_dtype(AUTO, NARROW, "cuda:0") is expected
    assert asked == {"including_emulation": False}


def test_what_is_asked_for_is_done():
    assert working_dtype(AUTO.with_(precision="fp32"), WIDE, "cuda") is None
    assert working_dtype(AUTO.with_(precision="bf16"), NARROW, "cpu") is torch.bfloat16
    assert working_dtype(AUTO.with_(precision="fp16"), NARROW, "cuda") is torch.float16
    with pytest.raises(InvalidSetting, match="precision='fp16' needs CUDA; use 'bf16' or 'fp32'"):
        working_dtype(AUTO.with_(precision="fp16"), NARROW, "cpu")


def test_products_have_the_type_and_the_context_can_be_entered_again():
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for dtype, found in ((torch.bfloat16, torch.bfloat16), (None, torch.float32)):
        context = autocast(dtype, "cpu")
        for _ in range(2):
            with context:
                assert layer(x).dtype is found


def test_what_a_network_gives_in_16_bits_is_made_float32_in_any_structure():
    half, double = torch.ones(2, dtype=torch.float16), torch.ones(2, dtype=torch.float64)
    whole, number = torch.ones(2), torch.ones(2, dtype=torch.int32)
    given = Pair({"a": half, "b": [half.bfloat16(), double]}, (whole, number, None, "text"))
    found = in_full(given)
    assert type(found) is Pair
    assert [t.dtype for t in (found.one["a"], *found.one["b"])] == [
        torch.float32, torch.float32, torch.float64,
    ]  # fmt: skip
    assert found.other[0] is whole
    assert found.other[1] is number
    assert found.other[2:] == (None, "text")


@dataclass(frozen=True)
class Heads:
    first: Any
    others: Any
    note: str = "text"


def test_a_dataclass_of_a_networks_own_is_looked_into_and_left_as_it_was():
    half = torch.ones(2, dtype=torch.bfloat16)
    given = {"out": Heads(half, [Heads(half, None)])}
    found = in_full(given)["out"]
    assert type(found) is Heads
    assert found.first.dtype == found.others[0].first.dtype == torch.float32
    assert (found.others[0].others, found.note) == (None, "text")
    assert given["out"].first is half


@given(st.lists(st.booleans(), max_size=30))
def test_the_scale_halves_at_each_overflow(overflows):
    scale = LossScale(2.0**40)
    for overflow in overflows:
        gradient = torch.tensor([4.0, torch.inf if overflow else 8.0]) * 2.0**10
        assert scale.unscale([gradient]) is not overflow
    assert scale.value == 2.0 ** (40 - sum(overflows))


def test_gradients_come_back_to_their_size_and_the_scale_grows_after_2000():
    scale = LossScale(1024.0)
    for step in range(4001):
        gradient = torch.full((3,), scale.value * 0.5)
        assert scale.unscale([gradient])
        assert gradient.tolist() == [0.5] * 3
        assert scale.value == 1024.0 * 2 ** ((step + 1) // 2000)
    assert scale.unscale([])


def test_the_state_goes_on_elsewhere():
    one, other = LossScale(64.0), LossScale()
    one.unscale([torch.ones(1)])
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict() == {"value": 64.0, "since": 1}
