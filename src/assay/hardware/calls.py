"""Which layers an architecture runs, on which shapes: worked out fast, for every candidate.

A module that was seen with the same input shapes and the same options inside answers from memory.
The choices and torch's Sequential are followed by what they are known to do; other code with more
decisions inside than can be remembered is followed along its trail (see `assay.hardware.trails`).
What is new runs once, on zeros in the place of floats.

It rests on this: what a module calls depends on the shapes of its inputs, on the values of those
that are integers or booleans, and on the decisions inside it; not on other values, chance, or what
ran before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn

from assay.architecture import Architecture, Option
from assay.hardware.count import Counts, as_call, is_layer
from assay.hardware.sizes import NetworkSizes, Sizes
from assay.hardware.trails import Code, Tracer
from assay.hardware.units import Layers, Part, Unit, shapes_of, unselected
from assay.hardware.values import Given, Values
from assay.space.choices import ChoiceModule, Depth, OneOf
from assay.space.space import Space

__all__ = ["PathCalls", "Unit", "shapes_of"]

_MOST_WAYS = 1024


@dataclass(eq=False)
class _Node:
    """One module of the model with choices; `kind` says how its calls are worked out."""

    path: str
    kind: str
    labels: tuple[str, ...]
    label: str = ""
    children: dict[str, _Node] = field(default_factory=dict)
    memory: dict[Any, Part] | None = None
    code: Code | None = None

    def __repr__(self) -> str:
        return self.path or "the model"


class PathCalls:
    """The units that each architecture of a space runs on an example.

    The code of the model's modules runs on a private copy; a layer runs once for each distinct
    call. Forward hooks run on layers only.

    Args:
        space: The space; a path selected in its model stays selected.
        example: Inputs `[N, ...]`, or a tuple or dict of tensors; of floats only shapes matter.
    Attributes:
        modules: Key of each unit met in `of` -> (its plain module, on the CPU in eval mode, and
            inputs for it: a tensor, or a tuple or dict of tensors).
    """

    def __init__(self, space: Space, example: Any) -> None:
        self.modules: dict[str, tuple[nn.Module, Any]] = {}
        self._original = space
        self._sizes = NetworkSizes(space)
        self._values = Values()
        self._layers = Layers(space, self._values)
        self._example = self._values.of(as_call(example))
        with unselected(space):
            self._space = Space(space.model)  # over a copy
        self._space.model.cpu().eval()
        self._tracer = Tracer(self._space, self._values, self._answer)
        self._nodes: dict[int, _Node] = {}
        self._labels_of = _labels_by_module(self._space)
        self._root = self._node("", self._space.model)
        inner = [m for m in self._space.model.modules() if m is not self._space.model]
        self._tracer.install([(m, self._nodes[id(m)]) for m in inner])
        self._chains: dict[tuple[Part, Part], Part] = {}
        self._architecture: Architecture | None = None
        self._options: dict[str, Option] = {}
        self._checked = False
        self._parts: list[Part] = []

    def of(self, architecture: Architecture) -> tuple[Unit, ...]:
        """Return the units of an architecture in the order in which they run.

        Raises:
            InvalidArchitecture: it is no point of the space.
            InvalidSpace: the model's code does not do the same each time.
        """
        units = [unit for part in self._walk(architecture) for unit in part.units]
        for unit in units:
            if unit.key not in self.modules:
                self.modules[unit.key] = self._layers.to_run(unit)
        return tuple(units)

    def counts(self, architecture: Architecture) -> Counts:
        """Return what `count` gives for an architecture's network, without building it.

        Paths in `uncounted` are those in the model with choices.
        """
        macs = moved = peak = outputs = 0
        uncounted: tuple[str, ...] = ()
        for part in self._walk(architecture):
            sums = part.sums
            macs += sums.macs
            moved += sums.bytes_moved
            outputs += sums.activation_bytes
            peak = max(peak, sums.peak_bytes)
            uncounted += sums.uncounted
        sizes, names = self.sizes(architecture), tuple(dict.fromkeys(uncounted))
        return Counts(macs, sizes.params, sizes.held_bytes, moved, peak, outputs, names)

    def sizes(self, architecture: Architecture) -> Sizes:
        """Return parameters and bytes of an architecture's network, without building it."""
        return self._sizes.of(architecture)

    # --- walking ------------------------------------------------------------------------------

    def _walk(self, architecture: Architecture) -> list[Part]:
        if architecture is self._architecture:
            return self._parts
        self._architecture, self._options, self._parts = None, dict(architecture), []
        self._tracer.begin(architecture, self._options)
        self._checked = False
        self._run(self._root, self._example)
        self._architecture = architecture
        return self._parts

    def _run(self, node: _Node, given: Given) -> tuple[Given, bool]:
        """Append the parts that a call runs; return its result and whether it was handed on."""
        if node.memory is None:
            return self._enter(node, given)
        key = (given, *map(self._options.get, node.labels))
        part = node.memory.get(key)
        if part is None:
            part = node.memory[key] = self._learned(node, given)
        self._parts.append(part)
        return part.out, part.handed_on

    def _check(self) -> None:
        """Refuse a wrong architecture; asked only where something new is met."""
        if not self._checked:
            self._original.check(self._options)
            self._checked = True

    def _learned(self, node: _Node, given: Given) -> Part:
        self._check()
        if node.kind == "layer":
            return self._layers.run(node.path, given, self._options)
        outer, self._parts = self._parts, []
        try:
            out, handed_on = self._enter(node, given)
            units = tuple(unit for part in self._parts for unit in part.units)
            loose_macs = sum(part.loose_macs for part in self._parts)
            uncounted = tuple(name for part in self._parts for name in part.uncounted)
        finally:
            self._parts = outer
        return Part(units, out, handed_on, loose_macs, uncounted)

    def _enter(self, node: _Node, given: Given) -> tuple[Given, bool]:
        if node.code is not None:
            return self._follow(node.code, given)
        children = list(node.children.values())
        if node.kind == "OneOf":
            children = [node.children[str(self._options[node.label])]]
        elif node.kind == "Depth":
            depth = self._options[node.label]
            assert isinstance(depth, int)
            children = children[:depth]
        out, before, handed_on = None, None, True
        for child in children:
            arguments = given if out is None else self._values.argument(out)
            out, kept = self._run(child, arguments)
            handed_on = handed_on and kept
            self._link(before, child)
            before = child if node.kind == "Sequential" else None  # blocks of a Depth stay apart
        if out is None:  # a stack of no blocks
            out = self._values.sole(given)
            assert out is not None
        return out, handed_on

    def _follow(self, code: Code, given: Given) -> tuple[Given, bool]:
        """Go along what the code is known to do; where that ends, run it."""
        start, state = len(self._parts), code.start(given)
        while state is not None and state.event != "end":
            if state.event == "read":
                found: Any = self._options.get(state.label)
            else:
                found = self._answer(state.key, state.given, state.fed_by)
            state = state.after(found)
        if state is None:
            del self._parts[start:]
            self._check()
            state = self._tracer.run(code, given)
        if state.macs or state.uncounted:
            loose = Part((), state.out, loose_macs=state.macs, uncounted=state.uncounted)
            self._parts.append(loose)
        return state.out, state.handed_on

    def _answer(self, node: _Node, given: Given, fed_by: _Node | None) -> tuple[Given, bool]:
        """Answer a call that code makes; see `_run`."""
        found = self._run(node, given)
        self._link(fed_by, node)
        return found

    def _link(self, before: _Node | None, node: _Node) -> None:
        """Make one part of two layers, or chains of such, of which one feeds the other."""
        if before is None or before.kind != "layer" or node.kind != "layer":
            return
        first, second = pair = self._parts[-2], self._parts[-1]
        chain = self._chains.get(pair)
        if chain is None:
            chain = self._chains[pair] = self._layers.chain(first, second)
        self._parts[-2:] = [chain]

    # --- the model ----------------------------------------------------------------------------

    def _node(self, path: str, module: nn.Module) -> _Node:
        if id(module) in self._nodes:  # one module in two places
            return self._nodes[id(module)]
        inside = (la for m in module.modules() for la in self._labels_of.get(id(m), ()))
        labels = tuple(dict.fromkeys(inside))
        node = self._nodes[id(module)] = _Node(path, _kind(module), labels)
        for name, child in module._modules.items():
            if child is not None:
                node.children[name] = self._node(f"{path}.{name}" if path else name, child)
        ways = prod(len(self._space.choices[label].options) for label in labels)
        if node.kind == "layer" or ways <= _MOST_WAYS:
            node.memory = {}
        if node.kind == "code":
            node.code = self._tracer.code(path, module)
        elif isinstance(module, ChoiceModule):
            node.label = self._labels_of[id(module)][0]
        return node


def _labels_by_module(space: Space) -> dict[int, tuple[str, ...]]:
    """Return the labels that each module reads itself, by id."""
    found: dict[int, tuple[str, ...]] = {}
    for label, modules in space.structure.modules.items():
        found |= dict.fromkeys(map(id, modules), (label,))
    for layer, _ in space.structure.layers:
        found[id(layer.layer)] = space.sites[layer.path]
    return found


def _kind(module: nn.Module) -> str:
    """Say how calls of a module are worked out: "layer", by their parts, or "code"."""
    if isinstance(module, OneOf | Depth):
        return type(module).__name__
    if _is_chain(module):
        return "layer"
    return "Sequential" if type(module) is nn.Sequential else "code"


def _is_chain(module: nn.Module) -> bool:
    """Whether a module is a layer, or a Sequential of nothing else."""
    if isinstance(module, ChoiceModule | nn.ModuleList | nn.ModuleDict):
        return False
    if type(module) is nn.Sequential:
        return all(_is_chain(child) for child in module)
    return is_layer(module)
