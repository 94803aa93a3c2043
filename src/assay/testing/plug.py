"""How a suite is told what to test."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

__all__ = ["Plug", "made"]

Plug: TypeAlias = "Callable[[], Any] | str"
"""A class, a function without arguments that makes an object, or "module:name" of either."""


def made(suite: object, attribute: str) -> Any:
    """Make a fresh object of what a suite names.

    Args:
        suite: The instance of the suite.
        attribute: Of its class, holding a `Plug`.
    Raises:
        NotImplementedError: the subclass has not set it.
    """
    plug = getattr(type(suite), attribute, None)  # of the class: a plain function stays unbound
    if plug is None:
        raise NotImplementedError(
            f"{type(suite).__name__} tests nothing; set {attribute} = a class, a function that "
            'makes one, or "module:name"'
        )
    if isinstance(plug, str):
        module, _, name = plug.partition(":")
        plug = getattr(import_module(module), name)
    return plug()
