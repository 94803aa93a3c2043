"""Everything an audit is told, settled before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Estimator, Executor
from assay.cost import Budget
from assay.hardware.device import Device
from assay.run import names
from assay.run.limits import Quantity, quantity_name, refuse_shared_names
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["AuditPlan", "key_of"]


@dataclass(frozen=True)
class AuditPlan:
    """The settled arguments of `audit`; see there.

    Raises:
        InvalidSetting: limits that would be kept under one name.
    """

    space: Space
    task: Task
    recipe: Recipe
    estimators: Mapping[str, Estimator]
    num: int
    seeds: int
    budget: Budget
    out: Path
    seed: int
    truths: Mapping[Architecture, float] | None
    train_on: str
    executor: Executor
    limits: Mapping[Quantity, float | str] = field(default_factory=dict)
    target: Device = field(default_factory=Device)
    table: Path | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_shared_names(self.limits)

    def identity(self) -> dict[str, Any]:
        """Return what makes truths and prices comparable; sample and estimators may grow."""
        told: dict[str, Any] = {} if self.truths is None else {"truths": _told(self.truths)}
        if self.limits:
            told["limits"] = {quantity_name(q): v for q, v in self.limits.items()}
        if "latency_ms" in self.limits:
            told["target"] = self.target.describe()
        return {
            "kind": "audit",
            "space": self.space.fingerprint,
            "task": self.task.fingerprint,
            "recipe": names.describe(self.recipe),
            "published": self.truths is not None,
            **told,
            "seed": self.seed,
            "train_on": self.train_on,
        }


def _told(truths: Mapping[Architecture, float]) -> str:
    """Return how many truths there are and the digest of all, in whatever order they come."""
    lines = sorted(f"{a.to_json()} {float(truth)!r}" for a, truth in truths.items())
    digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
    return f"{len(lines)} published, digest {digest}"


def key_of(architecture: Architecture) -> str:
    """Return the key under which an audit keeps what it knows of an architecture."""
    return hashlib.blake2b(architecture.to_json().encode(), digest_size=8).hexdigest()
