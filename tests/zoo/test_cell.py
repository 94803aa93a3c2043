from __future__ import annotations

import copy
import csv
import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, InvalidSetting
from assay.handover.source import write_source
from assay.hardware.count import count
from assay.space.space import Space
from assay.weights.prefix import PrefixWalk
from assay.zoo.cell import OPERATIONS, arch_string, cell, from_arch_string
from tests.space.spaces import randomise_norms

EDGES = ("edge01", "edge02", "edge12", "edge03", "edge13", "edge23")
PUBLISHED = Path(__file__).parents[3] / "shared/data/nasbench201_cifar10.csv"


def point(*operations: str) -> Architecture:
    """Make an architecture; "n", "s", "1", "3" and "p" stand for the operations in their order."""
    return Architecture({e: OPERATIONS["ns13p".index(o)] for e, o in zip(EDGES, operations)})


@pytest.fixture(scope="module")
def small() -> Space:
    return cell(channels=2, cells=1, num_classes=3)


@pytest.fixture
def published(needs: Callable[[str, object], None]) -> list[dict[str, str]]:
    if not PUBLISHED.exists():
        pytest.skip("needs the published table of NAS-Bench-201 in ../shared/data")
    with PUBLISHED.open() as file:
        return list(csv.DictReader(file))


def network_counts(space: Space, architecture: Architecture) -> tuple[int, int]:
    net = space.build(architecture)
    macs = count(net, torch.zeros(1, 3, 32, 32)).macs
    return macs, sum(p.numel() for p in net.parameters())


