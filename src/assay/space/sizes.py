"""Open sizes: integers to torch, decisions to Assay.

A `Width` or `Kernel` is an `int` equal to its largest option, so torch's own constructors take it
and allocate the largest weights. Arithmetic on it gives an int that remembers how it was made, so
`w * 49` or `k // 2` can be worked out again for any option.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeAlias

from assay.errors import InvalidSpace

__all__ = [
    "BUILDING",
    "Kernel",
    "OpenSize",
    "Pieces",
    "Size",
    "Values",
    "Width",
    "remake",
    "resolve",
    "roots_in",
]

BUILDING = "assay.building"
"""Key of deepcopy's memo under which `build` passes the options of an architecture."""

Values: TypeAlias = Mapping["OpenSize", int]
"""The value that each open size takes."""

Pieces: TypeAlias = tuple[slice, ...]
"""Which indices of a dimension stay: runs, in order."""


class Size(int):
    """An int that depends on open sizes; equal to its value at the largest options."""

    def roots(self) -> tuple[OpenSize, ...]:
        """Return the open sizes it depends on, each once."""
        raise TypeError("a Size is an OpenSize or Derived")  # pragma: no cover - abstract

    def at(self, values: Values) -> int:
        """Return its value when each root takes the value given."""
        raise TypeError("a Size is an OpenSize or Derived")  # pragma: no cover - abstract

    def pieces(self, values: Values) -> Pieces:
        """Return the indices kept of a dimension of this size."""
        return (slice(0, self.at(values)),)

    def __add__(self, other: Any) -> Any:
        return _derive("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _derive("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _derive("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _derive("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _derive("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _derive("*", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _derive("//", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _derive("//", other, self)

    def __deepcopy__(self, memo: MutableMapping[Any, Any]) -> int:
        values = memo.get(BUILDING)
        if values is None:
            return self
        for root in self.roots():
            if root not in values:
                raise InvalidSpace(
                    f"{root!r} is kept where no path can follow it: neither by a module nor by a "
                    "tuple, list or dict of one; let the module that reads it keep it"
                )
        return self.at(values)


class OpenSize(Size):
    """One decision about a size; one object is one decision.

    Args:
        options: Two or more distinct positive ints.
        label: Name of the decision; by default the path of the first layer that holds it.
    Raises:
        InvalidSpace: fewer than two options, a repeated one, or one that is no positive int.
    """

    kind = "OpenSize"
    label: str | None
    options: tuple[int, ...]

    def __new__(cls, *options: int, label: str | None = None) -> OpenSize:
        """Check the options; see the class."""
        if any(type(o) is not int or o < 1 for o in options):
            raise InvalidSpace(f"{cls.__name__}{options!r}: every option must be a positive int")
        if len(set(options)) != len(options) or len(options) < 2:
            raise InvalidSpace(
                f"{cls.__name__}{options!r} is no choice: give two or more distinct sizes, "
                "or write the plain int"
            )
        size = super().__new__(cls, max(options))
        size.options = tuple(sorted(options))
        size.label = label
        return size

    def roots(self) -> tuple[OpenSize, ...]:
        """Return itself."""
        return (self,)

    def at(self, values: Values) -> int:
        """Return the value it takes."""
        return values[self]

    # One object is one decision: two Widths of equal options are two decisions.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, OpenSize):
            return self is other
        return int.__eq__(self, other) if isinstance(other, int) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.options!r}"


class Width(OpenSize):
    """An open number of channels or features; the first of them are kept.

    Example:
        >>> w = Width(16, 24, 32)
        >>> w == 32, (w * 49).roots() == (w,)
        (True, True)
    """

    kind = "Width"


class Kernel(OpenSize):
    """An open kernel size; the centre of the largest is kept.

    Raises:
        InvalidSpace: the options mix odd and even sizes, which have no common centre.
    """

    kind = "Kernel"

    def __new__(cls, *options: int, label: str | None = None) -> Kernel:
        """Check the options; see the class."""
        size = super().__new__(cls, *options, label=label)
        if len({o % 2 for o in size.options}) != 1:
            raise InvalidSpace(
                f"Kernel{options!r} mixes odd and even sizes, which have no common centre; "
                "use all odd or all even"
            )
        assert isinstance(size, Kernel)
        return size

    def pieces(self, values: Values) -> Pieces:
        """Return the centre of the largest kernel."""
        start = (int(self) - values[self]) // 2
        return (slice(start, start + values[self]),)


class Derived(Size):
    """A size worked out of others by +, -, * or //."""

    sign: str
    terms: tuple[int, int]

    def roots(self) -> tuple[OpenSize, ...]:
        """Return the open sizes of both terms, each once."""
        return tuple(dict.fromkeys(root for term in self.terms for root in roots_in(term)))

    def at(self, values: Values) -> int:
        """Work the expression out."""
        left, right = (resolve(term, values) for term in self.terms)
        return _OPERATIONS[self.sign](left, right)

    def pieces(self, values: Values) -> Pieces:
        """Return the indices kept: of a sum (concatenated channels) the parts of each term.

        Of a size times a plain int (`w * 49`, flattened channels) these are the blocks of 49 that
        belong to the channels kept, as `flatten` lays them out. Other expressions keep their first
        indices.
        """
        left, right = self.terms
        if self.sign == "*" and not (isinstance(left, Size) and isinstance(right, Size)):
            size, times = (left, right) if isinstance(left, Size) else (right, left)
            return tuple(slice(p.start * times, p.stop * times) for p in _pieces(size, values))
        if self.sign != "+":
            return super().pieces(values)
        shifted = (slice(p.start + int(left), p.stop + int(left)) for p in _pieces(right, values))
        return (*_pieces(left, values), *shifted)


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "//": int.__floordiv__,
}


def _derive(sign: str, left: Any, right: Any) -> Any:
    if not isinstance(left, int) or not isinstance(right, int):
        return NotImplemented
    size = Derived(_OPERATIONS[sign](int(left), int(right)))
    size.sign, size.terms = sign, (left, right)
    return size


def _pieces(size: int, values: Values) -> Pieces:
    return size.pieces(values) if isinstance(size, Size) else (slice(0, size),)


def resolve(value: Any, values: Values) -> Any:
    """Return a value with every size in it (also inside tuples, lists, dicts) as a plain int."""
    if isinstance(value, Size):
        return value.at(values)
    if isinstance(value, tuple | list):
        return remake(value, [resolve(v, values) for v in value])
    if isinstance(value, dict):
        return remake(value, {name: resolve(v, values) for name, v in value.items()})
    return value


def remake(like: Any, items: Any) -> Any:
    """Return other items as the kind of tuple, list or dict that they were in; named tuples too.

    Args:
        like: What they were in.
        items: A list; a dict with the same keys where `like` is a dict.
    """
    kind = type(like)
    if not isinstance(like, dict):
        return getattr(kind, "_make", kind)(items)
    return items if kind is dict else _refilled(like, items)


def _refilled(like: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """Return a copy of a user's kind of dict, which may hold its items as attributes, too."""
    other = copy.copy(like)
    instead = {id(like[name]): value for name, value in items.items()}
    for name, value in items.items():
        other[name] = value
    for name, value in getattr(like, "__dict__", {}).items():
        if id(value) in instead:
            other.__dict__[name] = instead[id(value)]
    return other


def roots_in(value: Any) -> Iterator[OpenSize]:
    """Yield the open sizes that a value, tuple, list or dict depends on."""
    if isinstance(value, Size):
        yield from value.roots()
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from roots_in(item)
