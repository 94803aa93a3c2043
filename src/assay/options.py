"""Options: what "3", "3,5", "true" and JSON mean as text, and what an object was made with."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from assay.errors import InvalidSetting

__all__ = ["options_of", "read_option"]

_ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)
"""Classes that pydantic knows nothing of are checked by isinstance."""


def read_option(name: str, kind: Any, value: Any) -> Any:
    """Return a value as an option's type; text is taken as it is, as JSON or as a list with commas.

    Args:
        name: What messages call it, such as "space.kernels".
        kind: The option's type.
        value: An object of that type, or text.
    Raises:
        InvalidSetting: it does not fit.
    Example:
        >>> read_option("kernels", tuple[int, ...], "3,5"), read_option("of", list[str], "snip")
        ((3, 5), ['snip'])
    """
    adapter = TypeAdapter(kind, config=_ANY_CLASS)
    refused: list[ValidationError] = []
    for meant in _readings(value):
        try:
            return adapter.validate_python(meant)
        except ValidationError as error:
            refused.append(error)
    reason = refused[_closest(value, len(refused))].errors()[0]["msg"]
    wanted = re.sub(r"\b(\w+\.)+", "", inspect.formatannotation(kind))
    raise InvalidSetting(f"{name}={value!r} does not fit {wanted}: {reason}")


def options_of(thing: Any) -> dict[str, Any]:
    """Return the options that an object was made with, as far as it tells them: name -> value.

    Those of a dataclass are its fields. Those of another object are the arguments of its
    constructor that it keeps under their own name, where these are JSON values; what else it holds
    may have changed since, and is not guessed at.

    Args:
        thing: Any object.
    Example:
        >>> options_of(slice(1)), options_of(json.JSONEncoder(indent=2))["indent"]
        ({}, 2)
    """
    if dataclasses.is_dataclass(thing):
        return {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
    try:
        arguments = inspect.signature(type(thing)).parameters
    except (TypeError, ValueError):  # of a class that is written in C
        return {}
    kept = {name: getattr(thing, name) for name in arguments if hasattr(thing, name)}
    return {name: value for name, value in kept.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(value[key]) for key in value)
    return value is None or isinstance(value, bool | int | float | str)


def _closest(value: Any, num: int) -> int:
    """Return which of so many readings was meant: a list by its commas, else JSON where it is."""
    if not isinstance(value, str):
        return 0
    return num - 1 if "," in value else num - 2


def _readings(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(value)
        yield [part.strip() for part in value.split(",")]