def closed_form(architecture: Architecture, *, cells: int = 5, c: int = 16) -> tuple[int, int]:
    """MACs and parameters on 3x32x32 and ten classes, added up layer by layer."""

    def conv(i: int, o: int, kernel: int, side: int) -> tuple[int, int]:
        return kernel**2 * i * o * side**2, kernel**2 * i * o

    layers = [conv(3, c, 3, 32), (0, 2 * c), (0, 2 * 4 * c), (4 * c * 10, 4 * c * 10 + 10)]
    for channels, side in ((c, 32), (2 * c, 16), (4 * c, 8)):
        kernels = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
        for kernel in [kernels[o] for o in architecture.values() if o in kernels] * cells:
            layers += [conv(channels, channels, kernel, side), (0, 2 * channels)]
        if channels > c:
            layers += [conv(channels // 2, channels, 3, side), (0, 2 * channels)]
            layers += [conv(channels, channels, 3, side), (0, 2 * channels)]
            layers += [conv(channels // 2, channels, 1, side)]
    macs, weights = zip(*layers)
    return sum(macs), sum(weights)


# --- what it spans and counts ---------------------------------------------------------------------


def test_six_decisions_of_five_options_serve_all_cells(small: Space) -> None:
    assert small.size == 5**6
    assert tuple(small.choices) == EDGES
    assert {choice.options for choice in small.choices.values()} == {OPERATIONS}
    assert cell(channels=2, cells=3).size == 5**6


@pytest.mark.parametrize("operations", ["nnnnnn", "333333", "ns13p1", "ssss11", "p31n1n"])
def test_macs_and_parameters_are_those_of_the_closed_form(operations: str) -> None:
    assert network_counts(cell(), point(*operations)) == closed_form(point(*operations))


def test_the_largest_and_the_smallest_are_known(small: Space) -> None:
    assert set(small.largest().values()) == {"nor_conv_3x3"}
    assert closed_form(small.smallest()) == closed_form(point(*"nnnnnn"))


@pytest.mark.slow
def test_macs_and_parameters_are_the_published_ones(published: list[dict[str, str]]) -> None:
    distinct = [row for row in published if row["rep_index"] == row["index"]]
    space = cell()
    for row in distinct[:: len(distinct) // 200][:200]:
        found = network_counts(space, from_arch_string(row["arch_str"]))
        assert in_millions(*found) == stated(row), row["arch_str"]


def test_the_closed_form_is_the_published_one(published: list[dict[str, str]]) -> None:
    for row in published:
        found = closed_form(from_arch_string(row["arch_str"]))
        assert in_millions(*found) == stated(row), row["arch_str"]


def in_millions(macs: int, params: int) -> tuple[float, float]:
    """To six digits; the published MACs count the ten additions of the classifier's bias too."""
    return float(f"{(macs + 10) / 1e6:.6g}"), float(f"{params / 1e6:.6g}")


def stated(row: dict[str, str]) -> tuple[float, float]:
    return float(row["flops_m"]), float(row["params_m"])


# --- the published notation -----------------------------------------------------------------------


def test_the_notation_is_read_and_written() -> None:
    text = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    assert from_arch_string(text) == point(*"ns13pn")
    assert arch_string(point(*"ns13pn")) == text
    assert from_arch_string(f" {text}\n") == point(*"ns13pn")


def test_all_published_names_are_read_and_written(published: list[dict[str, str]]) -> None:
    assert len({from_arch_string(row["arch_str"]) for row in published}) == 5**6
    for row in published:
        assert arch_string(from_arch_string(row["arch_str"])) == row["arch_str"]


GOOD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no cell; write |op~0|"),
        (GOOD[:-1], "is no cell"),
        (GOOD + GOOD, "is no cell"),
        (GOOD.replace("~1", "~0"), "is no cell"),
        (GOOD.replace("none~2", "max_pool_3x3~2"), "edge23 cannot be 'max_pool_3x3'; did you mean"),
        (GOOD.replace("none~2", "~2"), "is no cell"),
    ],
)
def test_another_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidArchitecture) as refused:
        from_arch_string(text)
    assert said in str(refused.value)


def test_an_architecture_of_another_space_has_no_name() -> None:
    with pytest.raises(InvalidArchitecture, match=r"has the edges edge01, .*, not body\.0"):
        arch_string({"body.0": "conv3"})
    with pytest.raises(InvalidArchitecture, match="edge12 cannot be 'conv3'"):
        arch_string({**point(*"nnnnnn"), "edge12": "conv3"})


# --- which architectures are one network ----------------------------------------------------------


def test_there_are_as_many_networks_as_published(small: Space) -> None:
    classes = defaultdict(list)
    for architecture in small.all():
        classes[small.canonical(architecture)].append(architecture)
    assert len(classes) == 6_466
    for least, members in classes.items():
        assert least in members
        amounts = [closed_form(member) for member in members]
        assert closed_form(least) == tuple(map(min, zip(*amounts)))


def test_the_classes_are_the_published_ones(small: Space, published: list[dict[str, str]]) -> None:
    forms = [small.canonical(from_arch_string(row["arch_str"])) for row in published]
    pairs = set(zip(forms, (row["rep_index"] for row in published)))
    assert len(pairs) == len(set(forms)) == len({index for _, index in pairs}) == 6_466


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3nnnnn", "nnnnnn"),  # nothing reads node 1
        ("n3n1nn", "nnn1nn"),  # nothing reads node 2
        ("nn3nnp", "nnnnnp"),  # node 1 reads nothing
        ("13nnnn", "nnnnnn"),  # nothing reads either
        ("s3n1nn", "n3n1nn"),  # nothing reads node 1 or node 2
        ("snnn3n", "nnn3nn"),  # a skip is what it reads
    ],
)
def test_networks_that_are_the_same(small: Space, one: str, other: str) -> None:
    assert small.canonical(point(*one)) == small.canonical(point(*other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("13nn13", "31nn31"),  # nodes 1 and 2 change places
        ("nsn3n1", "nnn3n1"),  # node 2 reads something, or nothing
        ("n3nnns", "nnn3nn"),  # a skip of node 2, whose sum is written with its missing term
    ],
)
def test_networks_that_the_published_count_tells_apart(small: Space, one: str, other: str) -> None:
    assert small.canonical(point(*one)) != small.canonical(point(*other))


def test_the_form_of_an_architecture_is_quick_to_find(small: Space) -> None:
    points = list(small.all())
    small.canonical(points[0])
    started = time.process_time()
    for architecture in points:
        small.canonical(architecture)
    assert (time.process_time() - started) / len(points) < 50e-6


def test_one_form_is_one_function(small: Space) -> None:
    """With equal weights in convolutions of one shape, outputs are equal in train mode."""
    rng = np.random.default_rng(0)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(20):
        architecture = small.sample(rng)
        least = small.canonical(architecture)
        with torch.no_grad():
            outputs = [tied(small.build(a))(x) for a in (architecture, least)]
        assert (outputs[0] - outputs[1]).abs().max() <= 1e-9 * outputs[0].abs().max()


