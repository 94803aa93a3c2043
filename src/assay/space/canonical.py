"""One name for every network that several architectures compute.

In an `nn.Sequential` or a `Depth` it does not matter where the identities stand: `conv, skip, conv`
is the network `conv, conv, skip`, and a `Depth` that ends in identities is a shallower one. So what
a stack computes moves to the front, past identities only, to the first position of its kind.
Positions are of one kind when their options have the same names, classes, settings, shapes of what
is trained and values of what is not; whatever cannot be compared counts as different, so no two
networks are ever merged that differ. What is met in two places, be it a choice, a module or a
tensor, is no position's own and stays where it is.

`Inputs` options are ascending, so an order of the same predecessors is no second option, and they
move with the position that they are in. Nothing more about them follows from the modules: ordinary
code reads what they keep, and may tell it apart by its place or not use it at all. A space that
knows its own graph says more by `Space(..., canonical=)`, as the ready cell space does.

A `Sequential` whose items are called one by one, as in a loop that keeps what lies between them, is
no such stack. Its modules do not tell, a forward does: so a space with an example, which every
search gives it, has its model run once. Without one it is taken to be called as a whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from assay.architecture import Architecture, Option
from assay.space.choices import ChoiceModule, Depth, OneOf
from assay.space.sizes import Derived, OpenSize, Size
from assay.space.structure import Choice, Structure
from assay.space.whole import Items, called_whole
from assay.train.frozen import frozen_norms

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["Canonical"]

_INTERNAL = frozenset(vars(nn.Module())) - {"training"}
_GATHERED = frozenset(["running_mean", "running_var", "num_batches_tracked"])


@dataclass(frozen=True)
class _Position:
    """One place in a stack.

    Attributes:
        kind: Contents move between positions of one kind.
        choice: The label that decides what stands here; "" for a module that is no choice.
        identities: The options of the choice that are an identity.
        labels: The decisions that move with the content, first the choice's; empty if none may.
        empty: Whether an `nn.Identity` that is no choice stands here.
    """

    kind: int
    choice: str = ""
    identities: tuple[Option, ...] = ()
    labels: tuple[str, ...] = ()
    empty: bool = False

    def is_idle(self, options: Mapping[str, Option]) -> bool:
        """Whether what stands here is an identity."""
        return self.empty or options.get(self.choice) in self.identities

    def rest(self, options: dict[str, Option]) -> None:
        """Of several names for an identity, take the first."""
        if self.labels:
            options[self.choice] = self.identities[0]

    def move(self, to: _Position, options: dict[str, Option]) -> None:
        """Let another position of this kind, which is idle, have the content."""
        for mine, theirs in zip(self.labels, to.labels, strict=True):
            if mine in options:
                options[theirs] = options.pop(mine)
        self.rest(options)


@dataclass(frozen=True, eq=False)
class _Stack:
    """A Sequential or Depth.

    Attributes:
        module: It.
        positions: All of them, in order.
        sign: A label that is present exactly where the stack runs.
        depth: The label of a Depth.
        shallowest: The least option of a Depth.
    """

    module: nn.Module
    positions: tuple[_Position, ...]
    sign: str
    depth: str | None = None
    shallowest: int = 0

    def settle(self, options: dict[str, Option], choices: Mapping[str, Choice]) -> None:
        """Move every content to the front, and cut the identities that end a depth."""
        if self.sign not in options:
            return
        depth = len(self.positions)
        if self.depth is not None:
            depth = int(options[self.depth])  # type: ignore[arg-type]
        free = 0  # what stood before it is settled; from it up to the position all are idle
        for i, position in enumerate(self.positions[:depth]):
            if position.is_idle(options):
                position.rest(options)
                continue
            while self.positions[free].kind != position.kind:
                free += 1
            if free != i:
                position.move(self.positions[free], options)
            free += 1
        if self.depth is None:
            return
        options[self.depth] = kept = max(free, self.shallowest)
        for position in self.positions[kept:depth]:
            if position.choice in options and not choices[position.choice].active(options):
                del options[position.choice]

    def items(self) -> Items:
        """Return its choices that move."""
        children = zip(self.module._modules.values(), self.positions)
        moving = tuple(m for m, p in children if m is not None and p.labels)
        return Items(self.module, moving, self.sign)


class Canonical:
    """The built-in canonical form of a space's architectures.

    Args:
        space: Explored already; its example may be set later.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._structure = space.structure
        self._found = _Found(space.model, space.structure)
        self._kinds: dict[Any, int] = {}
        containers = [m for m in space.model.modules() if type(m) in (nn.Sequential, Depth)]
        # Inner stacks first, so that what is moved is canonical already.
        self._all = [s for m in reversed(containers) if (s := self._stack(m)) is not None]
        self._stacks: list[_Stack] = self._all
        self._seen_on: Any = None

    def __call__(self, architecture: Architecture) -> Architecture:
        """Return the canonical architecture of the same network."""
        if self._space.example is not self._seen_on:
            self._look()
        options = dict(architecture)
        for stack in self._stacks:
            stack.settle(options, self._structure.choices)
        return architecture if options == architecture else Architecture(options)

    def _look(self) -> None:
        """Leave out the Sequentials that the model does not call as a whole."""
        example = self._space.example
        asked = [s for s in self._all if s.depth is None] if example is not None else []
        whole = called_whole(self._space, [stack.items() for stack in asked])
        apart = [stack for stack, is_whole in zip(asked, whole) if not is_whole]
        self._stacks = [stack for stack in self._all if stack not in apart]
        self._seen_on = example

    def _stack(self, module: nn.Module) -> _Stack | None:
        # Not children(), which gives a module that stands in two positions once.
        positions = tuple(self._position(m, module) for m in module._modules.values())
        if isinstance(module, Depth):
            label = self._found.labels[id(module)]
            if len(self._structure.modules[label]) > 1:  # one decision of several stacks
                return None
            cuts = any(p.identities or p.empty for p in positions)
            least = int(module.options[0])  # type: ignore[arg-type]
            return _Stack(module, positions, label, label, least) if cuts else None
        moving = [p.choice for p in positions if p.labels]
        return _Stack(module, positions, moving[0]) if moving else None

    def _position(self, module: nn.Module | None, stack: nn.Module) -> _Position:
        if module is not None and _passes(module):
            return _Position(self._kind(object()), empty=True)
        if type(module) is not OneOf or _hooks(module):
            return _Position(self._kind(object()))
        choice = self._found.labels[id(module)]
        identities = tuple(sorted(n for n, m in module._modules.items() if m and _passes(m)))
        content = _Content(module, self._found)
        alone = self._found.places[id(module)] == self._found.places[id(stack)]
        if not (identities and alone and choice in content.labels):
            return _Position(self._kind(object()), choice, identities)
        return _Position(self._kind(content.signature), choice, identities, content.labels)

    def _kind(self, signature: Any) -> int:
        """Number the distinct signatures, so that positions are compared by a number."""
        return self._kinds.setdefault(signature, len(self._kinds))


