"""One point of a space: which option every active decision takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from assay.errors import InvalidArchitecture

__all__ = ["Architecture", "Option"]

Option: TypeAlias = str | int | tuple[int, ...]
"""What a decision can be set to: `OneOf` a str, sizes and `Depth` an int, `Inputs` a tuple."""


class Architecture(Mapping[str, Option]):
    """A frozen, hashable mapping label -> option; holds no weights.

    Iteration is in sorted order of the labels, so equal architectures print alike. A decision
    inside an option that was not taken is absent.

    Args:
        options: Any mapping label -> option; a list of ints is read as a tuple.
    Raises:
        InvalidArchitecture: a label is no string or an option is none of str, int, tuple of int.
    Example:
        >>> a = Architecture({"body.0": "conv3", "neck.0": 48})
        >>> a["neck.0"], Architecture.from_json(a.to_json()) == a
        (48, True)
    """

    __slots__ = ("_hash", "_options")

    def __init__(self, options: Mapping[str, Any] = {}) -> None:
        checked = {label: _option(label, options[label]) for label in sorted(options, key=str)}
        self._options: dict[str, Option] = checked
        self._hash = hash(tuple(checked.items()))

    def __getitem__(self, label: str) -> Option:
        return self._options[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Architecture):
            return self._hash == other._hash and self._options == other._options
        return isinstance(other, Mapping) and self._options == dict(other)

    def __repr__(self) -> str:
        return f"Architecture({self._options!r})"

    def __reduce__(self) -> tuple[type[Architecture], tuple[dict[str, Option]]]:
        return Architecture, (self._options,)

    def to_json(self) -> str:
        """Write as one line of JSON with sorted labels; a tuple becomes a list."""
        return json.dumps(self._options, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            InvalidArchitecture: the text is no JSON object of labels and options.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidArchitecture(
                f"not an architecture: {text[:60]!r} is no JSON ({error}); "
                'write an object such as {"body.0": "conv3"}'
            ) from None
        if not isinstance(value, dict):
            raise InvalidArchitecture(
                f"not an architecture: {text[:60]!r} is no JSON object; "
                'write an object such as {"body.0": "conv3"}'
            )
        return cls(value)


def _option(label: object, value: object) -> Option:
    if not isinstance(label, str):
        raise InvalidArchitecture(f"a label must be a str, not {label!r}; use the module path")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, list | tuple) and all(type(v) is int for v in value):
        return tuple(value)
    raise InvalidArchitecture(
        f"the option of {label!r} must be a str, an int or a tuple of ints, not {value!r}"
    )
