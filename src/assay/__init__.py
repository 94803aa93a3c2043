"""Assay: neural architecture search on your own model, data and device.

This is the whole public face. A name is imported when it is first used, so `import assay` loads
neither torch nor anything else that is slow. Whoever writes a strategy or an estimator finds the
contracts in `assay.contracts` and the suites that test them in `assay.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from assay import errors

if TYPE_CHECKING:
    from assay.architecture import Architecture
    from assay.cost import Budget, Cost
    from assay.estimators.one_shot import OneShot
    from assay.hardware.device import Device
    from assay.hardware.table import LatencyTable
    from assay.run.audit import audit
    from assay.run.face import search
    from assay.run.plan import Finalists
    from assay.run.result import Result
    from assay.space.choices import Depth, Inputs, OneOf
    from assay.space.sizes import Kernel, Width
    from assay.space.space import Space
    from assay.strategies.evolution import Evolution
    from assay.strategies.nsga2 import NSGA2
    from assay.strategies.random import Random
    from assay.study.store import Study
    from assay.train.recipe import Recipe
    from assay.train.task import Task
    from assay.weights.supernet import Supernet

    __version__: str

__all__ = [
    "NSGA2",
    "Architecture",
    "Budget",
    "Cost",
    "Depth",
    "Device",
    "Evolution",
    "Finalists",
    "Inputs",
    "Kernel",
    "LatencyTable",
    "OneOf",
    "OneShot",
    "Random",
    "Recipe",
    "Result",
    "Space",
    "Study",
    "Supernet",
    "Task",
    "Width",
    "audit",
    "errors",
    "search",
]

_HOME = {
    "Architecture": "assay.architecture",
    "Budget": "assay.cost",
    "Cost": "assay.cost",
    "Depth": "assay.space.choices",
    "Device": "assay.hardware.device",
    "Evolution": "assay.strategies.evolution",
    "Finalists": "assay.run.plan",
    "Inputs": "assay.space.choices",
    "Kernel": "assay.space.sizes",
    "LatencyTable": "assay.hardware.table",
    "NSGA2": "assay.strategies.nsga2",
    "OneOf": "assay.space.choices",
    "OneShot": "assay.estimators.one_shot",
    "Random": "assay.strategies.random",
    "Recipe": "assay.train.recipe",
    "Result": "assay.run.result",
    "Space": "assay.space.space",
    "Study": "assay.study.store",
    "Supernet": "assay.weights.supernet",
    "Task": "assay.train.task",
    "Width": "assay.space.sizes",
    "audit": "assay.run.audit",
    "search": "assay.run.face",
}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("assay")
    if name not in _HOME:
        raise AttributeError(f"module 'assay' has no attribute {name!r}; see assay.__all__")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__, "__version__"})
