"""The cell space of NAS-Bench-201: one small graph, its operations open, stacked many times."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, nearest
from assay.space.choices import CHOSEN, OneOf, twin
from assay.space.space import Space
from assay.zoo.blocks import act_conv_norm, at_least, named, wired
from assay.zoo.routes import routes

__all__ = ["OPERATIONS", "arch_string", "cell", "from_arch_string"]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The options of every edge, by their published names."""

_ON_THE_WAY = ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What changes what goes through it."""

_NODES = (((0, 1),), ((0, 2), (1, 2)), ((0, 3), (1, 3), (2, 3)))
"""For each node after the input the edges that it sums, as (from, to)."""
_EDGES = tuple(edge for edges in _NODES for edge in edges)


def _label(edge: tuple[int, int]) -> str:
    return f"edge{edge[0]}{edge[1]}"


_LABELS = tuple(map(_label, _EDGES))


def cell(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    channels: int = 16,
    cells: int = 5,
) -> Space:
    """Make the space of NAS-Bench-201: 5 operations on each of the 6 edges of a 4-node cell.

    The decision on an edge is one for all cells. A network runs every operation it has, also one
    that nothing reads; its canonical form is the least network of the same class, without these.

    The classes are the 6,466 published ones to the letter. These take an operation on node 1 for
    none where this node reads nothing, though its norm may learn a shift, and one operation that is
    read twice for two of a kind; they tell networks apart whose nodes 1 and 2 change places.

    Source: Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural
    Architecture Search", arXiv:2001.00326, section 2; differs: an odd height or width is rounded
    up where it is halved, as by the convolution beside it.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        channels: Of the cells of the first stage; the second has twice, the third four times these.
        cells: In each of the three stages.
    Raises:
        InvalidSetting: a count below 1.
    Example:
        >>> cell(channels=4, cells=1).size
        15625
    """
    at_least(
        "cell", num_classes=num_classes, channels=channels, cells=cells,
        input_shape=min(input_shape),
    )  # fmt: skip

    def model() -> nn.Module:
        c1, c2, c3 = channels, 2 * channels, 4 * channels
        stem = (nn.Conv2d(input_shape[0], c1, 3, padding=1, bias=False), nn.BatchNorm2d(c1))
        return named(
            stem=nn.Sequential(*stem),
            stage1=nn.Sequential(*[_Cell(c1) for _ in range(cells)]),
            reduce1=_halve(c1, c2),
            stage2=nn.Sequential(*[_Cell(c2) for _ in range(cells)]),
            reduce2=_halve(c2, c3),
            stage3=nn.Sequential(*[_Cell(c3) for _ in range(cells)]),
            norm=nn.Sequential(nn.BatchNorm2d(c3), nn.ReLU()),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            classifier=nn.Linear(c3, num_classes),
        )

    remake = functools.partial(
        cell, input_shape=input_shape, num_classes=num_classes, channels=channels, cells=cells
    )
    return Space(
        model, canonical=_canonical, remake=remake, cheap={"cells": 1}, features=_paths
    )  # fmt: skip


def _paths(architecture: Architecture) -> list[float]:
    """Return how often each sequence of operations leads from the input to the output."""
    nodes = {
        number: [(str(architecture[_label(edge)]), edge[0]) for edge in edges]
        for number, edges in enumerate(_NODES, start=1)
    }
    return routes(nodes, [len(_NODES)], _ON_THE_WAY, skip="skip_connect", longest=len(_NODES))


# --- the published notation -----------------------------------------------------------------------


def arch_string(architecture: Mapping[str, Any]) -> str:
    """Write an architecture as NAS-Bench-201 does: node by node, `|operation~from|` for each edge.

    Raises:
        InvalidArchitecture: it is no point of this space.
    Example:
        >>> arch_string(dict.fromkeys(cell(channels=4, cells=1).choices, "none"))
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    if set(architecture) != set(_LABELS):
        raise InvalidArchitecture(
            f"a cell has the edges {', '.join(_LABELS)}, not {', '.join(architecture) or 'none'}"
        )
    for label in _LABELS:
        _known(architecture[label], label)
    return "+".join(
        "".join(f"|{architecture[_label(edge)]}~{edge[0]}" for edge in edges) + "|"
        for edges in _NODES
    )


def from_arch_string(text: str) -> Architecture:
    """Read an architecture as NAS-Bench-201 writes it; see `arch_string`.

    Raises:
        InvalidArchitecture: another shape of text, or an unknown operation.
    Example:
        >>> pools = "|avg_pool_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
        >>> from_arch_string(pools)["edge01"]
        'avg_pool_3x3'
    """
    found = re.fullmatch(_SHAPE, text.strip())
    if found is None:
        raise InvalidArchitecture(
            f"{text!r} is no cell; write |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, op one of "
            f"{', '.join(OPERATIONS)}"
        )
    for operation, label in zip(found.groups(), _LABELS):
        _known(operation, label)
    return Architecture(dict(zip(_LABELS, found.groups())))


_SHAPE = r"\+".join(
    "".join(rf"\|([^|~+]+)~{source}" for source, _ in edges) + r"\|" for edges in _NODES
)


def _known(operation: object, label: str) -> None:
    if operation not in OPERATIONS:
        raise InvalidArchitecture(
            f"{label} cannot be {operation!r}; {nearest(str(operation), OPERATIONS)}"
        )