def tied(net: nn.Module) -> nn.Module:
    """Draw the weights of each layer by its shape alone; norms have no shift yet."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            generator = torch.Generator().manual_seed(hash(tuple(module.weight.shape)) % 2**32)
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
    return net.double().train()


# --- what it builds -------------------------------------------------------------------------------


def test_a_path_equals_the_network_built_of_it(small: Space) -> None:
    space = Space(copy.deepcopy(small.model).double())
    model = space.model
    randomise_norms(model)
    model.eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    rng = np.random.default_rng(0)
    for architecture in [
        *(space.sample(rng) for _ in range(20)),
        point(*"nnnnnn"),
        point(*"nn3nn1"),
    ]:
        space.select(architecture)
        with torch.no_grad():
            path, built = model(x), space.build(architecture)(x)
        space.select(None)
        assert torch.equal(path, built)


def test_beginnings_that_paths_share_are_told_by_none_too(small: Space) -> None:
    """What walks a population from memory sees the decision of every edge, also one for none."""
    drawn = [point(*f"{a}{b}n3s{c}") for a in "n3" for b in "n1" for c in "np"]
    small.model.eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs: dict[tuple[bool, int], torch.Tensor] = {}
    for shared in (False, True):
        walk = PrefixWalk(small, shared=shared)
        with torch.no_grad(), walk.installed():
            walk.population(drawn, x, lambda i, out, s=shared: outputs.update({(s, i): out}))
    for i in range(len(drawn)):
        assert torch.equal(outputs[False, i], outputs[True, i])


@pytest.mark.parametrize("operations", ["nnnnnn", "nn3nn1", "3s13p1"])
def test_a_network_is_written_as_source(small: Space, operations: str) -> None:
    net = small.build(point(*operations)).eval()
    x = torch.randn(2, 3, 8, 8)
    names: dict[str, Any] = {"__file__": "model.py"}
    exec(write_source(net), names)
    twin = names["network"]().eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))


def test_nothing_is_done_for_none(small: Space) -> None:
    graph = small.build(point(*"nnn3nn")).get_submodule("stage1.0")
    assert isinstance(graph, fx.GraphModule)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    assert [name for name, _ in graph.named_children()] == ["edge03"]
    assert not [*small.build(point(*"nnnnnn")).get_submodule("stage1.0").children()]


@pytest.mark.parametrize("operations", ["nnnnnn", "nn3nnp", "nn3nn1", "n3nnnn", "ssssss"])
def test_networks_with_dead_parts_run_and_learn(small: Space, operations: str) -> None:
    net = small.build(point(*operations)).train()
    out = net(torch.randn(4, 3, 8, 8))
    assert out.shape == (4, 3)
    out.square().mean().backward()
    assert torch.isfinite(out).all()
    assert net.get_parameter("classifier.weight").grad is not None


def test_a_canonical_network_has_no_weight_that_nothing_reads(small: Space) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        net = small.build(small.canonical(small.sample(rng))).train()
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        unread = [n for n, p in net.named_parameters() if p.grad is None]
        assert [name for name in unread if "edge" in name] == []


def test_a_mix_weighs_the_operations_of_every_edge(small: Space) -> None:
    space = Space(copy.deepcopy(small.model).double().eval())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    mix: dict[str, dict[Any, Any]] = {edge: {"none": 1.0} for edge in EDGES}
    weight = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    mix["edge03"] = {"none": 1 - weight, "skip_connect": weight}
    space.select(mix)
    mixed = space.model.get_submodule("stage1.0")(x[:, :2])
    space.select(None)
    assert torch.equal(mixed, 0.25 * x[:, :2])
    (gradient,) = torch.autograd.grad(mixed.sum(), weight)
    assert torch.allclose(gradient, x[:, :2].sum())


@pytest.mark.parametrize("side", [7, 14, 30])
def test_sides_that_do_not_halve_are_rounded_up(small: Space, side: int) -> None:
    with torch.no_grad():
        assert small.build(point(*"ns13p1")).eval()(torch.zeros(1, 3, side, side)).shape == (1, 3)


def test_what_it_builds_is_an_ordinary_module(small: Space) -> None:
    net = small.build(point(*"ns13p1")).eval()
    assert {type(m).__module__.split(".")[0] for m in net.modules()} == {"torch"}
    saved = pickle.dumps(net)
    assert b"assay" not in saved
    x = torch.randn(3, 3, 8, 8)
    for twin in (copy.deepcopy(net), pickle.loads(saved)):
        assert torch.equal(twin(x), net(x))


def test_a_copy_of_the_model_keeps_its_choices(small: Space) -> None:
    twin = copy.deepcopy(small.model)
    assert Space(twin).fingerprint == small.fingerprint
    shared = {p.data_ptr() for p in twin.parameters()} & {
        p.data_ptr() for p in small.model.parameters()
    }
    assert not shared


def test_a_variant_has_fewer_cells(small: Space) -> None:
    other = cell(cells=2, channels=2).variant(cells=1)
    names = Counter(name.split(".")[0] for name, _ in other.model.named_parameters())
    assert (
        names["stage1"]
        == Counter(name.split(".")[0] for name, _ in small.model.named_parameters())["stage1"]
    )


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"cells": 0}, {"num_classes": 0}, {"input_shape": (3, 0, 8)}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidSetting, match=f"cell needs {next(iter(wrong))} of at least 1, not 0"
    ):
        cell(**wrong)
