"""The cell space of DARTS: two cells, of which nodes pick two inputs and an operation on each."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from assay.errors import InvalidSetting
from assay.space.choices import CHOSEN, Held, OneOf, twin
from assay.space.space import Space
from assay.zoo.blocks import act_conv_norm, conv_norm_act, factorized_reduction, wired
from assay.zoo.darts_genotype import OPERATIONS, edge_label, inputs_label, pairs_of, paths

__all__ = ["darts"]

_LARGE = 16  # pixels of a side


def darts(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    channels: int = 16,
    cells: int | None = None,
    nodes: int = 4,
    none: bool = False,
) -> Space:
    """Make the space of DARTS: a normal cell and a reduction cell, each stacked many times.

    A cell reads the outputs of the two cells before it, states 0 and 1. Each of its nodes, states
    2, 3, ..., is the sum of two states before it, each through one of seven operations; the cell's
    output is the concatenation of its nodes. Open are which two states, and which operations; a
    decision is one for all cells of its kind. The operation on a state that is not read is no
    decision. Cells that differ in the order of their nodes alone count as different, as in the
    paper's 10^18.

    The cells at one and two thirds of the depth are reduction cells: they halve the side (an odd
    one is rounded up) and double the channels. `assay.zoo.darts_genotype` reads and writes
    architectures as they are published. Cheap networks have three cells and half the channels.

    Source: Liu, Simonyan, Yang 2019, "DARTS: Differentiable Architecture Search",
    arXiv:1806.09055, sections 2.1 and 3.1.1, and appendix A; differs: the network of the search is
    that of the evaluation, whose norms learn a scale and whose poolings have no norm; "none", which
    the paper weighs in the search and never derives, is an option by setting only; no auxiliary
    head and no dropped paths.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        channels: Of each node of the first cells; the paper's search has 16, its evaluation 36. The
            stem has three times as many.
        cells: In all, at least 3; the paper's search has 8, its evaluation 20. None for 8, and for
            images of fewer than 16 pixels a side for 5.
        nodes: Of each cell, without its two inputs.
        none: Whether every edge has one more option, "none", which is zero. It is for the strategy
            `darts`, which weighs it and proposes it never; others would propose it, and no genotype
            has it.
    Raises:
        InvalidSetting: a count that is too small.
    Example:
        >>> darts(channels=2, cells=3).size == (7**8 * 1 * 3 * 6 * 10) ** 2
        True
    """
    if cells is None:
        cells = 8 if min(input_shape[1:]) >= _LARGE else 5
    least = {"num_classes": (num_classes, 1), "channels": (channels, 1), "cells": (cells, 3),
             "nodes": (nodes, 1), "input_shape": (min(input_shape), 1)}  # fmt: skip
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise InvalidSetting(f"darts needs {name} of at least {smallest}, not {value}")

    operations = (*OPERATIONS, "none") if none else OPERATIONS

    def model() -> nn.Module:
        width = 3 * channels
        stem = (nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
        reads, out, halved = (width, width), channels, False
        for i in range(cells):
            halves = i in (cells // 3, 2 * cells // 3)
            out = 2 * out if halves else out
            parts[f"cell{i + 1}"] = _Cell(
                reads, out, nodes, operations, halves=halves, halved=halved
            )
            reads, halved = (reads[1], nodes * out), halves
        parts["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        parts["classifier"] = nn.Linear(reads[1], num_classes)

        def wire(graph: fx.Graph, x: fx.Node) -> fx.Node:
            before = last = graph.call_module("stem", (x,))
            for i in range(cells):
                before, last = last, graph.call_module(f"cell{i + 1}", (before, last))
            return graph.call_module("classifier", (graph.call_module("pool", (last,)),))

        return wired(wire, "x", **parts)

    remake = functools.partial(
        darts, input_shape=input_shape, num_classes=num_classes, channels=channels, cells=cells,
        nodes=nodes, none=none,
    )  # fmt: skip
    cheap = {"cells": 3, "channels": (channels + 1) // 2}
    return Space(model, remake=remake, cheap=cheap, features=None if none else paths)


# --- cells ----------------------------------------------------------------------------------------


class _Cell(nn.Module):
    """A cell; built, it is the plain graph of what was taken.

    The pairs of states that a node may read are options of one decision, and have their edges in
    common.

    Args:
        reads: Channels of its two inputs.
        channels: Of each node.
        nodes: How many.
        operations: Options of every edge.
        halves: Whether it is a reduction cell.
        halved: Whether the cell before it is: then the first input has twice the side.
    """

    def __init__(
        self,
        reads: tuple[int, int],
        channels: int,
        nodes: int,
        operations: Sequence[str],
        *,
        halves: bool,
        halved: bool,
    ) -> None:
        super().__init__()
        kind = "reduce" if halves else "normal"
        if halved:
            self.input0: nn.Module = factorized_reduction(reads[0], channels)
        else:
            self.input0 = nn.Sequential(*act_conv_norm(reads[0], channels))
        self.input1 = nn.Sequential(*act_conv_norm(reads[1], channels))
        self._edges: list[tuple[OneOf, ...]] = []  # not registered: they are parts of the pairs
        for node in range(2, nodes + 2):
            edges = tuple(
                OneOf(
                    {o: _operation(o, channels, 2 if halves and i < 2 else 1) for o in operations},
                    label=edge_label(kind, node, i),
                )
                for i in range(node)
            )
            pairs = {name: _sum_of(edges, pair) for name, pair in pairs_of(node).items()}
            self._edges.append(edges)
            self.add_module(f"node{node}", _one_of(pairs, inputs_label(kind, node)))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Return the nodes `[N, nodes * channels, H, W]` of the outputs of the two cells before."""
        states = [self.input0(before), self.input1(last)]
        for node, edges in enumerate(self._edges, start=2):
            states.append(_read(self.get_submodule(f"node{node}"), edges, states))
        return torch.cat(states[2:], 1)

    def __deepcopy__(self, memo: dict[Any, Any]) -> nn.Module:
        return self._plain(memo) if CHOSEN in memo else twin(self, memo)

    def _plain(self, memo: dict[Any, Any]) -> fx.GraphModule:
        def wire(graph: fx.Graph, before: fx.Node, last: fx.Node) -> fx.Node:
            states = [graph.call_module("input0", (before,)), graph.call_module("input1", (last,))]
            for node in range(2, len(self._edges) + 2):
                states.append(graph.call_module(f"node{node}", (list(states),)))
            return graph.call_function(torch.cat, (states[2:], 1))

        parts = {name: copy.deepcopy(part, memo) for name, part in self.named_children()}
        built = wired(wire, "before", "last", **parts)
        built.training = self.training
        return built


