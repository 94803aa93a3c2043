"""Scoring the whole of a 3^6 chain space with sharing off ÷ on; and an NSGA-II generation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.weights.prefix import PrefixWalk
from bench.harness import interval, paired_ratios, report, seconds

CHANNELS, SIDE, BATCH, BATCHES = 24, 16, 16, 2


def block(kernel: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
    )


class Chain(nn.Module):
    """Six positions of three options each, of nearly equal cost; stem and head are small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 1)
        self.body = nn.Sequential(
            *[OneOf(a=block(3, 1), b=block(3, 1), c=block(3, 1)) for _ in range(6)]
        )
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def score(space: Space, points: list[Architecture], x: Tensor, *, shared: bool) -> None:
    walk = PrefixWalk(space, shared=shared)
    with torch.no_grad(), walk.installed():
        for _ in range(BATCHES):
            walk.population(points, x, lambda i, output: None)


def shares(space: Space, x: Tensor) -> dict[str, float]:
    """Return each part's share of one path's time, median of 30."""
    model = space.model
    space.select(space.sample(np.random.default_rng(0)))
    parts = {"stem": model.stem, **{f"block{i}": b for i, b in enumerate(model.body)}}
    times: dict[str, list[float]] = {name: [] for name in [*parts, "head"]}
    with torch.no_grad():
        for _ in range(30):
            y = x
            for name, part in parts.items():
                y, before = part(y), y
                times[name].append(seconds(lambda p=part, b=before: p(b)))
            times["head"].append(seconds(lambda y=y: model.head(y.mean((2, 3)))))
    space.select(None)
    medians = {name: float(np.median(ts)) for name, ts in times.items()}
    return {name: round(m / sum(medians.values()), 4) for name, m in medians.items()}


def nsga2_generation() -> float:
    """Return sharing off ÷ on for 50 children of a converging `mobile` population."""
    from assay.zoo.mobile import mobile

    space = mobile(input_shape=(1, 28, 28), num_classes=10)
    space.model.eval()
    rng = derive(0, "generation")
    parents = [space.sample(rng) for _ in range(10)]
    children = []
    for _ in range(50):
        a, b = (parents[int(i)] for i in rng.integers(len(parents), size=2))
        children.append(space.mutate(space.cross(a, b, rng), rng))
    x = torch.randn(64, 1, 28, 28)
    ratios = paired_ratios(
        lambda: score(space, children, x, shared=False),
        lambda: score(space, children, x, shared=True),
        pairs=3,
    )
    return float(np.median(ratios))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    space = Space(Chain)
    space.model.eval()
    points, x = list(space.all()), torch.randn(BATCH, 1, SIDE, SIDE)
    ratios = paired_ratios(
        lambda: score(space, points, x, shared=False), lambda: score(space, points, x, shared=True)
    )
    report(
        "prefix_eval", float(np.median(ratios)), "ratio", ">= 3.0", interval(ratios),
        ceiling=4.0, pairs=len(ratios), shares=shares(space, x), nsga2=nsga2_generation(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
