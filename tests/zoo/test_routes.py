"""Ways through cells, counted again by walking each of them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.zoo.cell import cell, from_arch_string
from assay.zoo.darts import darts
from assay.zoo.darts_genotype import DARTS_V2, from_genotype, paths
from assay.zoo.enas import micro
from assay.zoo.routes import routes

OPERATIONS = ("a", "b")


@st.composite
def graphs(draw):
    """Draw nodes after two inputs, each with up to three edges, and the ends."""
    nodes = {}
    for node in range(2, 2 + draw(st.integers(1, 4))):
        edge = st.tuples(st.sampled_from(["a", "b", "skip", "none"]), st.integers(0, node - 1))
        nodes[node] = draw(st.lists(edge, max_size=3))
    ends = draw(st.lists(st.integers(0, max(nodes)), unique=True))
    return nodes, ends


def walked(nodes, end):
    """Yield the operations of each way that leads from an input to a state, "none" among them."""
    if end not in nodes:
        yield ()
        return
    for operation, state in nodes[end]:
        for before in walked(nodes, state):
            yield (*before, operation)


@given(graphs(), st.integers(0, 3))
def test_every_way_is_counted_once(graph, longest):
    nodes, ends = graph
    ways = [w for end in ends for w in walked(nodes, end) if "none" not in w]
    counts = Counter(tuple(o for o in way if o != "skip") for way in ways)
    sequences = [s for n in range(longest + 1) for s in itertools.product(OPERATIONS, repeat=n)]
    told = routes(nodes, ends, OPERATIONS, skip="skip", longest=longest)
    assert told == [counts[s] for s in sequences]


def test_a_cell_of_nas_bench_201():
    architecture = from_arch_string(
        "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|"
    )
    told = cell(channels=2, cells=1).features(architecture)
    one, three, pool = "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"
    sequences = [s for n in range(4) for s in itertools.product((one, three, pool), repeat=n)]
    taken = {s: count for s, count in zip(sequences, told, strict=True) if count}
    assert taken == {(): 1, (three, pool): 1, (three, one): 1}


def test_the_published_cell_of_darts():
    told = paths(from_genotype(DARTS_V2))
    normal, reduce = told[: len(told) // 2], told[len(told) // 2 :]
    names = ["max", "avg", "sep3", "sep5", "dil3", "dil5"]
    sequences = [s for n in range(3) for s in itertools.product(names, repeat=n)]
    of_normal = {s: c for s, c in zip(sequences, normal, strict=True) if c}
    # Nodes 2 and 3 read both inputs by sep3; 4 one by sep3 and one by a skip; 5 one by a skip, and
    # node 2 by dil3.
    assert of_normal == {(): 2, ("sep3",): 5, ("sep3", "dil3"): 2}
    assert sum(reduce) > 0


@pytest.mark.parametrize("space", [darts(channels=2, cells=3, nodes=2), micro(nodes=2, channels=2)])
def test_networks_that_differ_in_a_cell_differ_in_their_ways(space):
    rng = np.random.default_rng(0)
    points = [space.canonical(space.sample(rng)) for _ in range(30)]
    rows = [space.features(a) for a in points]
    assert len({len(row) for row in rows}) == 1
    assert len({tuple(row) for row in rows}) > 0.9 * len(set(points))


def test_what_no_node_of_a_micro_cell_reads_is_an_end():
    space = micro(nodes=2, channels=2)
    options = {label: choice.options[0] for label, choice in space.choices.items()}
    for kind in ("normal", "reduction"):
        for node, side in itertools.product((2, 3), "ab"):
            options |= {f"{kind}.node{node}.op_{side}": "sep3"}
            options |= {f"{kind}.node{node}.from_{side}": f"state{node - 2}"}
    told = space.features(space.canonical(space.check(options)))
    # Node 2 reads input 0 twice, node 3 input 1 twice: both are ends, with two ways each.
    sequences = [s for n in range(3) for s in itertools.product(range(4), repeat=n)]
    half = told[: len(told) // 2]
    assert {s: c for s, c in zip(sequences, half, strict=True) if c} == {(0,): 4}
