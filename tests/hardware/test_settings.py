from __future__ import annotations

import functools
import operator
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.hardware.count import record
from assay.hardware.device import Device
from assay.hardware.settings import settings_of
from assay.hardware.table import LatencyTable
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space


class Applied(nn.Module):
    """A layer that does what it is given."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Any:
        return self.held(x)


class Plain:
    """An object that tells nothing of what it holds."""

    def __init__(self, value: Any) -> None:
        self._value = value


class Slotted:
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value


def pooled(size: int) -> Callable[[Tensor], Tensor]:
    def pool(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, size)

    return pool


def calling(module: nn.Module) -> Callable[[Tensor], Any]:
    return lambda x: module(x)


UNLIKE = {
    "lambdas": (lambda x: x + 1, lambda x: x * 2),
    "captured": (pooled(1), pooled(15)),
    "defaults": (lambda x, n=1: x + n, lambda x, n=2: x + n),
    "partials": (functools.partial(pow, exp=1), functools.partial(pow, exp=2)),
    "torch's own": (F.max_pool2d, F.max_pool1d),
    "methods": (Plain(1).__init__, Plain(2).__init__),  # type: ignore[misc]
    "objects": (Plain(1), Plain(2)),
    "objects in objects": (Plain(Plain([1])), Plain(Plain([2]))),
    "slots": (Slotted(1), Slotted(2)),
    "getters": (operator.itemgetter(0), operator.itemgetter(1)),
    "captured layers": (calling(nn.MaxPool2d(1)), calling(nn.MaxPool2d(15))),
    "layers in lists": ([nn.Conv2d(1, 2, 3)], [nn.Conv2d(1, 2, 5)]),
    "captured tensors": (calling(torch.ones(2)), calling(torch.ones(3))),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_layers_that_do_something_else_are_told_apart(kind: str) -> None:
    one, other = map(Applied, UNLIKE[kind])
    assert settings_of(one) != settings_of(other)
    assert settings_of(one) == settings_of(one)
    assert " at 0x" not in settings_of(one) + settings_of(other)


def test_values_of_tensors_tell_nothing_apart() -> None:
    held = [
        lambda t=t: (t, functools.partial(torch.add, t)) for t in (torch.ones(2), torch.ones(2))
    ]
    assert settings_of(Applied(held[0])) == settings_of(Applied(held[1]))


def test_classes_made_by_one_function_are_told_apart() -> None:
    def layer(size: int) -> nn.Module:
        class Pool(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return F.avg_pool2d(x, size)

        return Pool()

    assert settings_of(layer(1)) == settings_of(layer(1)) != settings_of(layer(15))


def test_a_forward_of_the_instance_is_told() -> None:
    relu, other = nn.ReLU(), nn.ReLU()
    other.forward = pooled(15)  # type: ignore[method-assign]
    assert settings_of(relu) == "" != settings_of(other)


TOLD = """
import functools, sys
import torch
from torch import nn
from torch.nn import functional as F
from assay.hardware.settings import settings_of

class Kept:
    def __init__(self):
        self.kinds, self.f, self.me = {"one", "two", "three"}, F.relu, self

class Applied(nn.Module):
    def __init__(self):
        super().__init__()
        kept, size = Kept(), 3
        self.f = lambda x: F.avg_pool2d(self.g(x), size, kept)
        self.g = functools.partial(F.max_pool2d, kernel_size=size, return_indices=kept)
        self.kept, self.generator = kept, torch.Generator()

junk = [object() for _ in range(int(sys.argv[1]))]
print(settings_of(Applied()))
"""


def test_a_layer_is_told_the_same_in_each_process() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", TOLD, seed], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "1000")
    }  # fmt: skip
    assert len(told) == 1
    assert " at 0x" not in told.pop()


class Scaled(nn.Module):
    """Its layers call functions that capture the model with its choices."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, width = 2.0, Width(4, 8)
        self.up = nn.Linear(4, width)
        self.op = OneOf(
            light=Applied(lambda x: self.scale * x),
            heavy=Applied(lambda x: self.scale * F.softmax(x.expand(64, 64, -1), -1)[0, :1]),
        )
        self.down = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.op(self.up(x)))


def test_a_table_measures_functions_apart_and_knows_them_when_it_is_loaded(tmp_path: Path) -> None:
    space, x = Space(Scaled), torch.ones(1, 4)
    table = LatencyTable.build(space, Device(), example=x)
    assert sum("Applied" in key for key in table.units) == 4
    table.save(tmp_path / "table.json")
    again = Space(Scaled)
    again.select(again.smallest())
    again.model(x)
    loaded = LatencyTable.load(tmp_path / "table.json", again, Device(), example=x)
    for architecture in space.all():
        again.select(architecture)
        assert loaded.predict(architecture) == table.predict(architecture)


def test_a_call_tells_its_layer() -> None:
    (call,) = record(Applied(pooled(2)), torch.ones(1, 1, 4, 4)).calls
    assert call.settings == settings_of(Applied(pooled(2)))
