"""Everything a search is told, settled before it starts."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from assay.contracts import Estimator, Executor, Strategy
from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.hardware.device import Device
from assay.run.limits import Quantity, quantity_name, refuse_shared_names
from assay.run.names import describe
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["Finalists", "Plan", "versions"]


@dataclass(frozen=True)
class Finalists:
    """How the best by score are trained for real.

    Args:
        k: How many distinct architectures.
        seeds: Trainings of each; the winner is the best on average.
        recipe: How they are trained; None for the search's own recipe.
        weights: "scratch", or "supernet" to start from the shared weights.
        compare: Also train the space's largest, smallest and one random architecture alike.
    Raises:
        InvalidSetting: unknown weights, or of something no whole number of at least 1.
    """

    k: int = 3
    seeds: int = 1
    recipe: Recipe | None = None
    weights: Literal["scratch", "supernet"] = "scratch"
    compare: bool = True

    def __post_init__(self) -> None:
        if self.weights not in ("scratch", "supernet"):
            raise InvalidSetting(
                f"finalists.weights={self.weights!r}; there are 'scratch' and 'supernet'"
            )
        for name in ("k", "seeds"):
            value: Any = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise InvalidSetting(
                    f"finalists.{name}={value!r} must be a whole number of at least 1"
                )


@dataclass(frozen=True)
class Plan:
    """The settled arguments of `search`; see there.

    Raises:
        InvalidSetting: limits or objectives that would be kept under one name.
    """

    space: Space
    task: Task
    estimator: Estimator
    strategy: Strategy
    executor: Executor
    limits: Mapping[Quantity, float | str]
    objectives: Sequence[Quantity]
    budget: Budget
    target: Device
    train_on: str
    recipe: Recipe
    finalists: Finalists
    out: Path
    seed: int
    table: Path | None = None
    url: str | None = None
    origin: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        refuse_shared_names([*self.limits, *self.objectives])

    def identity(self) -> dict[str, Any]:
        """Return what makes this search itself: two that differ here are two studies."""
        return {
            "space": self.space.fingerprint,
            "task": self.task.fingerprint,
            "estimator": describe(self.estimator),
            "strategy": describe(self.strategy),
            "limits": {quantity_name(q): v for q, v in self.limits.items()},
            "objectives": [quantity_name(o) for o in self.objectives],
            "budget": str(self.budget),
            "target": self.target.describe(),
            "train_on": self.train_on,
            "recipe": describe(self.recipe),
            "finalists": describe(self.finalists),
            "seed": self.seed,
        }

    def settings(self) -> dict[str, Any]:
        """Return how to say this search again, as text: for `resume` and for the report."""
        return {"origin": dict(self.origin or {}), "space": repr(self.space),
                "task": self.task.describe()}  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("assay", "torch", "numpy", "onnx", "onnxruntime", "scikit-learn", "sqlalchemy")
    found = {name: metadata.version(name) for name in names}
    if importlib.util.find_spec("optuna") is not None:
        found["optuna"] = metadata.version("optuna")
    return {"python": sys.version.split()[0], "system": platform.platform(), **found}
