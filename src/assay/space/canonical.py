"""One name for every network that several architectures compute.

In a run of interchangeable positions of an `nn.Sequential` or a `Depth`, it does not matter where
the identities stand: `conv, skip, conv` is the network `conv, conv, skip`, and a `Depth` that ends
in identities is a shallower one. Positions are interchangeable when their options have the same
names, classes, settings and tensor shapes; whatever cannot be compared counts as different, so no
two networks are ever merged that differ.

`Inputs` options are ascending, so an order of the same predecessors is no second option, and they
move with the position that they are in. Nothing more about them follows from the modules: ordinary
code reads what they keep, and may tell it apart by its place or not use it at all. A space that
knows its own graph says more by `Space(..., canonical=)`, as the ready cell space does.

A `Sequential` is taken to be called as a whole, not item by item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from assay.architecture import Architecture, Option
from assay.space.choices import ChoiceModule, Depth, OneOf
from assay.space.sizes import Derived, OpenSize, Size
from assay.space.structure import Structure

__all__ = ["Canonical"]

_INTERNAL = frozenset(vars(nn.Module())) - {"training"}


@dataclass(frozen=True)
class _Position:
    """One place in a stack: its own labels, first the choice's, and what makes it an identity."""

    labels: tuple[str, ...]
    identities: frozenset[Option]
    signature: int | None
    always: bool = False  # an nn.Identity that is no choice


@dataclass(frozen=True)
class _Stack:
    """A Sequential or Depth, with the depth's label and options if it is one."""

    positions: tuple[_Position | None, ...]
    depth: str | None
    depths: tuple[int, ...]


class Canonical:
    """The built-in canonical form of a model's architectures.

    Args:
        model: The model with choices.
        structure: What `explore` found in it.
    """

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self._structure = structure
        self._kinds: dict[Any, int] = {}
        self._labels = {id(m): la for la, ms in structure.modules.items() for m in ms}
        self._root_labels = {id(r): la for la, rs in structure.roots.items() for r in rs}
        containers = [m for m in model.modules() if type(m) in (nn.Sequential, Depth)]
        # Inner stacks first, so that what is moved is canonical already.
        self._stacks = [s for m in reversed(containers) if (s := self._stack(m)) is not None]

    def __call__(self, architecture: Architecture) -> Architecture:
        """Return the canonical architecture of the same network."""
        options = dict(architecture)
        for stack in self._stacks:
            _settle(stack, options)
        return architecture if options == architecture else Architecture(options)

    def _stack(self, module: nn.Module) -> _Stack | None:
        positions = tuple(self._position(child) for child in module.children())
        if not any(p is not None and (p.identities or p.always) for p in positions):
            return None
        if isinstance(module, Depth):
            label = self._labels[id(module)]
            if len(self._structure.modules[label]) > 1:  # one decision of several stacks
                return None
            return _Stack(positions, label, module.options)  # type: ignore[arg-type]
        return _Stack(positions, None, ())

    def _position(self, module: nn.Module) -> _Position | None:
        if type(module) is nn.Identity:
            return _Position((), frozenset(), None, always=True)
        if type(module) is not OneOf:
            return None
        label = self._labels[id(module)]
        labels = tuple(dict.fromkeys(self._labels_inside(module)))
        own = tuple(la for la in labels if self._belongs(la, module))
        if label not in own:
            return None
        identities = frozenset(n for n, m in module.named_children() if type(m) is nn.Identity)
        return _Position(own, identities, self._kind(_Signature(own, self).of(module)))

    def _kind(self, signature: Any) -> int:
        """Number the distinct signatures, so that positions are compared by a number."""
        return self._kinds.setdefault(signature, len(self._kinds))

    def _labels_inside(self, module: nn.Module) -> list[str]:
        inside = {id(m) for m in module.modules()}
        labels = [self._labels[i] for i in map(id, module.modules()) if i in self._labels]
        for layer, _ in self._structure.layers:
            if id(layer.layer) in inside:
                labels += [self._root_labels[id(root)] for root in layer.roots]
        return labels

    def _belongs(self, label: str, module: nn.Module) -> bool:
        """Whether everything that obeys a label lies inside a module, named by no one."""
        inside = {id(m) for m in module.modules()}
        holders = self._structure.modules.get(label, [])
        if any(id(m) not in inside for m in holders):
            return False
        roots = self._structure.roots.get(label, [])
        return all(
            id(layer.layer) in inside
            for layer, _ in self._structure.layers
            if any(root in layer.roots for root in roots)
        )


