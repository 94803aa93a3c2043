"""Every policy of paths, hooked to the suite that it must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.contracts import History, Paths
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.proxyless import Proxyless
from assay.testing import PathsContract
from assay.testing.tiny import tiny_context, tiny_space
from assay.weights.paths import Fair, Sandwich, Sized, Uniform


class TestUniform(PathsContract):
    paths = Uniform


class TestUniformOfThree(PathsContract):
    paths = staticmethod(lambda: Uniform(num=3))


class TestFair(PathsContract):
    paths = Fair


class TestSandwich(PathsContract):
    paths = Sandwich


class TestSized(PathsContract):
    paths = Sized


# --- paths that learn -----------------------------------------------------------------------------


def begun(strategy: Any, make: Callable[[], Space] = tiny_space) -> Paths:
    """Return the paths of a strategy at the start of 20 steps, which go beyond its warm-up."""
    ctx = tiny_context(history=History(make()))
    strategy.paths.begin(ctx, ctx.space, 20)
    paths: Paths = strategy.paths
    return paths


class TestProxyless(PathsContract):
    paths = staticmethod(lambda: begun(Proxyless()))


class TestENAS(PathsContract):
    paths = staticmethod(lambda: begun(ENAS()))


class Operations(nn.Module):
    """Choices of operations only, from features `[N, 6]` to 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OneOf(linear=nn.Linear(6, 6), tanh=nn.Tanh(), skip=nn.Identity()),
            OneOf(linear=nn.Linear(6, 6), skip=nn.Identity()),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def of_operations() -> Space:
    return Space(Operations, example=torch.zeros(2, 6))


class TestDARTS(PathsContract):
    paths = staticmethod(lambda: begun(DARTS(), of_operations))

    @pytest.fixture(autouse=True)
    def on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put a space that it does not refuse in place of the suite's, which has sizes."""
        monkeypatch.setattr("assay.testing.paths.tiny_space", of_operations)
