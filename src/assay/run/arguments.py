"""What a search or an audit takes, by type: what is of another is refused before it is used."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.hardware.device import Device
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["refuse_wrong_types"]

_TAKES: Mapping[str, tuple[Any, str]] = {
    "space": (Space, "a Space; write Space(Net)"),
    "task": (Task, "a Task; write Task.from_arrays(images, labels)"),
    "estimators": (tuple | list | Mapping, 'a list; write ["one-shot"]'),
    "num": (int, "an int; write 40"),
    "seeds": (int, "an int; write 2"),
    "truths": (Mapping | None, "a mapping; write {architecture: 0.9}"),
    "limits": (Mapping | None, 'a mapping; write {"latency_ms": 0.5}'),
    "objectives": (tuple | list, "a tuple; write ('score',)"),
    "budget": (str | int | float | Budget, 'a time or counts; write "20min" or "steps=300"'),
    "out": (str | Path | None, 'a path; write "runs/mine"'),
    "seed": (int, "an int; write 0"),
    "target": (Device | None, 'a Device; write Device("onnxruntime")'),
    "train_on": (str, 'the name of a device; write "auto", "cpu" or "cuda"'),
    "recipe": (Recipe | None, "a Recipe; write Recipe(lr=0.1)"),
    "finalists": (Finalists | None, "Finalists; write Finalists(k=3)"),
    "on_event": (Callable, "a function; give one that takes an Event"),
    "table": (str | Path | None, 'the path of a saved table; write "table.json"'),
    "settings": (Mapping | None, 'a mapping; write {"estimator": {"paths": "fair"}}'),
}


def refuse_wrong_types(given: Mapping[str, Any]) -> None:
    """Refuse arguments that are of no use as what they are given for.

    Which strategy, estimator or executor is given is left to `assay.run.names.resolve`.

    Args:
        given: Name -> value; names that have no type of their own here may be among them.
    Raises:
        InvalidSetting: one is of another type.
    """
    for name, (kind, wanted) in _TAKES.items():
        if name in given and not isinstance(given[name], kind):
            said = " ".join(reprlib.repr(given[name]).split())
            raise InvalidSetting(f"{name}={said} is not {wanted}")