class _Found:
    """What the whole model holds, by id.

    Attributes:
        structure: What `explore` found.
        labels: The label of each choice module.
        sizes: The label of each open size.
        places: In how many places each module and tensor is met.
        frozen: The norms that are frozen.
    """

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self.structure = structure
        self.labels = {id(m): la for la, ms in structure.modules.items() for m in ms}
        self.sizes = {id(r): la for la, rs in structure.roots.items() for r in rs}
        self.places = _places(model)
        self.frozen = frozenset(frozen_norms(model))


class _Content:
    """What stands in a position.

    Attributes:
        labels: The decisions met here and nowhere else, first the module's.
        signature: What is computed, as a value to compare; own labels and tensors appear by number.
    """

    def __init__(self, module: nn.Module, found: _Found) -> None:
        self._found = found
        self._times = found.places[id(module)]
        self._inside = _places(module)
        self.labels = tuple(la for la in self._labels_inside(module) if self._owns_label(la))
        self._tensors: dict[int, int] = {}
        self.signature = self._of(module)

    def _owns(self, thing: nn.Module | Tensor) -> bool:
        """Whether a module or tensor is met in this content only."""
        return self._found.places[id(thing)] == self._times * self._inside[id(thing)]

    def _owns_label(self, label: str) -> bool:
        structure = self._found.structure
        roots = structure.roots.get(label, ())
        readers = [la.layer for la, _ in structure.layers if any(r in la.roots for r in roots)]
        return all(map(self._owns, [*structure.modules.get(label, ()), *readers]))

    def _labels_inside(self, module: nn.Module) -> list[str]:
        inside = map(id, module.modules())
        labels = [self._found.labels[i] for i in inside if i in self._found.labels]
        for layer, _ in self._found.structure.layers:
            if id(layer.layer) in self._inside:
                labels += [self._found.sizes[id(root)] for root in layer.roots]
        return list(dict.fromkeys(labels))

    def _of(self, module: nn.Module) -> Any:
        kind: type[nn.Module] = type(module)
        settings = {k: v for k, v in vars(module).items() if k not in _INTERNAL}
        if isinstance(module, fx.GraphModule):  # each has a class of its own; its graph tells all
            kind, settings = fx.GraphModule, {"graph": _steps(module.graph)}
        if isinstance(module, ChoiceModule):
            for set_by_a_space in ("mix", "label_in_space"):
                settings.pop(set_by_a_space, None)
            settings["label"] = self._name(self._found.labels[id(module)])
        tensors = {**module._parameters, **module._buffers}
        return (
            kind,
            tuple((k, self._value(v)) for k, v in sorted(settings.items())),
            tuple((k, t if t is None else self._tensor(module, k, t)) for k, t in tensors.items()),
            tuple((k, m if m is None else self._of(m)) for k, m in module._modules.items()),
            tuple(map(id, _hooks(module))),
        )

    def _name(self, label: str) -> Any:
        return ("own", self.labels.index(label)) if label in self.labels else ("shared", label)

    def _tensor(self, module: nn.Module, name: str, tensor: Tensor) -> Any:
        if not self._owns(tensor):
            return ("shared", id(tensor))
        number = self._tensors.setdefault(id(tensor), len(self._tensors))
        value = None if self._is_trained(module, name, tensor) else _digest(tensor)
        return ("own", number, tuple(tensor.shape), tensor.dtype, tensor.requires_grad, value)

    def _is_trained(self, module: nn.Module, name: str, tensor: Tensor) -> bool:
        """Whether training sets a tensor, as it does what a norm gathers that is not frozen."""
        if isinstance(module, _NormBase) and name in _GATHERED:
            return module not in self._found.frozen
        return tensor.requires_grad

    def _value(self, value: Any) -> Any:
        if isinstance(value, OpenSize):
            label = self._found.sizes.get(id(value))
            return (value.options, id(value) if label is None else self._name(label))
        if isinstance(value, Derived):
            return (value.sign, *(self._value(term) for term in value.terms))
        if isinstance(value, tuple | list):
            return tuple(self._value(v) for v in value)
        plain = (type(None), bool, int, float, str, torch.dtype, torch.device)
        if isinstance(value, plain) and not isinstance(value, Size):
            return (type(value), value)
        return ("object", id(value))


def _places(model: nn.Module) -> Counter[int]:
    """Count the places in which each module and each tensor is met, by id."""
    modules = [m for _, m in model.named_modules(remove_duplicate=False)]
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values())]
    return Counter([*map(id, modules), *(id(t) for t in tensors if t is not None)])


def _passes(module: nn.Module) -> bool:
    return type(module) is nn.Identity and not _hooks(module)


def _hooks(module: nn.Module) -> list[Any]:
    return [v for k, v in vars(module).items() if "hooks" in k and v]


def _digest(tensor: Tensor) -> Any:
    """Return what stands for the values of a tensor."""
    if tensor.is_meta or tensor.layout is not torch.strided:  # no values to be read
        return id(tensor)
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(raw, digest_size=16).digest()


def _steps(graph: fx.Graph) -> tuple[str, ...]:
    """Write a graph out; a function is its place in memory, since two may have one name."""
    return tuple(
        repr((n.op, n.name, n.target if isinstance(n.target, str) else id(n.target), n.args,
              n.kwargs))
        for n in graph.nodes
    )  # fmt: skip
