"""Parameters and bytes of any architecture's network, without building it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn

from assay.architecture import Option
from assay.space.choices import Depth, OneOf
from assay.space.slicing import OpenLayer
from assay.space.space import Space
from assay.space.structure import Condition, reached

__all__ = ["NetworkSizes", "Sizes"]


class Sizes(NamedTuple):
    """What the tensors of a network take; shared ones count once.

    Attributes:
        params: Number of parameters, trained or frozen.
        saved_bytes: Bytes of parameters and of the buffers that are saved with them.
        held_bytes: Bytes of parameters and of all buffers.
    """

    params: int
    saved_bytes: int
    held_bytes: int


@dataclass
class _Kept:
    """One tensor of the model with choices: when it is there, and what of it."""

    tensor: Tensor
    name: str
    saved: bool = False
    layer: OpenLayer | None = None
    conditions: list[Condition] = field(default_factory=list)


class NetworkSizes:
    """Sizes of the networks of a space, worked out from its structure.

    Tensors are grouped by the decisions that they hang on, and each group remembers its sizes for
    the options it has met.

    Args:
        space: The space; its model is only looked at.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._open = {id(layer.layer): layer for layer, _ in space.structure.layers}
        roots = space.structure.roots
        self._label_of = {root: label for label, sized in roots.items() for root in sized}
        self._choice_of = {id(m): la for la, ms in space.structure.modules.items() for m in ms}
        self._kept: dict[int, _Kept] = {}
        self._visit(space.model, ())
        grouped: dict[tuple[str, ...], list[_Kept]] = {}
        for kept in self._kept.values():
            grouped.setdefault(self._labels(kept), []).append(kept)
        self._groups: list[tuple[tuple[str, ...], list[_Kept], dict[Any, Sizes]]] = [
            (labels, tensors, {}) for labels, tensors in grouped.items()
        ]

    def of(self, architecture: Mapping[str, Option]) -> Sizes:
        """Return the sizes of an architecture's network.

        Raises:
            InvalidArchitecture: it is no point of the space.
        """
        options = dict(architecture)
        params = saved = held = 0
        for labels, tensors, known in self._groups:
            key = tuple(map(options.get, labels))
            sizes = known.get(key)
            if sizes is None:
                self._space.check(architecture)
                sizes = known[key] = self._sizes(tensors, options)
            params += sizes[0]
            saved += sizes[1]
            held += sizes[2]
        return Sizes(params, saved, held)

    def _sizes(self, tensors: list[_Kept], options: Mapping[str, Option]) -> Sizes:
        there = [kept for kept in tensors if reached(kept.conditions, options)]
        counted = [(kept, self._numel(kept, options)) for kept in there]
        return Sizes(
            sum(n for kept, n in counted if isinstance(kept.tensor, nn.Parameter)),
            sum(n * kept.tensor.element_size() for kept, n in counted if kept.saved),
            sum(n * kept.tensor.element_size() for kept, n in counted),
        )

    def _numel(self, kept: _Kept, options: Mapping[str, Option]) -> int:
        if kept.layer is None:
            return kept.tensor.numel()
        values: dict[Any, Any] = {
            root: options.get(self._label_of[root], int(root)) for root in kept.layer.roots
        }
        pieces = kept.layer.regions(values)[kept.name]
        return prod(sum(run.stop - run.start for run in runs) for runs in pieces)

    def _labels(self, kept: _Kept) -> tuple[str, ...]:
        asked = [label for condition in kept.conditions for label, _ in condition]
        sizes = [self._label_of[root] for root in kept.layer.roots] if kept.layer else []
        return tuple(sorted({*asked, *sizes}))

    def _visit(self, module: nn.Module, condition: Condition) -> None:
        for name, tensor, saved in _own_tensors(module):
            kept = self._kept.setdefault(id(tensor), _Kept(tensor, name))
            kept.saved = kept.saved or saved
            if kept.layer is None and id(module) in self._open:
                kept.layer, kept.name = self._open[id(module)], name
            if condition not in kept.conditions:
                kept.conditions.append(condition)
        for i, (name, child) in enumerate(module._modules.items()):
            if child is None:
                continue
            inner = condition
            if isinstance(module, OneOf | Depth):
                taken = frozenset(o for o in module.options if _keeps(module, o, i, name))
                inner = (*condition, (self._choice_of[id(module)], taken))
            self._visit(child, inner)


def _keeps(choice: OneOf | Depth, option: Any, index: int, name: str) -> bool:
    """Whether an option keeps the child at an index, of a name."""
    return bool(option == name if isinstance(choice, OneOf) else option > index)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield name, tensor and whether it is saved."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter, True
    for name, buffer in module._buffers.items():
        if buffer is not None:
            yield name, buffer, name not in module._non_persistent_buffers_set
