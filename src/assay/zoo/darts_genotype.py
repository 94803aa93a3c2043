"""Architectures of the space `darts` as they are published: genotypes, in and out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, nearest
from assay.zoo.routes import routes

__all__ = [
    "DARTS_V1",
    "DARTS_V2",
    "OPERATIONS",
    "Genotype",
    "edge_label",
    "from_genotype",
    "inputs_label",
    "pairs_of",
    "paths",
    "to_genotype",
]

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The options of every edge, by their published names."""

_KINDS = ("normal", "reduce")
_SKIP = "skip_connect"
_ON_THE_WAY = tuple(operation for operation in OPERATIONS if operation != _SKIP)


class Genotype(NamedTuple):
    """Two cells in the published notation.

    Source: Liu, Simonyan, Yang 2019, "DARTS: Differentiable Architecture Search",
    arXiv:1806.09055, figures 4 and 5, in the notation of the released code.

    Attributes:
        normal: For each node two pairs of an operation and the state that it reads: 0 and 1 are the
            cell's inputs, its nodes are 2, 3, ...
        normal_concat: The states that make the cell's output: all its nodes.
        reduce: As `normal`, of the reduction cell.
        reduce_concat: As `normal_concat`.
    """

    normal: Sequence[tuple[str, int]]
    normal_concat: Sequence[int]
    reduce: Sequence[tuple[str, int]]
    reduce_concat: Sequence[int]


_NODES = (2, 3, 4, 5)
DARTS_V1 = Genotype(
    normal=(
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
    ),
    normal_concat=_NODES,
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
    ),
    reduce_concat=_NODES,
)  # fmt: skip
"""What the paper's search of first order found on CIFAR-10."""
DARTS_V2 = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    normal_concat=_NODES,
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=_NODES,
)  # fmt: skip
"""What the paper's search of second order found on CIFAR-10."""


# --- labels ---------------------------------------------------------------------------------------


def edge_label(kind: str, node: int, state: int) -> str:
    """Return the label of the operation on the way from a state to a node.

    Args:
        kind: "normal" or "reduce".
        node: 2, 3, ...
        state: One before the node.
    """
    return f"{kind}.node{node}.from{state}"


def inputs_label(kind: str, node: int) -> str:
    """Return the label of which two states a node reads; the first node, 2, has no choice."""
    return f"{kind}.node{node}.inputs"


def pairs_of(node: int) -> dict[str, tuple[int, int]]:
    """Return the ways in which a node reads two states: option -> states.

    Example:
        >>> pairs_of(3)
        {'0_1': (0, 1), '0_2': (0, 2), '1_2': (1, 2)}
    """
    return {f"{i}_{j}": (i, j) for i, j in itertools.combinations(range(node), 2)}


# --- out and in -----------------------------------------------------------------------------------


def to_genotype(architecture: Mapping[str, Any]) -> Genotype:
    """Write an architecture of the space `darts` as it is published; the states of a node ascend.

    Raises:
        InvalidArchitecture: it is no point of such a space.
    Example:
        >>> to_genotype(from_genotype(DARTS_V2)).normal[4:6]
        [('skip_connect', 0), ('sep_conv_3x3', 1)]
    """
    left = dict(architecture)
    count = (len(left) + len(_KINDS)) // (3 * len(_KINDS))  # a node has three labels, the first two
    nodes = list(range(2, max(count, 1) + 2))
    genes: dict[str, list[tuple[str, int]]] = {}
    for kind in _KINDS:
        genes[kind] = []
        for node in nodes:
            pair = (0, 1)
            if node > 2:
                pairs = pairs_of(node)
                pair = pairs[_taken(left, inputs_label(kind, node), list(pairs))]
            for state in pair:
                operation = _taken(left, edge_label(kind, node, state), OPERATIONS)
                genes[kind].append((operation, state))
    if left:
        raise InvalidArchitecture(
            f"{next(iter(left))!r} is no decision of cells with {len(nodes)} nodes that read what "
            "the others say; leave it out"
        )
    return Genotype(genes["normal"], nodes, genes["reduce"], nodes)


