"""Which morphs lead from one architecture of a space to another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from assay.architecture import Architecture, Option
from assay.space.choices import CHOSEN, OneOf
from assay.space.sizes import BUILDING
from assay.space.space import Space

__all__ = ["KINDS", "Morph", "origins", "plan", "price"]

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
    where these paths are equal. A module in several places goes by the first.

    Args:
        space: The space.
        architecture: What is built.
    Returns:
        Module path in the built network -> module path in the model, the outermost "" included. A
        part that a `__deepcopy__` of the model's own makes out of nothing has none.
    """
    model, structure = space.model, space.structure
    tensors = [t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    # As `build` does it; only the modules are copied, and the memo tells which became which.
    memo: dict[Any, Any] = {id(t): t for t in (*model.parameters(), *model.buffers(), *tensors)}
    memo[BUILDING] = {root: int(root) for roots in structure.roots.values() for root in roots}
    memo[CHOSEN] = {
        id(module): option
        for label, option in architecture.items()
        for module in structure.modules.get(label, ())
    }
    built = copy.deepcopy(model, memo)
    places = {id(module): path for path, module in built.named_modules()}
    copied = [(p, memo.get(id(m))) for p, m in model.named_modules() if not isinstance(m, OneOf)]
    return {places[id(made)]: path for path, made in copied if id(made) in places}
