"""Ready spaces by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from assay.space.space import Space
    from assay.train.task import Task

__all__ = ["SPACES", "load_space"]

SPACES: Mapping[str, str] = {"mobile": "assay.zoo.mobile:for_task"}
"""Name -> "module:function" that makes the space for a task."""


def load_space(name: str, task: Task, **options: Any) -> Space:
    """Make a ready space that fits a task's inputs and classes.

    Args:
        name: A key of `SPACES`.
        task: Gives the shape of the inputs and the number of classes.
        options: Keyword arguments of the space.
    Raises:
        InvalidSetting: an unknown name or option.
    """
    if name not in SPACES:
        raise InvalidSetting(f"unknown space {name!r}; {nearest(name, SPACES)}")
    module, _, function = SPACES[name].partition(":")
    try:
        made = getattr(importlib.import_module(module), function)(task, **options)
    except TypeError as error:
        raise InvalidSetting(f"space {name!r} does not take {sorted(options)}: {error}") from error
    return made  # type: ignore[no-any-return]
