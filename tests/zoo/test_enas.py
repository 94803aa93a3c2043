"""The spaces of ENAS: their sizes, their wiring, and what of them is one network."""

from __future__ import annotations

import itertools
from collections import Counter
from math import prod
from typing import Any

import pytest
import torch

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.space.choices import Held
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.gates import draw_step
from assay.train.arrays import in_memory
from assay.train.task import Task
from assay.weights.scoring import score_paths
from assay.zoo.enas import LAYER_OPERATIONS, macro, micro
from assay.zoo.enas_cell import CELL_OPERATIONS


def first(space: Space, **wanted: Any) -> Architecture:
    """Return the architecture of first options but for some, whose labels have `_` for `.`."""
    known = {label.replace(".", "_"): label for label in space.choices}
    return space.complete({known[k]: v for k, v in wanted.items()}, lambda c: c.options[0])


def seen(network: torch.nn.Module, x: torch.Tensor, *names: str) -> dict[str, Any]:
    """Return (inputs, output) of some modules as a network runs."""
    found: dict[str, Any] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _m, given, out, name=name: found.update({name: (given, out)})
        )
    network.eval()
    with torch.no_grad():
        network(x)
    return found


# --- macro ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_the_macro_space_has_the_size_of_the_formula(layers: int) -> None:
    space = macro(layers=layers, channels=2)
    assert space.size == 6**layers * 2 ** (layers * (layers - 1) // 2)
    if layers < 3:
        assert len(set(space.all())) == space.size


def test_the_paper_has_this_many_macro_networks() -> None:
    assert macro(layers=12, channels=2).size == 6**12 * 2**66


def test_operations_have_the_weights_of_their_formulas() -> None:
    space, c = macro(layers=1, channels=4), 4
    before = c * c + 2 * c
    weights = {
        "conv3": 9 * c * c + 2 * c, "conv5": 25 * c * c + 2 * c,
        "sep3": 9 * c + c * c + 2 * c, "sep5": 25 * c + c * c + 2 * c, "avg3": 0, "max3": 0,
    }  # fmt: skip
    assert tuple(weights) == LAYER_OPERATIONS
    for operation, own in weights.items():
        op = space.build(first(space, layer1_op=operation)).get_submodule("body.op1")
        assert sum(p.numel() for p in op.parameters()) == before + own


def test_a_layer_is_its_operation_of_the_last_plus_what_it_is_connected_to() -> None:
    space = macro(layers=4, channels=2)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for on in itertools.product((False, True), repeat=2):
        skips = {f"layer3_from{j}": "skip" for j in range(2) if on[j]}
        net = space.build(first(space, **skips))
        names = ["stem", "norm1", "norm2", "op3", "norm3"]
        found = seen(net, x, *(n if n == "stem" else f"body.{n}" for n in names))
        expected = found["body.op3"][1]
        for j, source in enumerate(("stem", "body.norm1")):
            if on[j]:
                halvings = net.get_submodule(f"body.from{j}_to3").eval()
                zero = torch.zeros_like(expected)
                with torch.no_grad():
                    expected = expected + halvings(zero, found[source][1])
        torch.testing.assert_close(found["body.norm3"][0][0], expected)


def test_the_side_is_halved_and_the_channels_doubled_at_each_third() -> None:
    net = macro(layers=6, channels=4, input_shape=(1, 9, 9)).model
    found = seen(net, torch.zeros(2, 1, 9, 9), *(f"body.norm{k}" for k in range(1, 7)))
    shapes = [tuple(found[f"body.norm{k}"][1].shape[1:]) for k in range(1, 7)]
    assert shapes == [(4, 9, 9)] * 2 + [(8, 5, 5)] * 2 + [(16, 3, 3)] * 2


# --- micro ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_the_micro_space_has_the_size_of_the_formula(nodes: int) -> None:
    space = micro(nodes=nodes, channels=2)
    assert space.size == prod((5 * states) ** 2 for states in range(2, nodes + 2)) ** 2


def test_each_pair_of_sides_is_one_network() -> None:
    space = micro(nodes=1, channels=2)
    pairs = (2 * 5) * (2 * 5 + 1) // 2
    rng = derive(0, "sides")
    forms = {space.canonical(a) for a in space.all()}
    assert len(forms) == pairs**2
    for a in rng.choice(len(forms), 8, replace=False):
        point = sorted(forms, key=str)[a]
        swapped = {label[:-1] + {"a": "b", "b": "a"}[label[-1]]: o for label, o in point.items()}
        assert space.canonical(space.complete(swapped, lambda c: c.options[0])) == point
    assert all(space.canonical(form) == form for form in forms)


def test_what_no_node_reads_is_the_output() -> None:
    space = micro(nodes=3, channels=2)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    chain = {f"normal_node{n}_from_{s}": f"state{n - 1}" for n in (2, 3, 4) for s in "ab"}
    wide = {f"normal_node{n}_from_{s}": "state0" for n in (2, 3, 4) for s in "ab"}
    for reads, loose in ((chain, {0, 4}), (wide, {1, 2, 3, 4})):
        net = space.build(first(space, **reads))
        cell = net.get_submodule("body.cell1")
        sides = [n for n, _ in cell.named_children() if n.startswith("node")]
        assert len(sides) == 6
        found = seen(net, x, *(f"body.cell1.{n}" for n in ("state0", "state1", "out", *sides)))
        states = [found[f"body.cell1.state{i}"][1] for i in range(2)]
        for n in (2, 3, 4):
            one, other = (found[f"body.cell1.node{n}{s}"][1] for s in "ab")
            states.append(one + other)
        expected = sum(states[i] for i in loose)
        torch.testing.assert_close(found["body.cell1.out"][0][0], expected)


def test_cells_of_a_kind_share_their_decisions() -> None:
    space = micro(nodes=1, cells=2, channels=2)
    a = first(space, normal_node2_op_a="sep5", reduction_node2_op_a="max3")
    sides = {
        name: Counter(type(m).__name__ for m in module.modules())
        for name, module in space.build(a).named_modules()
        if name.endswith("node2a")
    }
    assert len(sides) == 3 * 2 + 2
    pooled = {name for name, kinds in sides.items() if kinds["MaxPool2d"]}
    assert pooled == {"body.cell3.node2a", "body.cell6.node2a"}
    assert all(kinds["Conv2d"] == 4 for name, kinds in sides.items() if name not in pooled)


def test_reduction_cells_halve_the_side_and_double_the_channels() -> None:
    net = micro(nodes=1, channels=2, input_shape=(3, 9, 9)).model
    found = seen(net, torch.zeros(2, 3, 9, 9), *(f"body.cell{i}" for i in range(1, 6)))
    shapes = [tuple(found[f"body.cell{i}"][1].shape[1:]) for i in range(1, 6)]
    assert shapes == [(2, 9, 9), (4, 5, 5), (4, 5, 5), (8, 3, 3), (8, 3, 3)]


def test_operations_of_cells_are_the_published_ones() -> None:
    assert CELL_OPERATIONS == ("identity", "sep3", "sep5", "avg3", "max3")
    space, c = micro(nodes=1, channels=4), 4
    weights = {"identity": 0, "sep3": 9, "sep5": 25, "avg3": 0, "max3": 0}
    for operation, kernel in weights.items():
        net = space.build(first(space, normal_node2_op_a=operation))
        side = net.get_submodule("body.cell1.node2a")
        expected = 2 * (kernel * c + c * c + 2 * c) if kernel else 0
        assert sum(p.numel() for p in side.parameters()) == expected


def test_a_mix_of_what_is_read_is_a_weighted_sum() -> None:
    space = micro(nodes=1, channels=2)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mix: dict[str, Any] = {k: {o: 1.0} for k, o in first(space).items()}
    mix["normal.node2.from_a"] = {"state0": 0.25, "state1": 0.75}
    space.select(mix)
    cell = "body.cell1"
    found = seen(space.model, x, f"{cell}.state0", f"{cell}.state1", f"{cell}.out")
    one, other = (found[f"{cell}.state{i}"][1] for i in range(2))
    read = 0.25 * one + 0.75 * other + one  # side b reads state 0; all operations are identities
    torch.testing.assert_close(found[f"{cell}.out"][0][0], read)


def test_what_is_held_leaves_the_output_as_it_is_without_it() -> None:
    space, rng = micro(nodes=3, channels=2), derive(0, "held")
    space.model.eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alphas, beside = Alphas(space), 0
    for _ in range(12):
        drawn = draw_step(alphas, rng)
        taken: dict[str, Any] = dict(drawn.single)
        mix: dict[str, Any] = {k: {o: 1.0} for k, o in (drawn.single | drawn.behind).items()}
        for label, at in drawn.pairs.items():
            taken[label], other = (space.choices[label].options[i] for i in at)
            mix[label] = {taken[label]: torch.ones(()), other: Held(torch.zeros(()))}
        with torch.no_grad():
            space.select(mix)
            mixed = space.model(x)
            space.select(space.check(Architecture(taken)))
            assert torch.equal(mixed, space.model(x))
        reads = {o for k, o in taken.items() if ".from_" in k}
        beside += not {o for k, m in mix.items() if ".from_" in k for o in m} <= reads
    assert beside  # some state was read by what is held alone


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [macro(layers=4, channels=2), micro(nodes=2, channels=2)])
def test_figures_without_building_are_those_of_the_network(space: Space) -> None:
    measures, rng = Measures(space, Device(), torch.zeros(1, 1, 8, 8)), derive(0, "figures")
    for _ in range(4):
        a = space.sample(rng)
        assert measures("params", a) == sum(p.numel() for p in space.build(a).parameters())
        assert measures.uncounted(a) == ()


