"""The cells of ENAS' micro space: graphs whose output depends on what is read.

Source: Pham et al. 2018, arXiv:1802.03268, section 2.4; for what differs see `assay.zoo.enas`.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from assay.architecture import Architecture, Option
from assay.space.choices import CHOSEN, Held, OneOf, twin
from assay.zoo.blocks import act_conv_norm, conv_norm_act, factorized_reduction, wired
from assay.zoo.routes import routes

__all__ = ["CELL_OPERATIONS", "in_order", "paths", "pooling", "separable", "stages"]

CELL_OPERATIONS = ("identity", "sep3", "sep5", "avg3", "max3")
"""What each side of a node of the micro space can be."""

_SIDES = ("a", "b")
_KINDS = ("normal", "reduction")


def in_order(architecture: Architecture) -> Architecture:
    """Return the architecture whose nodes have the side that comes first on side a."""
    options = dict(architecture)
    for label in architecture:
        node, _, part = label.rpartition(".")
        if part != "from_a":
            continue
        sides = [(options[f"{node}.from_{s}"], options[f"{node}.op_{s}"]) for s in _SIDES]
        sides.sort(key=_place)
        for s, (read, operation) in zip(_SIDES, sides):
            options |= {f"{node}.from_{s}": read, f"{node}.op_{s}": operation}
    return Architecture(options)


def paths(architecture: Architecture) -> list[float]:
    """Return how often each sequence of operations leads from the inputs to the output, by cell.

    See `assay.zoo.routes`; sequences of at most two operations, skips left out.
    """
    skip, *on_the_way = CELL_OPERATIONS
    told: list[float] = []
    for kind in _KINDS:
        nodes: dict[int, list[tuple[str, int]]] = {}
        while f"{kind}.node{len(nodes) + 2}.op_a" in architecture:
            node = len(nodes) + 2
            sides = [(f"{kind}.node{node}.op_{s}", f"{kind}.node{node}.from_{s}") for s in _SIDES]
            nodes[node] = [
                (str(architecture[does]), _state(architecture[reads])) for does, reads in sides
            ]
        read = {state for edges in nodes.values() for _, state in edges}
        ends = [state for state in range(len(nodes) + 2) if state not in read]
        told += routes(nodes, ends, on_the_way, skip=skip)
    return told


def _state(read: Option) -> int:
    return int(str(read).removeprefix("state"))


def _place(side: tuple[Option, Option]) -> tuple[int, int]:
    read, operation = side
    return _state(read), CELL_OPERATIONS.index(str(operation))


def stages(nodes: int, cells: int, channels: int) -> tuple[nn.Module, int]:
    """Return three stages of cells, and the channels they end with.

    Args:
        nodes: Of each cell, its inputs left aside.
        cells: Normal cells of each stage.
        channels: Of the first stage, even.
    """
    parts: dict[str, nn.Module] = {}
    before = last = channels
    for kind in [*["normal"] * cells, "reduction"] * 2 + ["normal"] * cells:
        wide = 2 * last if kind == "reduction" else last
        inputs = [_brought(width, wide) for width in (before, last)]
        parts[f"cell{len(parts) + 1}"] = _Cell(kind, nodes, wide, inputs)
        before, last = last, wide

    def wire(graph: fx.Graph, stem: fx.Node) -> fx.Node:
        before = last = stem
        for name in parts:
            before, last = last, graph.call_module(name, (before, last))
        return last

    return wired(wire, "stem", **parts), last


def _brought(channels: int, wide: int) -> nn.Module:
    """Return what brings an output to the channels of a cell, and with them to its side."""
    if channels < wide:
        return factorized_reduction(channels, wide)
    return nn.Sequential(*act_conv_norm(channels, wide))


class _Cell(nn.Module):
    """One cell; built, it is the plain graph of what was taken.

    States 0 and 1 are its inputs, those after them its nodes. Each side of a node has operations
    of its own for each state that it may read.
    """

    def __init__(self, kind: str, nodes: int, wide: int, inputs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.states = nodes + 2
        for i, module in enumerate(inputs):
            self.add_module(f"state{i}", module)
        for node in range(2, self.states):
            for side in _SIDES:
                self.add_module(f"node{node}{side}", _side(f"{kind}.node{node}", side, node, wide))
        self.add_module("out", nn.Sequential(*act_conv_norm(wide, wide)))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Return the output.

        Args:
            before: Output `[N, C, H, W]` of the cell before the last.
            last: Output of the last cell, of the same shape or half its side.
        """

        def read(name: str, states: list[Tensor]) -> tuple[Tensor, set[int]]:
            side: Any = self.get_submodule(name)
            mix = side.mix or {side.options[0]: 1.0}
            # What is held stands beside the path that is active, and is no part of it.
            taken = [option for option, weight in mix.items() if not isinstance(weight, Held)]
            return side(states), {side.options.index(option) for option in taken}

        return self._through(
            (before, last), lambda name, x: self.get_submodule(name)(x), read, torch.add
        )

    def __deepcopy__(self, memo: dict[Any, Any]) -> nn.Module:
        return self._plain(memo) if CHOSEN in memo else twin(self, memo)

    def _plain(self, memo: dict[Any, Any]) -> fx.GraphModule:
        root, graph = nn.Module(), fx.Graph()

        def call(name: str, x: fx.Node, module: nn.Module | None = None) -> fx.Node:
            found = self.get_submodule(name) if module is None else module
            root.add_module(name, copy.deepcopy(found, memo))
            return graph.call_module(name, (x,))

        def read(name: str, states: list[fx.Node]) -> tuple[fx.Node, set[int]]:
            side: Any = self.get_submodule(name)
            option = memo[CHOSEN][id(side)]
            i = side.options.index(option)
            return call(name, states[i], side.get_submodule(f"{option}.op")), {i}

        def add(one: fx.Node, other: fx.Node) -> fx.Node:
            return graph.call_function(operator.add, (one, other))

        inputs = (graph.placeholder("before"), graph.placeholder("last"))
        graph.output(self._through(inputs, call, read, add))
        built = fx.GraphModule(root, graph)
        built.training = self.training
        return built

    def _through(
        self,
        inputs: tuple[_Value, _Value],
        call: Callable[[str, _Value], _Value],
        read: Callable[[str, list[_Value]], tuple[_Value, set[int]]],
        add: Callable[[_Value, _Value], _Value],
    ) -> _Value:
        """Return the value of the output.

        Args:
            inputs: Of the cell.
            call: What the submodule of a name makes of a value.
            read: What the side of a name makes of the states so far, and which of them it reads.
            add: The sum of two values.
        """
        states = [call(f"state{i}", x) for i, x in enumerate(inputs)]
        unread = set(range(self.states))
        for node in range(2, self.states):
            values = []
            for side in _SIDES:
                value, taken = read(f"node{node}{side}", states)
                values.append(value)
                unread -= taken
            states.append(add(*values))
        return call("out", functools.reduce(add, [states[i] for i in sorted(unread)]))