def _one_of(pairs: Mapping[str, nn.Module], label: str) -> nn.Module:
    if len(pairs) == 1:
        return next(iter(pairs.values()))
    chosen = OneOf(pairs, label=label)
    chosen.kind = "Inputs"  # not which operation: a strategy may tell these apart
    return chosen


def _read(node: nn.Module, edges: Sequence[OneOf], states: list[Tensor]) -> Tensor:
    """Return the value of a node; in a mix of pairs every edge runs once, by all their weights."""
    mix = (isinstance(node, OneOf) and node.mix) or {}
    if len(mix) < 2 or any(isinstance(weight, Held) for weight in mix.values()):
        value: Tensor = node(states)
        return value
    terms, pairs = [], pairs_of(len(edges))
    for i, edge in enumerate(edges):
        weights = [weight for name, weight in mix.items() if i in pairs[name]]
        if weights:
            terms.append(sum(weights) * edge(states[i]))
    total: Tensor = functools.reduce(torch.add, terms)
    return total


def _sum_of(edges: Sequence[nn.Module], pair: tuple[int, int]) -> fx.GraphModule:
    """Return the module from the states to the sum of two of them, each through its edge."""

    def wire(graph: fx.Graph, states: fx.Node) -> fx.Node:
        read = [graph.call_function(operator.getitem, (states, i)) for i in pair]
        terms = [graph.call_module(f"from{i}", (x,)) for i, x in zip(pair, read)]
        return graph.call_function(operator.add, tuple(terms))

    return wired(wire, "states", **{f"from{i}": edges[i] for i in pair})


# --- what lies on an edge -------------------------------------------------------------------------


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    """Return an operation of the space, of as many channels in as out.

    Args:
        name: One of `OPERATIONS`, or "none".
        channels: In and out.
        stride: 1, or 2 to halve the side, an odd one rounded up.
    """
    if name == "none":
        return _zeros(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else factorized_reduction(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride=stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
    kernel = int(name[-1])
    if name.startswith("dil"):
        return nn.Sequential(*_separable(channels, kernel, stride, dilation=2))
    return nn.Sequential(*_separable(channels, kernel, stride), *_separable(channels, kernel, 1))


def _zeros(stride: int) -> nn.Module:
    places = (slice(None), slice(None), slice(None, None, stride), slice(None, None, stride))

    def wire(graph: fx.Graph, x: fx.Node) -> fx.Node:
        return graph.call_function(
            torch.zeros_like, (graph.call_function(operator.getitem, (x, places)),)
        )

    return wired(wire, "x")


def _separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    depthwise = nn.Conv2d(
        channels, channels, kernel, stride=stride, padding=dilation * (kernel // 2),
        dilation=dilation, groups=channels, bias=False,
    )  # fmt: skip
    return [nn.ReLU(), depthwise, *conv_norm_act(channels, channels, act=False)]
