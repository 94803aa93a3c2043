"""Which morphs lead from one architecture of a space to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from assay.architecture import Architecture, Option
from assay.space.choices import ChoiceModule, Depth, Inputs, OneOf
from assay.space.space import Space

__all__ = ["KINDS", "Morph", "below", "origins", "plan", "price"]

Kind = Literal[
    "widen", "grow_kernel", "deepen",
    "narrow", "shrink_kernel", "cut", "rewire", "exchange", "fresh",
]  # fmt: skip

KINDS: tuple[Kind, ...] = (
    "widen", "grow_kernel", "deepen",
    "narrow", "shrink_kernel", "cut", "rewire", "exchange", "fresh",
)  # fmt: skip
"""Kinds of morphs, cheapest first: what may keep the function, what loses weights, what draws new
ones."""

_GROWS = frozenset(KINDS[:3])


@dataclass(frozen=True)
class Morph:
    """One step from a parent to a child.

    Attributes:
        kind: "widen", "grow_kernel" and "deepen" grow; "narrow", "shrink_kernel" and "cut" shrink;
            "rewire" changes what is read; "exchange" puts a new operation in the place of an old
            one; "fresh" is a layer whose weights cannot be taken over.
        label: The decision, or the module path of a fresh layer.
        before: Its option in the parent; None for a fresh layer.
        after: Its option in the child; None for a fresh layer.
        preserving: Whether it leaves the function as it was.
    """

    kind: Kind
    label: str
    before: Option | None
    after: Option | None
    preserving: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        ends = [list(o) if isinstance(o, tuple) else o for o in (self.before, self.after)]
        return {
            "kind": self.kind, "label": self.label, "from": ends[0], "to": ends[1],
            "preserving": self.preserving,
        }  # fmt: skip


def plan(space: Space, parent: Architecture, child: Architecture) -> tuple[Morph, ...]:
    """List the morphs from one architecture to another, cheapest first.

    A decision that only one of them has belongs to the morph that opens or closes it. Growing is
    taken to keep the function; only `inherit` can tell whether it does.

    Args:
        space: Of both.
        parent: Where the weights come from.
        child: Where they go.
    Raises:
        InvalidArchitecture: one of them is no point of the space.
    """
    old, new = space.check(parent), space.check(child)
    steps = []
    for label in space.choices:
        if label in old and label in new and old[label] != new[label]:
            kind = _kind(space, label, old[label], new[label])
            steps.append(Morph(kind, label, old[label], new[label], kind in _GROWS))
    return tuple(sorted(steps, key=lambda morph: KINDS.index(morph.kind)))


def price(morphs: Sequence[Morph]) -> tuple[int, int]:
    """Return what a plan costs, to compare: morphs that lose the function, and morphs in all."""
    return sum(not morph.preserving for morph in morphs), len(morphs)


def _kind(space: Space, label: str, before: Any, after: Any) -> Kind:
    kind = space.choices[label].kind
    if kind == "Width":
        return "widen" if after > before else "narrow"
    if kind == "Kernel":
        return "grow_kernel" if after > before else "shrink_kernel"
    if kind == "Depth":
        return "deepen" if after > before else "cut"
    if kind == "Inputs":
        return "rewire"
    options = space.structure.modules[label][0]._modules
    if type(options[before]) is nn.Identity and _learns(options[after]):
        return "deepen"
    return "cut" if type(options[after]) is nn.Identity and _learns(options[before]) else "exchange"


def _learns(module: Any) -> bool:
    return any(True for _ in module.parameters())


def origins(space: Space, architecture: Architecture) -> dict[str, str]:
    """Return where each module of a built network stands in the space's model.

    The path in the model names the options taken, so two built networks have a part in common
    where these paths are equal.

    Args:
        space: The space.
        architecture: What is built.
    Returns:
        Module path in the built network -> module path in the model, the outermost "" included.
    """
    labels = {id(m): la for la, ms in space.structure.modules.items() for m in ms}

    def walk(module: nn.Module, built: str, model: str) -> Iterator[tuple[str, str]]:
        if isinstance(module, OneOf):
            option = str(architecture[labels[id(module)]])
            yield from walk(module.get_submodule(option), built, below(model, option))
            return
        yield built, model
        for name, part in _parts(module, architecture, labels):
            yield from walk(part, below(built, name), below(model, name))

    return dict(walk(space.model, "", ""))


def _parts(
    module: nn.Module, architecture: Architecture, labels: dict[int, str]
) -> list[tuple[str, nn.Module]]:
    parts = [(name, part) for name, part in module._modules.items() if part is not None]
    if isinstance(module, Depth):
        return parts[: int(architecture[labels[id(module)]])]  # type: ignore[arg-type]
    assert isinstance(module, Inputs) or not isinstance(module, ChoiceModule)
    return parts


def below(path: str, name: str) -> str:
    """Return the path of a module's part."""
    return f"{path}.{name}" if path else name
