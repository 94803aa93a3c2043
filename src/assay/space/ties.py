"""Layers that share a tensor: which these are, and whether they keep the same part of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from assay.errors import InvalidSpace
from assay.space.sizes import OpenSize, Pieces, Values
from assay.space.slicing import OpenLayer

if TYPE_CHECKING:
    from assay.space.structure import Condition

__all__ = ["refuse_uneven_ties", "sharing"]


@dataclass(frozen=True, eq=False)
class _Holder:
    """A place of a tensor; `layer` is None where the module that holds it has no open size."""

    module: nn.Module
    place: str
    name: str
    tensor: Tensor
    layer: OpenLayer | None

    @property
    def roots(self) -> tuple[OpenSize, ...]:
        return () if self.layer is None else self.layer.roots

    def kept(self, values: Values) -> tuple[Pieces, ...]:
        """Return the pieces kept of each dimension."""
        if self.layer is None:
            return tuple((slice(0, size),) for size in self.tensor.shape)
        return self.layer.regions(values)[self.name]


def refuse_uneven_ties(
    model: nn.Module,
    layers: Sequence[OpenLayer],
    conditions: Mapping[int, Sequence[Condition]],
    labels: Mapping[OpenSize, str],
) -> None:
    """Refuse a tensor in two places of which one keeps another part of it than the other.

    A network holds one copy of such a tensor, which would be wrong in one of the places. Modules
    that never run in one network, such as options of one choice, may keep what they like.

    Args:
        model: The model with choices.
        layers: Its layers with open sizes.
        conditions: When each module is active, by id.
        labels: The decision that each open size obeys.
    Raises:
        InvalidSpace: there is one; names both places.
    """
    for one, other in _tied(model, {id(layer.layer): layer for layer in layers}):
        meet = itertools.product(conditions[id(one.module)], conditions[id(other.module)])
        if any(itertools.starmap(_agree, meet)) and not _even(one, other, labels):
            raise InvalidSpace(
                f"{one.place} and {other.place} are one tensor, of which open sizes keep another "
                "part in one place than in the other; give both places the same sizes, or each a "
                "tensor of its own"
            )


def sharing(model: nn.Module, layers: Sequence[OpenLayer]) -> list[OpenLayer]:
    """Return the modules without open sizes that hold a parameter of a layer with some.

    A path that runs such a module uses all of what others use in part.

    Args:
        model: The model with choices.
        layers: Its layers with open sizes.
    """
    known = {id(layer.layer) for layer in layers}
    shared = {id(p) for layer in layers for p in layer.layer._parameters.values() if p is not None}
    return [
        OpenLayer(path, module)
        for path, module in model.named_modules()
        if id(module) not in known and any(id(p) in shared for p in module._parameters.values())
    ]


def _tied(model: nn.Module, layers: Mapping[int, OpenLayer]) -> list[tuple[_Holder, _Holder]]:
    """Return all pairs of places of one tensor."""
    holders: dict[int, list[_Holder]] = {}
    for path, module in model.named_modules():
        for name, tensor in {**module._parameters, **module._buffers}.items():
            if tensor is not None:
                place = f"{path}.{name}" if path else name
                holder = _Holder(module, place, name, tensor, layers.get(id(module)))
                holders.setdefault(id(tensor), []).append(holder)
    return [pair for held in holders.values() for pair in itertools.combinations(held, 2)]


def _agree(one: Condition, other: Condition) -> bool:
    """Whether both can hold at once."""
    given = dict(one)
    return not any(label in given and given[label].isdisjoint(taken) for label, taken in other)


def _even(one: _Holder, other: _Holder, labels: Mapping[OpenSize, str]) -> bool:
    """Whether both keep the same part, whatever the options of their sizes."""
    roots = [*one.roots, *other.roots]
    options = {labels[root]: root.options for root in roots}
    for combination in itertools.product(*options.values()):
        taken = dict(zip(options, combination))
        values = {root: taken[labels[root]] for root in roots}
        if one.kept(values) != other.kept(values):
            return False
    return True
