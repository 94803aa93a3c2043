"""A small task, and operations of known worth and price."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from assay.contracts import Context, History
from assay.executors.inline import Inline
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.train.arrays import in_memory
from assay.train.recipe import Recipe
from assay.train.task import Task


class Blind(nn.Module):
    """Lets nothing through, at no cost."""

    def forward(self, x):
        return 0.0 * x


class Costly(nn.Module):
    """Changes nothing, and costs ten layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(8, 8) for _ in range(10)])

    def forward(self, x):
        return x + 0.0 * self.layers(x)


def operation(label: str = "op") -> OneOf:
    return OneOf(see=nn.Identity(), blind=Blind(), costly=Costly(), label=label)


def of_operations() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), operation(), nn.ReLU(), nn.Linear(8, 2))


def of_two() -> nn.Module:
    chosen = (operation("one"), operation("two"))
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), *chosen, nn.ReLU(), nn.Linear(8, 2))


def of_everything() -> nn.Module:
    wide = Width(4, 16, label="wide")
    more = nn.Sequential(nn.Linear(8, wide), nn.ReLU(), nn.Linear(wide, 8))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 8), operation(), Depth(more, min=0, label="more"),
        nn.Linear(8, 2),
    )  # fmt: skip


def context(model=of_everything, seed: int = 0) -> Context:
    """Return a context of 200 + 200 points, two classes by the sign of a product."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    splits = in_memory((x[:200], y[:200]), (x[200:], y[200:]), (x[:9], y[:9]))
    task = Task.of_classes(*splits, augment=None, name="signs")
    space = Space(model)
    recipe = Recipe(lr=0.05, batch_size=32, epochs=10)
    return Context(space, task, recipe, Inline(), "cpu", seed, History(space))
