"""Morphs on every ready space: what grows computes the same, what cannot is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.errors import InvalidSetting, UnsupportedLayer
from assay.space.space import Space
from assay.weights.morph import (
    add_branch,
    assert_same_function,
    deepen,
    grow_kernel,
    inherit,
    plan,
    thin,
    widen,
)
from assay.weights.morph.flow import trace
from assay.weights.morph.steps import origins
from assay.zoo import SPACES
from assay.zoo.cell import cell
from assay.zoo.conv import conv
from assay.zoo.darts import darts
from assay.zoo.enas import macro, micro
from assay.zoo.memory_bank import memory_bank
from assay.zoo.mobile import Stage, mobile
from tests.space.spaces import randomise_norms
from tests.weights.morph import nets

TINY: dict[str, Callable[[], Space]] = {
    "conv": lambda: conv(
        input_shape=(1, 8, 8), widths=((3, 5), (4, 6)), blocks=2, stem_stride=1,
        operations=("conv3", "sep5", "skip"),
    ),
    "cell": lambda: cell(input_shape=(1, 8, 8), channels=2, cells=1),
    "mobile": lambda: mobile(
        stages=(Stage((4, 6), (1, 2)), Stage((6, 8), (1, 2), stride=2)), stem=4, head=8,
        kernels=(3, 5),
    ),
    "darts": lambda: darts(input_shape=(1, 8, 8), channels=2, cells=3, nodes=2),
    "enas-macro": lambda: macro(layers=3, channels=2),
    "enas-micro": lambda: micro(nodes=2, cells=1, channels=2),
    "memory-bank": lambda: memory_bank(
        widths=(4, 6), depth=(1, 2), banks=2, units=(1, 2), kernels=(1, 3)
    ),
}  # fmt: skip

PRESERVED = {
    "conv": {"widen", "deepen"},
    "cell": set(),
    "mobile": {"widen", "deepen"},
    "darts": set(),
    "enas-macro": set(),
    "enas-micro": set(),
    "memory-bank": {"widen", "grow_kernel"},
}
"""What keeps the function from one architecture of a space to another; the rest is exchanged."""

GROWS = ("widen", "grow_kernel", "deepen")
X = nets.images(side=8, channels=1)


def network(made: Space, point: Architecture) -> nn.Module:
    model = made.fresh(point, 0).double().eval()
    randomise_norms(model)
    return model


def some(paths: Sequence[str], num: int) -> list[str]:
    """Return up to `num` of them, evenly spaced."""
    at = np.unique(np.linspace(0, len(paths) - 1, num).round().astype(int)) if paths else []
    return [paths[int(i)] for i in at]


def grown(made: Space, point: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Yield a point that differs by one growing step, for the first two steps of each kind."""
    seen: list[str] = []
    for label in point:
        for option in made.choices[label].options:
            child = made.complete({**point, label: option}, lambda c: c.options[0])
            for kind in [m.kind for m in plan(made, point, child) if m.kind in GROWS]:
                if seen.count(kind) < 2:
                    seen.append(kind)
                    yield kind, child


def test_every_ready_space_is_here():
    assert set(TINY) == set(PRESERVED) == set(SPACES)


@pytest.mark.parametrize("name", TINY)
def test_every_layer_of_a_built_network_has_its_place_in_the_model(name):
    """Also where a cell builds itself anew, and where an edge is part of several options."""
    made, rng = TINY[name](), np.random.default_rng(2)
    point = made.sample(rng)
    built, where = made.build(point), origins(made, point)
    parts = dict(made.model.named_modules())
    layers = {path: m for path, m in built.named_modules() if list(m.parameters(recurse=False))}
    assert layers
    for path, layer in layers.items():
        assert type(parts[where[path]]) is type(layer), path
        for own, tensor in layer.state_dict().items():
            large = parts[where[path]].state_dict()[own]
            assert all(a <= b for a, b in zip(tensor.shape, large.shape)), path


@pytest.mark.parametrize("name", TINY)
def test_layers_grow_and_compute_the_same_or_are_refused_by_name(name):
    made, rng = TINY[name](), np.random.default_rng(0)
    model = network(made, made.sample(rng))
    flow = trace(model)
    able = flow.widenable()
    assert len(able) >= 5
    for path in some(able, 4):
        run = flow.run(path)
        step = run.times * run.group.root.parts
        wide = widen(model, path, run.times * run.group.size + step, rng=rng)
        assert_same_function(model, wide, X, tolerance=1e-9)
    refused = [path for path in flow.layers if path not in able]
    assert "classifier" in refused
    for path in {*some(refused, 3), "classifier"}:
        with pytest.raises((UnsupportedLayer, InvalidSetting), match=re.escape(repr(path))):
            widen(model, path, 10**3, rng=rng)
    once = [p for p in able if len(flow.outputs[p]) == 1 and isinstance(at(model, p), nn.Conv2d)]
    for path in some(once, 2):
        assert_same_function(model, deepen(model, path, batch=X), X, tolerance=1e-9)
        assert_same_function(model, add_branch(model, path, rng=rng), X, tolerance=1e-9)
        side = max(at(model, path).kernel_size) + 2
        assert_same_function(model, grow_kernel(model, path, side), X, tolerance=1e-9)


def at(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path)


@pytest.mark.parametrize("name", TINY)
def test_a_grown_architecture_computes_what_its_parent_does(name):
    made = TINY[name]()
    point = made.complete({}, lambda choice: choice.options[0])
    if name == "conv":
        skips = dict.fromkeys((k for k in made.choices if k.startswith("stage")), "skip")
        point = made.complete(skips, lambda c: c.options[0])
    parent, kept = network(made, point), set()
    for kind, child in grown(made, point):
        heir = inherit(made, point, parent, child, rng=np.random.default_rng(0), example=X)
        told = {m.kind: m.preserving for m in heir.morphs}
        if all(told.values()):
            kept.add(kind)
            assert_same_function(parent, heir.network, X, tolerance=1e-9)
    assert kept == PRESERVED[name]


@pytest.mark.parametrize("name", TINY)
def test_any_architecture_follows_any_other(name):
    made, rng = TINY[name](), np.random.default_rng(1)
    point = made.sample(rng)
    parent = network(made, point).float()
    for _ in range(2):
        child = made.sample(rng)
        heir = inherit(made, point, parent, child, rng=rng, example=X.float())
        assert {k: t.shape for k, t in heir.network.state_dict().items()} == {
            k: t.shape for k, t in made.build(child).state_dict().items()
        }
        assert {p.dtype for p in heir.network.parameters()} == {torch.float32}
        assert heir.network(X.float()).isfinite().all()
        point, parent = child, heir.network


@pytest.mark.parametrize("name", TINY)
def test_networks_of_the_ready_spaces_are_all_cut_or_refused_by_name(name):
    def size(network):
        return sum(p.numel() for p in network.parameters())

    space, rng, x = TINY[name](), np.random.default_rng(0), torch.rand(4, 1, 8, 8)
    networks = [space.build(space.sample(rng)) for _ in range(8)]
    refused = []
    for network in networks:
        try:
            thinner = thin(network, 0.5)
        except UnsupportedLayer as error:
            refused.append(str(error))
        else:
            assert thinner(x).shape == network(x).shape
            assert size(thinner) < size(network)
    assert bool(refused) == (name in {"darts", "enas-macro", "enas-micro"})
    assert all("cannot have fewer channels: " in why for why in refused)
