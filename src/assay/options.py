"""Options given as text: what "3", "3,5", "true" and JSON mean for an option's type."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from assay.errors import InvalidSetting

__all__ = ["read_option"]

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
    reason = refused[0].errors()[0]["msg"]
    raise InvalidSetting(f"{name}={value!r} does not fit: {reason}")


def _readings(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(value)
        yield [part.strip() for part in value.split(",")]