class _Signature:
    """What a module computes, as a value to compare; its own labels appear as positions."""

    def __init__(self, own: tuple[str, ...], canonical: Canonical) -> None:
        self._own = {label: i for i, label in enumerate(own)}
        self._canonical = canonical

    def of(self, module: nn.Module) -> Any:
        kind: type[nn.Module] = type(module)
        settings = {k: v for k, v in vars(module).items() if k not in _INTERNAL}
        if isinstance(module, fx.GraphModule):  # each has a class of its own; its graph tells all
            kind, settings = fx.GraphModule, {"graph": _steps(module.graph)}
        if isinstance(module, ChoiceModule):
            settings.pop("mix", None)
            settings["label"] = self._name(self._canonical._labels[id(module)])
        tensors = {**module._parameters, **module._buffers}
        hooks = [v for k, v in vars(module).items() if "hooks" in k and v]
        return (
            kind,
            tuple((k, self._value(v)) for k, v in sorted(settings.items())),
            tuple((k, None if t is None else self._tensor(t)) for k, t in tensors.items()),
            tuple((k, m and self.of(m)) for k, m in module._modules.items()),
            tuple(id(h) for h in hooks),
        )

    def _name(self, label: str) -> Any:
        return ("own", self._own[label]) if label in self._own else ("shared", label)

    @staticmethod
    def _tensor(tensor: torch.Tensor) -> Any:
        return (tuple(tensor.shape), tensor.dtype, tensor.requires_grad)

    def _value(self, value: Any) -> Any:
        if isinstance(value, OpenSize):
            label = self._canonical._root_labels.get(id(value))
            return (value.options, id(value) if label is None else self._name(label))
        if isinstance(value, Derived):
            return (value.sign, *(self._value(term) for term in value.terms))
        if isinstance(value, tuple | list):
            return tuple(self._value(v) for v in value)
        plain = (type(None), bool, int, float, str, torch.dtype, torch.device)
        if isinstance(value, plain) and not isinstance(value, Size):
            return (type(value), value)
        return ("object", id(value))


def _steps(graph: fx.Graph) -> tuple[str, ...]:
    """Write a graph out; a function is its place in memory, since two may have one name."""
    return tuple(
        repr((n.op, n.name, n.target if isinstance(n.target, str) else id(n.target), n.args,
              n.kwargs))
        for n in graph.nodes
    )  # fmt: skip


def _settle(stack: _Stack, options: dict[str, Option]) -> None:
    """Move the identities of each run to its end, and cut those that end a depth."""
    depth = len(stack.positions)
    if stack.depth is not None:
        if stack.depth not in options:
            return
        depth = int(options[stack.depth])  # type: ignore[arg-type]
    positions = stack.positions[:depth]
    start = 0
    while start < depth:
        first, end = positions[start], start + 1
        while end < depth and _interchangeable(first, positions[end]):
            end += 1
        if first is not None and first.identities:
            _compact([p for p in positions[start:end] if p is not None], options)
        start = end
    if stack.depth is None:
        return
    while depth - 1 in stack.depths and _is_identity(positions[depth - 1], options):
        depth -= 1
        for label in positions[depth].labels:  # type: ignore[union-attr]
            options.pop(label, None)
    options[stack.depth] = depth


def _interchangeable(one: _Position | None, other: _Position | None) -> bool:
    if one is None or other is None or not one.labels:
        return False
    return one.signature == other.signature


def _is_identity(position: _Position | None, options: Mapping[str, Option]) -> bool:
    if position is None or position.always:
        return position is not None
    return options.get(position.labels[0]) in position.identities


def _compact(run: list[_Position], options: dict[str, Option]) -> None:
    if run[0].labels[0] not in options:  # the stack lies in an option not taken
        return
    taken = [{i: options.pop(la) for i, la in enumerate(p.labels) if la in options} for p in run]
    identity = min(map(str, run[0].identities))
    kept = [t for t in taken if t[0] not in run[0].identities]
    settled: list[dict[int, Any]] = kept + [{0: identity}] * (len(run) - len(kept))
    for position, content in zip(run, settled):
        for i, option in content.items():
            options[position.labels[i]] = option
