"""Ready spaces by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from assay.errors import InvalidSetting, nearest
from assay.options import read_option

if TYPE_CHECKING:
    from assay.space.space import Space
    from assay.train.task import Task

__all__ = ["SPACES", "load_space"]

SPACES: Mapping[str, str] = {
    "mobile": "assay.zoo.mobile:mobile",
    "cell": "assay.zoo.cell:cell",
    "conv": "assay.zoo.conv:conv",
    "darts": "assay.zoo.darts:darts",
    "memory-bank": "assay.zoo.memory_bank:memory_bank",
    "enas-macro": "assay.zoo.enas:macro",
    "enas-micro": "assay.zoo.enas:micro",
}
"""Name -> "module:function"; it takes `input_shape=` and `num_classes=` beside its own options."""

_OF_THE_TASK = ("input_shape", "num_classes")


def load_space(name: str, task: Task, **options: Any) -> Space:
    """Make a ready space that fits a task's inputs and classes.

    Args:
        name: A key of `SPACES`.
        task: Of images `[N, C, H, W]` and classes; gives the space its shape.
        options: Keyword arguments of the space, such as `kernels=(3, 5)`; as text also "3,5".
    Raises:
        InvalidSetting: an unknown name or option, a value that does not fit, or a task that is not
            of images and classes.
    """
    if name not in SPACES:
        raise InvalidSetting(f"unknown space {name!r}; {nearest(name, SPACES)}")
    module, _, attribute = SPACES[name].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    known = [p for p in inspect.signature(function).parameters if p not in _OF_THE_TASK]
    types = get_type_hints(function)
    for option, value in options.items():
        if option not in known:
            raise InvalidSetting(f"unknown option space.{option}; {nearest(option, known)}")
        options[option] = read_option(f"space.{option}", types[option], value)
    made: Space = function(**_shape(name, task), **options)
    return made


def _shape(name: str, task: Task) -> dict[str, Any]:
    shape = tuple(getattr(task.example(1), "shape", ()))
    if len(shape) != 4 or task.num_classes is None:
        raise InvalidSetting(
            f"the space {name!r} is for classes of images [N, C, H, W]; the task {task.name!r} has "
            f"inputs {list(shape)} and {task.num_classes} classes: give your own module"
        )
    return {"input_shape": shape[1:], "num_classes": task.num_classes}
