"""A small search that learns: `python -m tests.e2e.tiny_learned CASE OUT TABLE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.run import preparing, trainings
from assay.run.face import search
from assay.run.plan import Finalists
from assay.run.result import Result
from assay.space.choices import OneOf
from assay.space.space import Space
from tests.e2e import tiny

BUDGET = "steps=90,trials=20,epochs=1"


class Operations(nn.Module):
    """Choices of operations only, which is all that DARTS can weigh."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(
            OneOf(conv3=tiny.conv(8, 3), conv5=tiny.conv(8, 5), skip=nn.Identity()),
            OneOf(conv3=tiny.conv(8, 3), skip=nn.Identity()),
            OneOf(conv3=tiny.conv(8, 3), conv5=tiny.conv(8, 5), skip=nn.Identity()),
            OneOf(pool=nn.AvgPool2d(3, 1, 1), conv3=tiny.conv(8, 3)),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


SETTINGS: dict[str, dict[str, Any]] = {
    "proxyless": {"batch": 32, "lr": 0.1},
    "proxyless by reward": {"batch": 32, "lr": 0.1, "rule": "reinforce"},
    "darts": {"batch": 32, "lr": 0.1},
    "darts of second order": {"batch": 32, "lr": 0.1, "second_order": True},
    "darts by sigmoid": {"batch": 32, "lr": 0.1, "relax": "sigmoid"},
    "darts by gumbel": {"batch": 32, "lr": 0.1, "relax": "gumbel"},
    "enas": {"batch": 32, "lr": 0.02, "every": 4},
    "enas under a limit": {"batch": 32, "lr": 0.004, "every": 4},
    "reinforce": {"batch": 4, "lr": 0.02},
    "reinforce by ppo under a limit": {"batch": 4, "lr": 0.004, "clip": 0.2, "epochs": 2},
    "optuna:tpe": {},
}
"""Cases, each the name of a strategy and what is special about it."""
LIMITS = {
    "enas under a limit": {"macs": 200_000},
    "reinforce by ppo under a limit": {"macs": 200_000},
}
"""By case; most of the space is over them."""
BUDGETS = {"optuna:tpe": "steps=90,trials=60,epochs=1"}
"""By case: a sampler is asked for 25 trials at once, and learns only of those before."""


def of(case: str) -> tuple[str, type[nn.Module]]:
    """Return the strategy of a case, and the model that it searches."""
    strategy = case.split()[0]
    return strategy, Operations if strategy == "darts" else tiny.Net


def save_table(case: str, path: Path) -> None:
    example = tiny.task().example(1)
    LatencyTable.build(Space(of(case)[1]), Device(), example=example).save(path)


def run(case: str, out: Path, table: Path, **changes: Any) -> Result:
    strategy, model = of(case)
    given: dict[str, Any] = {
        "strategy": strategy, "settings": {"strategy": SETTINGS[case]},
        "budget": BUDGETS.get(case, BUDGET), "limits": LIMITS.get(case, {}),
        "out": out, "seed": 3, "recipe": tiny.RECIPE, "table": table,
        "finalists": Finalists(k=1, compare=False), **changes,
    }  # fmt: skip
    return search(Space(model), tiny.task(300), **given)


if __name__ == "__main__":
    torch.set_num_threads(1)
    preparing._SAVE_EVERY_S = trainings._SAVE_EVERY_S = 0.0
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), on_event=tiny.told)
