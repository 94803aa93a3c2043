"""The DARTS cells: what they span, how they are published, what is built and mixed of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.contracts import Context, History
from assay.cost import Budget
from assay.errors import InvalidArchitecture, InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.executors.inline import Inline
from assay.hardware.calls import PathCalls
from assay.hardware.count import count
from assay.space.choices import Held, OneOf
from assay.space.space import Space
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.proxyless import Proxyless
from assay.train.arrays import in_memory
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.morph.heir import inherit
from assay.weights.prefix import PrefixWalk
from assay.zoo.darts import _operation, _read, darts
from assay.zoo.darts_genotype import (
    DARTS_V1,
    DARTS_V2,
    OPERATIONS,
    Genotype,
    from_genotype,
    to_genotype,
)
from tests.space.spaces import randomise_norms

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def small() -> Space:
    """Four nodes in each of three cells, in float64, with random norms, in eval mode."""
    made = darts(input_shape=(1, 8, 8), num_classes=3, channels=2, cells=3)
    randomise_norms(made.model.double())
    made.model.eval()
    return made


# --- what it spans --------------------------------------------------------------------------------


def test_of_one_node_every_architecture_is_counted_once() -> None:
    space = darts(channels=2, cells=3, nodes=1)
    points = list(space.all())
    assert len(points) == len(set(map(space.canonical, points))) == space.size == (7 * 7) ** 2


def test_of_two_nodes_every_reduction_cell_is_counted_once() -> None:
    space = darts(channels=2, cells=3, nodes=2)
    ways = 7**2 * 3 * 7**2
    assert space.size == ways**2
    *one, other = itertools.islice(space.all(), ways + 1)
    assert len(set(one)) == ways
    assert len({str(to_genotype(a).normal) for a in one}) == 1
    assert to_genotype(other).normal != to_genotype(one[0]).normal


def test_its_size_is_the_published_one(small: Space) -> None:
    assert small.size == (1 * 3 * 6 * 10 * 7**8) ** 2  # the paper rounds it to 10^18
    assert round(np.log10(small.size)) == 18


def test_a_decision_is_one_for_all_cells_of_its_kind() -> None:
    sites = darts(channels=2, cells=6).structure.modules
    assert {len(ms) for label, ms in sites.items() if label.startswith("normal")} == {4}
    assert {len(ms) for label, ms in sites.items() if label.startswith("reduce")} == {2}


def test_an_operation_on_a_state_that_is_not_read_is_no_decision(small: Space) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        point = small.sample(rng)
        assert len(point) == 2 * (3 * 4 - 1)
        for label, pair in point.items():
            node, _, part = label.rpartition(".")
            if part == "inputs":
                read = {f"{node}.from{i}" for i in str(pair).split("_")}
                assert {la for la in point if la.startswith(f"{node}.from")} == read


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cells": 2}, "cells of at least 3, not 2"),
        ({"nodes": 0}, "nodes of at least 1, not 0"),
        ({"channels": 0}, "channels of at least 1, not 0"),
        ({"num_classes": 0}, "num_classes of at least 1, not 0"),
        ({"input_shape": (3, 0, 8)}, "input_shape of at least 1, not 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=f"darts needs {said}"):
        darts(**options)


def test_a_variant_has_the_same_choices(small: Space) -> None:
    variant = small.variant(cells=4, channels=3)
    assert variant.size == small.size
    assert variant.model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(("side", "cells"), [(8, 5), (15, 5), (16, 8)])
def test_small_images_have_fewer_cells_and_the_same_decisions(side: int, cells: int) -> None:
    space = darts(input_shape=(1, side, side + 1), channels=5, nodes=1)
    names = [name for name, _ in space.model.named_children() if name.startswith("cell")]
    assert names == [f"cell{i}" for i in range(1, cells + 1)]
    assert space.cheap == {"cells": 3, "channels": 3}
    assert space.variant(**space.cheap).size == space.size == (7 * 7) ** 2


# --- genotypes ------------------------------------------------------------------------------------


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    nodes = draw(st.integers(1, 5))
    cells = []
    for _ in range(2):
        genes = []
        for node in range(2, nodes + 2):
            states = draw(st.permutations(range(node)))[:2]
            genes += [(draw(st.sampled_from(OPERATIONS)), state) for state in states]
        cells.append(genes)
    return Genotype(cells[0], range(2, nodes + 2), cells[1], range(2, nodes + 2))


@given(genotypes())
def test_a_genotype_is_read_and_written(genotype: Genotype) -> None:
    point = from_genotype(genotype)
    written = to_genotype(point)
    assert from_genotype(written) == point
    for one, other in ((genotype.normal, written.normal), (genotype.reduce, written.reduce)):
        assert [set(one[i : i + 2]) for i in range(0, len(one), 2)] == [
            set(other[i : i + 2]) for i in range(0, len(other), 2)
        ]
    for concat in (written.normal_concat, written.reduce_concat):
        assert list(concat) == list(genotype.normal_concat)


@pytest.mark.parametrize("genotype", [DARTS_V1, DARTS_V2])
def test_what_was_published_lies_in_the_space(small: Space, genotype: Genotype) -> None:
    point = from_genotype(genotype)
    assert small.contains(point)
    assert from_genotype(to_genotype(point)) == from_genotype(tuple(genotype)) == point
    assert from_genotype([list(genotype[0]), range(2, 6), genotype[2], [2, 3, 4, 5]]) == point


def test_every_sample_has_a_genotype(small: Space) -> None:
    rng = np.random.default_rng(0)
    points = [small.sample(rng) for _ in range(50)]
    assert [from_genotype(to_genotype(a)) for a in points] == points


def changed(field: str, value: Any) -> Genotype:
    return DARTS_V2._replace(**{field: value})


@pytest.mark.parametrize(
    ("genotype", "said"),
    [
        ("Genotype()", r"a genotype is \(normal, normal_concat, reduce, reduce_concat\), not 'Gen"),
        (DARTS_V2[:3], "a genotype is"),
        (changed("normal", DARTS_V2.normal[:3]), "normal has 3 pairs .*; give two for each node"),
        (changed("reduce", ()), "reduce has 0 pairs"),
        (changed("normal", [("sep_conv_7x7", 0), *DARTS_V2.normal[1:]]),
         r"normal\[0\] cannot be 'sep_conv_7x7'; did you mean 'sep_conv_"),
        (changed("normal", [("none", 0), *DARTS_V2.normal[1:]]), r"normal\[0\] cannot be 'none'"),
        (changed("reduce", [*DARTS_V2.reduce[:7], ("skip_connect", 5)]),
         r"reduce\[7\] reads the state 5; node 5 can read 0 to 4"),
        (changed("reduce", [*DARTS_V2.reduce[:7], ("skip_connect", 2)]),
         "reduce: node 5 reads the state 2 twice"),
        (changed("normal", ["sep_conv_3x3", *DARTS_V2.normal[1:]]),
         r"normal\[0\] is 'sep_conv_3x3'; write \(operation, state\)"),
        (changed("normal_concat", [3, 4, 5]), r"normal_concat is \[3, 4, 5\], .*\[2, 3, 4, 5\]"),
        (Genotype(DARTS_V2[0][:4], (2, 3), DARTS_V2[2], (2, 3, 4, 5)),
         "normal has 2 nodes and reduce 4"),
    ],
)  # fmt: skip
def test_a_malformed_genotype_is_refused(genotype: Any, said: str) -> None:
    with pytest.raises(InvalidArchitecture, match=said):
        from_genotype(genotype)


V2 = dict(from_genotype(DARTS_V2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "lacks 'normal.node2.from0'"),
        ({k: V2[k] for k in V2 if k != "reduce.node4.inputs"}, "lacks 'reduce.node4.inputs'"),
        ({**V2, "normal.node2.from0": "none"}, "normal.node2.from0 cannot be 'none'"),
        ({**V2, "normal.node4.inputs": "1_0"}, "normal.node4.inputs cannot be '1_0'; did you mean"),
        ({**V2, "body.0": "conv"}, "'body.0' is no decision of cells with 4 nodes"),
    ],
)  # fmt: skip
def test_an_architecture_of_another_space_has_no_genotype(options: Any, said: str) -> None:
    with pytest.raises(InvalidArchitecture, match=said):
        to_genotype(options)


# --- what is built --------------------------------------------------------------------------------


def test_the_published_network_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = darts(channels=36, cells=20).build(from_genotype(DARTS_V2))
    assert sum(p.numel() for p in network.parameters()) == 3_349_342


def closed_form(genotype: Genotype, *, cells: int, c: int, classes: int, colours: int) -> int:
    """Parameters of the network of a genotype, added up layer by layer."""

    def weights(operation: str, c: int, stride: int) -> int:
        once = {k: c * k * k + c * c + 2 * c for k in (3, 5)}  # depthwise, pointwise, norm
        if operation == "skip_connect":
            return c * c + 2 * c if stride == 2 else 0
        if "pool" in operation:
            return 0
        return once[int(operation[-1])] * (2 if operation.startswith("sep") else 1)

    total, before, last = 9 * colours * 3 * c + 6 * c, 3 * c, 3 * c
    for i in range(cells):
        halves = i in (cells // 3, 2 * cells // 3)
        c = 2 * c if halves else c
        genes = genotype.reduce if halves else genotype.normal
        total += sum(weights(o, c, 2 if halves and s < 2 else 1) for o, s in genes)
        total += before * c + 2 * c + last * c + 2 * c
        before, last = last, len(genes) // 2 * c
    return total + last * classes + classes


@pytest.mark.parametrize("nodes", [1, 3])
def test_parameters_are_those_of_the_closed_form(nodes: int) -> None:
    space = darts(input_shape=(2, 8, 8), num_classes=5, channels=4, cells=4, nodes=nodes)
    rng = np.random.default_rng(0)
    for point in (space.sample(rng) for _ in range(4)):
        found = sum(p.numel() for p in space.build(point).parameters())
        expected = closed_form(to_genotype(point), cells=4, c=4, classes=5, colours=2)
        assert found == expected


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [*OPERATIONS, "none"])
def test_an_operation_keeps_the_side_or_halves_it(name: str, stride: int, side: int) -> None:
    x = torch.randn(2, 4, side, side)
    told = _operation(name, 4, stride)(x)
    assert told.shape == (2, 4, *[-(-side // stride)] * 2)
    assert bool(told.any()) == (name != "none")


def test_cells_at_one_and_two_thirds_halve_the_side_and_double_the_channels() -> None:
    space = darts(input_shape=(1, 8, 8), channels=2, cells=7, nodes=2)
    network = space.build(space.sample(np.random.default_rng(0))).eval()
    shapes: list[tuple[int, ...]] = []
    for i in range(1, 8):
        cell = network.get_submodule(f"cell{i}")
        cell.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, 1, 8, 8))
    assert shapes == [*[(4, 8, 8)] * 2, *[(8, 4, 4)] * 2, *[(16, 2, 2)] * 3]


@pytest.mark.parametrize("side", [1, 5, 14])
def test_sides_that_do_not_halve_are_rounded_up(small: Space, side: int) -> None:
    network = small.build(from_genotype(DARTS_V1))
    assert network(torch.zeros(1, 1, side, side, dtype=torch.float64)).shape == (1, 3)


@pytest.mark.parametrize("genotype", [DARTS_V1, DARTS_V2])
def test_a_built_cell_computes_what_its_genotype_says(small: Space, genotype: Genotype) -> None:
    network = small.build(from_genotype(genotype))
    x = y = network.get_submodule("stem")(X)
    for i, genes in enumerate((genotype.normal, genotype.reduce, genotype.reduce), start=1):
        cell = network.get_submodule(f"cell{i}")
        states = [cell.get_submodule(f"input{j}")(z) for j, z in enumerate((x, y))]
        for node, pair in enumerate(zip(genes[::2], genes[1::2]), start=2):
            terms = [cell.get_submodule(f"node{node}.from{s}")(states[s]) for _, s in pair]
            states.append(terms[0] + terms[1])
        x, y = y, torch.cat(states[2:], 1)
    told = network.get_submodule("classifier")(y.mean((2, 3)))
    torch.testing.assert_close(told, network(X), rtol=1e-12, atol=1e-12)


def test_macs_are_found_without_building(small: Space) -> None:
    calls, rng = PathCalls(small, X), np.random.default_rng(0)
    for point in (small.sample(rng) for _ in range(2)):
        assert calls.counts(point).macs == count(small.build(point), X).macs


def test_beginnings_that_paths_share_are_computed_once(small: Space) -> None:
    rng = np.random.default_rng(0)
    points = [small.sample(rng)]
    points += [small.mutate(points[0], rng) for _ in range(6)]
    outputs: dict[tuple[bool, int], Tensor] = {}
    for shared in (False, True):
        walk = PrefixWalk(small, shared=shared)
        with torch.no_grad(), walk.installed():
            walk.population(points, X, lambda i, out, s=shared: outputs.update({(s, i): out}))
    for i in range(len(points)):
        assert torch.equal(outputs[False, i], outputs[True, i])


def test_a_copy_of_the_model_is_a_model_of_its_own(small: Space) -> None:
    twin = copy.deepcopy(small.model)
    assert Space(twin).fingerprint == small.fingerprint
    cell: Any = twin.get_submodule("cell1")
    inside = set(map(id, cell.modules()))
    assert all(id(edge) in inside for edges in cell._edges for edge in edges)
    assert not inside & set(map(id, small.model.modules()))


def test_a_child_takes_over_all_but_what_is_new(small: Space) -> None:
    parent = from_genotype(DARTS_V2)
    child = small.check({**parent, "normal.node5.from2": "sep_conv_5x5"})
    network = small.build(parent)
    found = inherit(small, parent, network, child, rng=np.random.default_rng(0), example=X)
    assert [m.label for m in found.morphs if m.kind != "fresh"] == ["normal.node5.from2"]
    old, new = network.state_dict(), found.network.state_dict()
    kept = [name for name in new if not name.startswith("cell1.node5.from2")]
    assert len(new) > len(kept) > 100
    assert all(torch.equal(old[name], new[name]) for name in kept)


# --- what is mixed --------------------------------------------------------------------------------


def node_of(space: Space) -> tuple[Callable[[], Tensor], list[OneOf], list[Tensor]]:
    """Return what runs the third node of a cell, its edges, and the states that it may read."""
    cell: Any = space.model.get_submodule("cell1")
    torch.manual_seed(0)
    states = [torch.randn(2, 2, 8, 8, dtype=torch.float64) for _ in range(4)]
    edges = cell._edges[2]
    return lambda: _read(cell.node4, edges, states), edges, states


def test_in_a_mix_of_all_pairs_every_edge_counts_and_runs_once(small: Space) -> None:
    run, edges, states = node_of(small)
    rng = np.random.default_rng(0)
    mix: dict[str, dict[Any, Any]] = {
        label: dict(zip(choice.options, rng.dirichlet(np.ones(len(choice.options)))))
        for label, choice in small.choices.items()
    }
    mix["normal.node4.inputs"] = dict.fromkeys(("0_1", "0_2", "0_3", "1_2", "1_3", "2_3"), 1 / 3)
    runs = []
    hooks = [
        edge.get_submodule(o).register_forward_hook(lambda *_: runs.append(1))
        for edge in edges
        for o in OPERATIONS
    ]
    small.select(mix)
    with torch.no_grad():
        told = run()
    for hook in hooks:
        hook.remove()
    small.select(None)
    assert len(runs) == 4 * len(OPERATIONS)
    mixed = sum(
        mix[f"normal.node4.from{i}"][o] * edges[i].get_submodule(o)(x)
        for i, x in enumerate(states)
        for o in OPERATIONS
    )
    torch.testing.assert_close(told, mixed, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("held", [False, True])
def test_two_pairs_may_be_mixed(small: Space, held: bool) -> None:
    """Also where one of them is held, as ProxylessNAS does: its weight alone has a gradient."""
    run, edges, states = node_of(small)
    w = torch.tensor([0.75, 0.25], dtype=torch.float64, requires_grad=True)
    mix: dict[str, dict[Any, Any]] = {
        f"normal.node4.from{i}": {"sep_conv_3x3": 1.0} for i in range(4)
    }
    mix["normal.node4.inputs"] = {"0_1": w[0], "1_3": Held(w[1]) if held else w[1]}
    small.select(mix)
    told = run()
    small.select(None)
    read = [edge.get_submodule("sep_conv_3x3")(x) for edge, x in zip(edges, states)]
    pairs = torch.stack([read[0] + read[1], read[1] + read[3]])
    torch.testing.assert_close(told, 0.75 * pairs[0] + 0.25 * pairs[1], rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(told.sum(), w)
    torch.testing.assert_close(gradient, pairs.sum((1, 2, 3, 4)), rtol=1e-8, atol=1e-8)


# --- what searches it -----------------------------------------------------------------------------


def of_images(**options: Any) -> Context:
    space = darts(input_shape=(1, 8, 8), num_classes=2, channels=2, cells=3, nodes=2, **options)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    x = rng.normal(size=(120, 1, 8, 8)) + 2.0 * y[:, None, None, None]
    x, y = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    splits = in_memory((x[:60], y[:60]), (x[60:110], y[60:110]), (x[110:], y[110:]))
    task = Task.of_classes(*splits, augment=None, name="shades")
    recipe = Recipe(lr=0.05, batch_size=16, epochs=2)
    return Context(space, task, recipe, Inline(), "cpu", 0, History(space))


STRATEGIES = {
    "darts": lambda: DARTS(warmup=0.0, batch=16),
    "second order": lambda: DARTS(warmup=0.0, batch=16, second_order=True),
    "gumbel": lambda: DARTS(warmup=0.0, batch=16, relax="gumbel"),
    "proxyless": lambda: Proxyless(warmup=0.0, quantity=""),
    "by reward": lambda: Proxyless(warmup=0.0, quantity="", rule="reinforce"),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_that_learns_ends_in_a_genotype(name: str) -> None:
    ctx, strategy = of_images(), STRATEGIES[name]()
    list(OneShot(paths=strategy.paths, states=1).prepare(ctx, Budget(steps=2)))
    assert any(bool(alpha.any()) for alpha in strategy.paths.known.logits.values())
    asked = strategy.ask(ctx.history, 3, rng=np.random.default_rng(0))
    for proposal in asked:
        point = proposal.architecture
        assert from_genotype(to_genotype(point)) == ctx.space.check(point)
    assert asked[0].architecture == strategy.paths.known.best()


def test_steps_of_second_order_leave_every_edge_its_own_weights() -> None:
    """Edges lie in several pairs of inputs: what stood in for their weights must not stay there."""
    space = darts(input_shape=(1, 8, 8), num_classes=2, channels=2, cells=3, nodes=3)
    ctx, paths = replace(of_images(), space=space), STRATEGIES["second order"]().paths
    own = dict(space.model.named_parameters())
    list(OneShot(paths=paths, states=1, variant={}).prepare(ctx, Budget(steps=1)))
    assert any(bool(alpha.any()) for alpha in paths.known.logits.values())
    after = dict(space.model.named_parameters())
    assert all(after[name] is parameter for name, parameter in own.items())


def test_none_is_weighed_in_the_search_and_no_genotype_has_it() -> None:
    """Whatever its weight is: here it is by far the largest on every edge."""
    ctx, strategy = of_images(none=True), STRATEGIES["darts"]()
    assert ctx.space.size == (8**2 * 3 * 8**2) ** 2
    assert ctx.space.variant(cells=4).size == ctx.space.size
    list(OneShot(paths=strategy.paths, states=1).prepare(ctx, Budget(steps=2)))
    known, rng = strategy.paths.known, np.random.default_rng(0)
    edges = [label for label, c in ctx.space.choices.items() if c.kind == "OneOf"]
    assert all(known.logits[label][-1] for label in edges)  # it had gradients
    for label in edges:
        known.logits[label][-1] = 9.0
    strategy.paths._adam({})
    (mix,) = strategy.paths.passes(ctx.space, 2, rng=rng)
    assert all(max(mix[label], key=mix[label].__getitem__) == "none" for label in edges)
    for proposal in strategy.ask(ctx.history, 20, rng=rng):
        assert "none" not in proposal.architecture.values()
        assert from_genotype(to_genotype(proposal.architecture)) == proposal.architecture


def test_a_network_with_none_is_plain_and_does_without_it() -> None:
    space = darts(input_shape=(1, 8, 8), num_classes=3, channels=2, cells=3, nodes=1, none=True)
    point = space.complete({}, lambda choice: choice.options[-1])
    assert set(point.values()) == {"none"}
    network = space.build(point)
    assert not any(type(m).__module__.startswith("assay") for m in network.modules())
    torch.testing.assert_close(network(X.float()), network.classifier.bias.expand(2, 3))