_Value = TypeVar("_Value")


def _side(label: str, side: str, states: int, wide: int) -> OneOf:
    """Return the choice of which state a side of a node reads, and in it that of the operation."""

    def edge(i: int) -> nn.Module:
        operations = {name: _cell_operation(name, wide) for name in CELL_OPERATIONS}
        return _Edge(i, OneOf(operations, label=f"{label}.op_{side}"))

    chosen = OneOf({f"state{i}": edge(i) for i in range(states)}, label=f"{label}.from_{side}")
    kind = label.partition(".")[0]
    nodes = [f"{kind}.node{i}.op_{_SIDES[-1]}" for i in range(2, states)]  # what each decides last
    reads = [f"{kind}.state0", f"{kind}.state1", *nodes]
    chosen.reads = {f"state{i}": (read,) for i, read in enumerate(reads)}
    return chosen


class _Edge(nn.Module):
    """An operation of one of the states; the operation alone is built."""

    def __init__(self, i: int, op: OneOf) -> None:
        super().__init__()
        self.i = i
        self.op = op

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the operation's output `[N, C, H, W]`.

        Args:
            states: Each `[N, C, H, W]`.
        """
        out: Tensor = self.op(states[self.i])
        return out


# --- operations -----------------------------------------------------------------------------------


def _cell_operation(name: str, channels: int) -> nn.Module:
    if name == "identity":
        return nn.Identity()
    if name.startswith("sep"):  # applied twice
        kernel = int(name[-1])
        return nn.Sequential(*separable(channels, kernel), *separable(channels, kernel))
    return pooling(name)


def separable(channels: int, kernel: int) -> list[nn.Module]:
    """Return ReLU, depthwise and pointwise convolution and batch norm.

    Args:
        channels: In and out.
        kernel: Side of the depthwise convolution, odd.
    """
    depthwise = nn.Conv2d(
        channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
    )
    return [nn.ReLU(), depthwise, *conv_norm_act(channels, channels, act=False)]


def pooling(name: str) -> nn.Module:
    """Return "max3" or "avg3", a pooling that keeps the side."""
    if name.startswith("max"):
        return nn.MaxPool2d(3, stride=1, padding=1)
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
