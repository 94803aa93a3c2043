"""Smaller images are for networks that take them and do the same with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.contracts import Context, History, Proposal
from assay.cost import Budget, derive
from assay.errors import InvalidSetting
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.proxies import proxies
from assay.estimators.zero_cost import ZeroCost
from assay.executors.inline import Inline
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.splits import InMemory
from assay.train.task import Task


class Net(nn.Module):
    """A body with a choice, and a head."""

    def __init__(self, head: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = OneOf(conv=nn.Conv2d(3, 4, 3, padding=1), wide=nn.Conv2d(3, 4, 5, padding=2))
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * 32 * 32, 2))


def pooled() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def each_pixel() -> nn.Module:
    return nn.Conv2d(4, 2, 1)


def context(head: Any, side: int = 32) -> Context:
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, side, side, generator=drawn)
    size = (40, side, side) if head is each_pixel else (40,)
    split = InMemory(images, torch.randint(2, size, generator=drawn))
    task = Task(split, split)
    space = Space(partial(Net, head))
    space.example = task.example(1)
    return Context(space, task, Recipe(batch_size=8, epochs=1), Inline(), "cpu", 0, History(space))


def side_of(task: Task) -> int:
    return int(task.example(1).shape[-1])


def test_networks_that_take_any_size_get_half_the_side_from_32_pixels_on() -> None:
    assert side_of(proxies(context(pooled))[1]) == 16
    assert side_of(proxies(context(pooled, side=31))[1]) == 31


@pytest.mark.parametrize("head", [flat, each_pixel])
def test_networks_that_need_their_size_keep_it(head: Any) -> None:
    ctx = context(head)
    assert side_of(proxies(ctx)[1]) == 32
    assert proxies(ctx)[1] is ctx.task


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (flat, r"resolution=0\.5: on smaller images head\.1: the path .* give resolution=1"),
        (each_pixel, r"return \[\(2, 2, 16, 16\)\] in place of \[\(2, 2, 32, 32\)\]"),
    ],
)
def test_a_resolution_that_they_cannot_take_is_refused(head: Any, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        proxies(context(head), resolution=0.5)


@pytest.mark.parametrize("head", [flat, each_pixel])
@pytest.mark.parametrize(
    "make",
    [
        OneShot,
        partial(LowFidelity, steps=2),
        partial(ZeroCost, ("macs", "snip"), reference=2, batch=4),
    ],
)
def test_every_cheap_estimator_serves_them(make: Callable[[], Any], head: Any) -> None:
    ctx, estimator = context(head), make()
    for _ in estimator.prepare(ctx, Budget(steps=2)):
        pass
    (told,) = estimator.estimate(ctx, [Proposal(ctx.space.sample(derive(0, "any")))])
    assert told.failure == ""