# --- which architectures are one network ----------------------------------------------------------


def _canonical(architecture: Architecture) -> Architecture:
    return _representatives()[tuple(architecture[label] for label in _LABELS)]


@functools.cache
def _representatives() -> Mapping[tuple[Any, ...], Architecture]:
    """Map the operations of every architecture to the least of its class.

    It has the fewest weights, then the fewest operations, then is the first as `OPERATIONS` go.
    """
    classes: dict[str, list[tuple[str, ...]]] = {}
    for operations in itertools.product(OPERATIONS, repeat=len(_EDGES)):
        classes.setdefault(_expression(operations), []).append(operations)
    table = {}
    for members in classes.values():
        least = min(members, key=_amount)
        table.update(dict.fromkeys(members, Architecture(dict(zip(_LABELS, least)))))
    return table


def _amount(operations: tuple[str, ...]) -> tuple[int, int, int]:
    count = operations.count
    return (count("nor_conv_3x3"), count("nor_conv_1x1"), -count("none"))


def _expression(operations: Sequence[str]) -> str:
    """Write out what the output node computes of the input, in the published notation.

    The input is "0", nothing is "#"; a sum is the sorted list of its terms. Terms are compared as
    text, so the notation itself decides whether some nested sums are one class: another would give
    other classes than the published 6,466.
    """
    nodes, ahead = ["0"], iter(operations)
    for edges in _NODES:
        terms = []
        for (source, _), operation in zip(edges, ahead):
            read = nodes[source]
            if operation == "none" or read == "#":
                terms.append("#")
            else:
                terms.append(read if operation == "skip_connect" else f"({read})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


# --- what it is made of ---------------------------------------------------------------------------


class _Nothing(nn.Module):
    """The operation "none": a zero without dimensions, which a sum leaves out or broadcasts."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class _Cell(nn.Module):
    """The graph of open edges; built, it is a plain graph of those that are not none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for label in _LABELS:
            self.add_module(label, OneOf(_operations(channels), label=label))

    def forward(self, x: Tensor) -> Tensor:
        def read(label: str, value: Tensor) -> Tensor | None:
            term: Tensor = self._modules[label](value)  # type: ignore[misc]
            return term if term.dim() else None

        return _through(x, read, add=torch.add, nothing=torch.zeros_like)

    def __deepcopy__(self, memo: dict[Any, Any]) -> nn.Module:
        return self._plain(memo) if CHOSEN in memo else twin(self, memo)

    def _plain(self, memo: dict[Any, Any]) -> fx.GraphModule:
        root, graph = nn.Module(), fx.Graph()

        def read(label: str, value: fx.Node) -> fx.Node | None:
            edge = self._modules[label]
            if memo[CHOSEN][id(edge)] == "none":
                return None
            root.add_module(label, copy.deepcopy(edge, memo))
            return graph.call_module(label, (value,))

        zeros: list[fx.Node] = []

        def nothing(x: fx.Node) -> fx.Node:
            zeros.append(graph.call_function(torch.zeros_like, (x,)))
            return zeros[-1]

        def add(one: fx.Node, other: fx.Node) -> fx.Node:
            return graph.call_function(operator.add, (one, other))

        graph.output(_through(graph.placeholder("x"), read, add=add, nothing=nothing))
        for unread in (zero for zero in zeros if not zero.users):
            graph.erase_node(unread)
        built = fx.GraphModule(root, graph)
        built.training = self.training
        return built


_Value = TypeVar("_Value")


def _through(
    x: _Value,
    read: Callable[[str, _Value], _Value | None],
    *,
    add: Callable[[_Value, _Value], _Value],
    nothing: Callable[[_Value], _Value],
) -> _Value:
    """Return the value of the output node.

    Args:
        x: Value of the input node.
        read: What the edge of a label makes of a value; None where it adds nothing.
        add: The sum of two values.
        nothing: The value, shaped like x, of a node that no edge adds to.
    """
    nodes = [x]
    for edges in _NODES:
        total = None
        for edge in edges:
            term = read(_label(edge), nodes[edge[0]])
            if term is not None:
                total = term if total is None else add(total, term)
        nodes.append(nothing(x) if total is None else total)
    return nodes[-1]


def _operations(channels: int) -> dict[str, nn.Module]:
    modules = (
        _Nothing(),
        nn.Identity(),
        nn.Sequential(*act_conv_norm(channels, channels, 1)),
        nn.Sequential(*act_conv_norm(channels, channels, 3)),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    )
    return dict(zip(OPERATIONS, modules))


def _halve(channels: int, out: int) -> fx.GraphModule:
    """Return the residual block between two stages: two convolutions beside a pooled shortcut."""
    convs = (
        nn.Sequential(*act_conv_norm(channels, out, 3, stride=2)),
        nn.Sequential(*act_conv_norm(out, out, 3)),
    )
    pool = nn.AvgPool2d(2, ceil_mode=True)  # as the convolution rounds
    shortcut = nn.Sequential(pool, nn.Conv2d(channels, out, 1, bias=False))

    def wire(graph: fx.Graph, x: fx.Node) -> fx.Node:
        branches = (graph.call_module("shortcut", (x,)), graph.call_module("convs", (x,)))
        return graph.call_function(operator.add, branches)

    return wired(wire, "x", convs=nn.Sequential(*convs), shortcut=shortcut)