def test_a_variant_keeps_the_choices() -> None:
    space = micro(nodes=2, cells=2, channels=4)
    assert space.cheap == {"cells": 1}
    assert space.variant(cells=1, channels=2).choices.keys() == space.choices.keys()
    small = macro(layers=3, channels=4).variant(channels=2)
    assert small.model.get_submodule("stem.0").out_channels == 2


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (macro, {"layers": 0}), (macro, {"channels": 3}), (macro, {"num_classes": 0}),
        (micro, {"nodes": 0}), (micro, {"cells": 0}), (micro, {"channels": 5}),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(make: Any, wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting, match=f"enas-{make.__name__} needs .*{next(iter(wrong))}"):
        make(**wrong)


@pytest.mark.parametrize("space", [macro(layers=3, channels=2), micro(nodes=2, channels=2)])
def test_shared_beginnings_change_no_score(space: Space) -> None:
    rng = derive(0, "shared")
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = (x, torch.arange(8) % 10)
    task = Task.of_classes(*in_memory(batch, batch, batch), augment=None, name="noise")
    points = [space.sample(rng) for _ in range(6)]
    points += [space.mutate(a, rng) for a in points]
    shared, alone = (
        score_paths(space, points, task, valid=[batch], norms="batch", shared=shared)
        for shared in (True, False)
    )
    for one, other in zip(shared, alone):
        assert one == pytest.approx(other, rel=1e-5)
