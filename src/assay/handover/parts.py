"""What recurs in a network, as functions: equal blocks but for some arguments.

Blocks are Sequentials of layers. Those of the same classes become one function; an argument that
is the same in all of them is written out, those that always change together are one parameter.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay.handover.layers import REQUIRED, Made, Value

__all__ = ["Part", "find_parts", "write_call", "write_layer"]

_CHANNELS = {
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels",
    "groups",
}  # fmt: skip

Slot = tuple[str, str]
"""Name of a layer in the block, and name of its argument."""


@dataclass(frozen=True)
class Part:
    """A function that makes a recurring block.

    Attributes:
        name: Of the function.
        block: One block that it makes.
        parameters: Name -> the arguments it sets.
        defaults: Name -> what need not be written, or `REQUIRED`; those required come first.
        derived: Argument -> expression of the parameters that gives it.
    """

    name: str
    block: Made
    parameters: dict[str, list[Slot]]
    defaults: dict[str, Value]
    derived: dict[Slot, str]

    def source(self) -> str:
        """Write the function."""
        given = [p if d is REQUIRED else f"{p}={d!r}" for p, d in self.defaults.items()]
        names = {slot: p for p, slots in self.parameters.items() for slot in slots}
        names |= self.derived
        lines = [f"def {self.name}({', '.join(given)}):", "    return nn.Sequential("]
        for name, layer in self.block.children.items():
            inside = {a: names[name, a] for a in layer.arguments if (name, a) in names}
            lines += _wrapped(f"{write_layer(layer, inside)},", indent=8)
        return "\n".join([*lines, "    )"])

    def call(self, block: Made) -> str:
        """Write the call that makes a block."""
        values = {p: _value(block, slots[0]) for p, slots in self.parameters.items()}
        named = frozenset(p for p in self.parameters if _rank(p) == len(_FIRST))
        return write_call(self.name, values, self.defaults, named=named)


def find_parts(network: Made) -> dict[tuple[object, ...], Part]:
    """Return a function for each kind of block that recurs, in order of its first block.

    Args:
        network: The tree to look through.
    Returns:
        Shape of the block, as `shape_of` tells it, -> function.
    """
    groups: dict[tuple[object, ...], list[Made]] = {}
    for made in network.walk():
        shape = shape_of(made)
        if shape is not None:
            groups.setdefault(shape, []).append(made)
    parts: dict[tuple[object, ...], Part] = {}
    taken: list[str] = []
    for shape, blocks in groups.items():
        if len(blocks) > 1:
            parts[shape] = _part(_function_name(blocks[0], taken), blocks)
            taken.append(parts[shape].name)
    return parts


def shape_of(made: Made) -> tuple[object, ...] | None:
    """Return what blocks of one function share, or None for what is no block."""
    layers = list(made.children.values())
    plain = list(made.children) == [str(i) for i in range(len(layers))]
    if made.kind != "Sequential" or not plain or len(layers) < 2:
        return None
    if not all(layer.is_layer for layer in layers):
        return None
    return tuple((layer.kind, tuple(layer.arguments)) for layer in layers)


def write_layer(layer: Made, expressions: dict[str, str] | None = None) -> str:
    """Write the call that makes a layer.

    Args:
        layer: How it is made.
        expressions: Argument -> what to write in place of its value.
    """
    return write_call(f"nn.{layer.kind}", layer.arguments, layer.defaults, expressions)


def write_call(
    function: str,
    values: dict[str, Value],
    defaults: dict[str, Value],
    expressions: dict[str, str] | None = None,
    named: frozenset[str] = frozenset(),
) -> str:
    """Write a call: required arguments by position, others by name where not at their default.

    Args:
        function: What is called.
        values: Parameter -> argument.
        defaults: Parameter -> default or `REQUIRED`, in the order of the parameters.
        expressions: Parameter -> what to write in place of its value.
        named: Parameters that are given by name although they are required.
    """
    written = []
    for name, default in defaults.items():
        text = (expressions or {}).get(name)
        if text is None and not _same(values[name], default):
            text = repr(values[name])
        if text is not None:
            by_name = default is not REQUIRED or name in named
            written.append(f"{name}={text}" if by_name else text)
    return f"{function}({', '.join(written)})"


# --- finding the parameters -----------------------------------------------------------------------


def _part(name: str, blocks: Sequence[Made]) -> Part:
    columns = {slot: [_value(b, slot) for b in blocks] for slot in _slots(blocks[0])}
    open_columns = {s: c for s, c in columns.items() if not all(_same(v, c[0]) for v in c)}
    derived = {
        (layer, argument): f"{_HALVED} // 2"
        for (layer, argument), column in open_columns.items()
        if argument == "padding" and _halves(column, open_columns.get((layer, "kernel_size")))
    }
    grouped: dict[str, list[Slot]] = {}
    for slot, column in open_columns.items():
        if slot not in derived:
            key = repr(column) + ("" if slot[1] in _CHANNELS else slot[1])
            grouped.setdefault(key, []).append(slot)
    parameters = _named(list(grouped.values()), list(columns))
    names = {slot: p for p, slots in parameters.items() for slot in slots}
    derived = {
        slot: text.replace(_HALVED, names[slot[0], "kernel_size"]) for slot, text in derived.items()
    }
    defaults = {p: _default(blocks[0], slots) for p, slots in parameters.items()}
    ordered = sorted(defaults, key=lambda p: (defaults[p] is not REQUIRED, _rank(p)))
    return Part(name, blocks[0], parameters, {p: defaults[p] for p in ordered}, derived)


_HALVED = "{kernel}"
_FIRST = ("channels", "hidden", "out")


def _rank(parameter: str) -> int:
    """Where a parameter stands: as the channels pass through the block, then all others."""
    name = parameter.rstrip("0123456789")
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _wrapped(line: str, *, indent: int) -> list[str]:
    """Indent a call, its arguments on lines of their own where one would be too long."""
    space = " " * indent
    if len(space + line) <= 100:
        return [space + line]
    function, _, arguments = line.partition("(")
    inner = textwrap.wrap(arguments.removesuffix("),") + ",", width=96 - indent)
    return [f"{space}{function}(", *(f"{space}    {text}" for text in inner), f"{space}),"]


def _slots(block: Made) -> Iterator[Slot]:
    for name, layer in block.children.items():
        for argument in layer.arguments:
            yield name, argument


def _value(block: Made, slot: Slot) -> Value:
    return block.children[slot[0]].arguments[slot[1]]


def _same(one: Value, other: Value) -> bool:
    return type(one) is type(other) and one == other


def _halves(padding: Sequence[Value], kernels: Sequence[Value] | None) -> bool:
    return kernels is not None and all(
        isinstance(k, int) and p == k // 2 for p, k in zip(padding, kernels)
    )


def _default(block: Made, slots: Sequence[Slot]) -> Value:
    defaults = [block.children[layer].defaults[argument] for layer, argument in slots]
    return defaults[0] if all(_same(d, defaults[0]) for d in defaults) else REQUIRED


def _named(groups: Sequence[list[Slot]], slots: Sequence[Slot]) -> dict[str, list[Slot]]:
    """Name each group of arguments: what comes in, what goes out, what is hidden between."""
    inward = next((s for s in slots if s[1] in ("in_channels", "in_features")), None)
    outward = next((s for s in reversed(slots) if s[1] in ("out_channels", "out_features")), None)
    named: dict[str, list[Slot]] = {}
    for group in groups:
        if inward in group:
            name = "channels"
        elif outward in group:
            name = "out"
        elif any(argument in _CHANNELS for _, argument in group):
            name = "hidden"
        else:
            name = group[0][1]
        named[_free(name, list(named))] = group
    return named


def _function_name(block: Made, taken: Sequence[str]) -> str:
    words = [_WORDS.get(w := re.sub(r"\d+d$", "", m.kind).lower(), w)
             for m in block.children.values()]  # fmt: skip
    return _free("_".join(words) if len(words) <= 3 else "block", taken)


_WORDS = {"batchnorm": "norm", "groupnorm": "norm", "layernorm": "norm"}


def _free(name: str, taken: Sequence[str]) -> str:
    number = next(n for n in range(1, len(taken) + 2) if _numbered(name, n) not in taken)
    return _numbered(name, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"