def paths(architecture: Mapping[str, Any]) -> list[float]:
    """Return how often each sequence of operations leads from the inputs to the output, by cell.

    See `assay.zoo.routes`; sequences of at most two operations, skips left out, also those of a
    reduction cell that halve what they let pass.
    """
    genotype, told = to_genotype(architecture), []
    for genes, ends in (genotype[:2], genotype[2:]):
        nodes = {node: genes[2 * i : 2 * i + 2] for i, node in enumerate(ends)}
        told += routes(nodes, ends, _ON_THE_WAY, skip=_SKIP)
    return told


def _taken(left: dict[str, Any], label: str, options: Sequence[str]) -> str:
    """Take the option of a label out of what is left."""
    if label not in left:
        raise InvalidArchitecture(f"the architecture lacks {label!r}; {nearest('', options)}")
    option = left.pop(label)
    if option not in options:
        raise InvalidArchitecture(f"{label} cannot be {option!r}; {nearest(str(option), options)}")
    return str(option)


def from_genotype(genotype: Sequence[Any]) -> Architecture:
    """Read a genotype; see `Genotype`. In which order a node names its two states says nothing.

    Args:
        genotype: The four fields, in a tuple of any kind.
    Raises:
        InvalidArchitecture: it is malformed, or the space has no such cells.
    Example:
        >>> from_genotype(DARTS_V1)["reduce.node3.inputs"]
        '0_2'
    """
    if not isinstance(genotype, tuple | list) or len(genotype) != len(Genotype._fields):
        raise InvalidArchitecture(
            f"a genotype is ({', '.join(Genotype._fields)}), not {str(genotype)[:60]!r}"
        )
    normal, normal_concat, reduce, reduce_concat = genotype
    options = {**_cell("normal", normal, normal_concat), **_cell("reduce", reduce, reduce_concat)}
    if len(normal) != len(reduce):
        raise InvalidArchitecture(
            f"normal has {len(normal) // 2} nodes and reduce {len(reduce) // 2}; give both as many"
        )
    return Architecture(options)


def _cell(kind: str, genes: Sequence[Any], concat: Iterable[int]) -> dict[str, str]:
    if not genes or len(genes) % 2:
        raise InvalidArchitecture(
            f"{kind} has {len(genes)} pairs (operation, state); give two for each node"
        )
    nodes, options = list(range(2, len(genes) // 2 + 2)), {}
    for node in nodes:
        states = []
        for at in (2 * node - 4, 2 * node - 3):
            operation, state = _gene(f"{kind}[{at}]", genes[at], node)
            options[edge_label(kind, node, state)] = operation
            states.append(state)
        first, second = sorted(states)
        if first == second:
            raise InvalidArchitecture(
                f"{kind}: node {node} reads the state {first} twice; give it two different ones"
            )
        if node > 2:
            options[inputs_label(kind, node)] = f"{first}_{second}"
    if list(concat) != nodes:
        raise InvalidArchitecture(
            f"{kind}_concat is {list(concat)}, and the cells of this space put out all their "
            f"nodes: {nodes}"
        )
    return options


def _gene(place: str, gene: Any, node: int) -> tuple[str, int]:
    if not isinstance(gene, tuple | list) or len(gene) != 2:
        raise InvalidArchitecture(f"{place} is {gene!r}; write (operation, state)")
    operation, state = gene
    if operation not in OPERATIONS:
        raise InvalidArchitecture(
            f"{place} cannot be {operation!r}; {nearest(str(operation), OPERATIONS)}"
        )
    if state not in range(node):
        raise InvalidArchitecture(
            f"{place} reads the state {state!r}; node {node} can read 0 to {node - 1}"
        )
    return operation, state
