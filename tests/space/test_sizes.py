from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assay.space.check import check_paths
from assay.space.sizes import Kernel, Width, resolve, roots_in
from assay.space.space import Space


def test_a_size_is_its_largest_option_to_torch() -> None:
    w, k = Width(16, 24, 32), Kernel(3, 5, 7)
    assert (w, k, w * 49, k // 2) == (32, 7, 32 * 49, 3)
    layer = nn.Conv2d(3, w, k, padding=k // 2)
    assert layer.out_channels is w
    assert layer.weight.shape == (32, 3, 7, 7)
    assert nn.LayerNorm(w).normalized_shape[0] is w


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 7))
def test_arithmetic_is_worked_out_again(a: int, b: int, n: int) -> None:
    w, v = Width(a, a + 3), Width(b, b + 5)
    values = {w: a, v: b}
    expressions = {
        "sum": (w + v, a + b),
        "right sum": (n + w, n + a),
        "difference": (w - 1, a - 1),
        "product": (n * w, n * a),
        "quotient": (w // n, a // n),
        "right quotient": (100 // w, 100 // a),
        "nested": ((w + v) * n - 2, (a + b) * n - 2),
    }
    for name, (size, expected) in expressions.items():
        assert resolve(size, values) == expected, name
        assert type(resolve(size, values)) is int
    assert set(roots_in((w + v) * 2)) == {w, v}


class Pair(NamedTuple):
    width: int
    name: str


def test_sizes_are_found_and_resolved_in_what_holds_them() -> None:
    w, v = Width(2, 4), Width(3, 5)
    held = {"pair": Pair(w * 2, "x"), "list": [v, (w, None)], "plain": (1, 2.5)}
    assert list(roots_in(held)) == [w, v, w]
    found = resolve(held, {w: 2, v: 5})
    assert found == {"pair": Pair(4, "x"), "list": [5, (2, None)], "plain": (1, 2.5)}
    assert type(found["pair"]) is Pair
    assert list(roots_in("text")) == []


class Config(dict[str, Any]):
    """A user's kind of dict, whose items are its attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


def test_a_users_kind_of_dict_stays_one() -> None:
    w = Width(2, 4)
    held = Config(width=w, inner=Config(half=w // 2), name="x")
    found = resolve(held, {w: 2})
    assert type(found) is type(found.inner) is Config
    assert (found.width, found["width"], found.inner.half, found.name) == (2, 2, 1, "x")
    assert held.width is held["width"] is w
    counted = resolve(defaultdict(list, {"width": w}), {w: 2})
    assert (counted["width"], counted["more"]) == (2, [])


def test_layers_read_their_sizes_off_a_users_kind_of_dict() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(8, 16)
            self.config, self.into, self.out = Config(w=w), nn.Linear(4, w), nn.Linear(w, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.out(self.into(x).view(-1, self.config.w))

    check_paths((space := Space(Net)), torch.ones(2, 4), list(space.all()))


def test_two_widths_are_two_decisions() -> None:
    assert Width(4, 8) != Width(4, 8)
    w = Width(4, 8)
    assert w == w
    assert w == 8


def test_concatenated_channels_keep_the_first_of_each_part() -> None:
    w, v = Width(2, 4), Width(1, 3)
    kept = [i for p in (w + v + 2).pieces({w: 2, v: 1}) for i in range(p.start, p.stop)]
    assert kept == [0, 1, 4, 7, 8]


def test_flattened_channels_keep_the_blocks_of_those_kept() -> None:
    w, v = Width(2, 4), Width(2, 4)
    values = {w: 2, v: 4}
    for size in ((w + v) * 4, 4 * (w + v), (w + v) * 2 * 2):
        assert size.pieces(values) == (slice(0, 8), slice(16, 32))
    assert (w * 49).pieces(values) == (slice(0, 98),)
    assert (w * v).pieces(values) == (slice(0, 8),)


def test_a_kernel_keeps_its_centre() -> None:
    k = Kernel(3, 5, 7)
    assert k.pieces({k: 3}) == (slice(2, 5),)
    assert torch.arange(7)[k.pieces({k: 3})[0]].tolist() == [2, 3, 4]
