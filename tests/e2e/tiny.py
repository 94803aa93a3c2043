"""A whole search small enough to run many times: `python -m tests.e2e.tiny OUT TABLE`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from assay.contracts import History, Proposal
from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.run import preparing, trainings
from assay.run.events import Event
from assay.run.face import search
from assay.run.plan import Finalists
from assay.run.result import Result
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.strategies.evolution import Evolution
from assay.train.augment import ShiftAndFlip
from assay.train.recipe import Recipe
from assay.train.task import Task

BUDGET = "steps=60,trials=60,epochs=4"
RECIPE = Recipe(lr=0.05, batch_size=32, epochs=4)


def conv(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        w = Width(16, 24, 32)
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(
            *[OneOf(conv3=conv(8, 3), conv5=conv(8, 5), skip=nn.Identity()) for _ in range(5)]
        )
        self.neck = nn.Sequential(nn.Linear(8, w), nn.ReLU())
        self.head = nn.Linear(w, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(self.stem(x)).mean((2, 3))))


def task(samples: int = 500) -> Task:
    data = load_digits()
    images = (data.images[:samples] * 15.9).astype(np.uint8)
    return Task.from_arrays(images, data.target[:samples], augment=ShiftAndFlip(shift=1))


def save_table(path: Path) -> None:
    LatencyTable.build(Space(Net), Device(), example=task().example(1)).save(path)


def run(out: Path, table: Path | None, **changes: Any) -> Result:
    given: dict[str, Any] = {
        "limits": {"macs": 150_000}, "budget": BUDGET, "out": out, "seed": 3, "recipe": RECIPE,
        "finalists": Finalists(k=2, compare=False), "table": table, **changes,
    }  # fmt: skip
    return search(Space(Net), task(), **given)


class Slow(Evolution):
    """Takes its time, and says so, since a test can hardly kill within a proposal otherwise."""

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        print("ask search", len(history), flush=True)
        time.sleep(0.005)
        return super().ask(history, n, rng=rng)


def told(event: Event) -> None:
    print(event.kind, event.step, event.done, flush=True)
    if event.kind == "start":
        time.sleep(0.05)  # so that a test can kill within a step that takes no time here


if __name__ == "__main__":
    torch.set_num_threads(1)
    preparing._SAVE_EVERY_S = trainings._SAVE_EVERY_S = 0.05
    run(Path(sys.argv[1]), Path(sys.argv[2]), strategy=Slow(), on_event=told)
