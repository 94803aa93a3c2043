"""Which modules are parts, and what they hand on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.signals.blocks import feature_maps, listening, parts
from assay.zoo.cell import cell, from_arch_string
from assay.zoo.mobile import mobile
from tests.signals.nets import convs


def maps(net: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    with listening(parts(net)) as calls:
        net(x)
    return [tuple(m.tensor.shape) for m in feature_maps(calls)]


def test_stages_are_opened_and_blocks_are_not() -> None:
    block = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(block, nn.Tanh()), nn.Linear(3, 2))
    assert parts(net) == [net[0], block, net[1][1], net[2]]


def test_lists_are_opened_and_a_network_around_a_network_too() -> None:
    net = nn.Module()
    net.inner = nn.Module()
    net.inner.stem = nn.Linear(3, 3)
    net.inner.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    assert parts(net) == [net.inner.stem, *net.inner.blocks]
    assert parts(nn.Linear(3, 3)) == []


def test_norms_and_activations_belong_to_the_part_before_and_pooling_to_none() -> None:
    net, x = convs(), torch.randn(4, 2, 4, 4, dtype=torch.float64)
    with listening(parts(net)) as calls:
        net(x)
    first, second = feature_maps(calls)
    assert first.tensor is calls[2][1]
    assert second.tensor is calls[5][1]
    assert tuple(second.tensor.shape) == (4, 4, 1, 1)


def test_the_cells_of_a_network() -> None:
    space = cell(input_shape=(3, 8, 8), channels=4, cells=2)
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    net = space.fresh(from_arch_string(text), 0)
    expected = [(4, 4, 8, 8)] * 3 + [(4, 8, 4, 4)] * 3 + [(4, 16, 2, 2)] * 3
    assert maps(net, torch.randn(4, 3, 8, 8)) == expected


def test_the_blocks_of_a_mobile_network() -> None:
    space = mobile()
    net = space.fresh(space.largest(), 0)
    shapes = maps(net, torch.randn(4, 1, 8, 8))
    stem, stages, head = (16, 8, 8), ((24, 8, 8), (32, 4, 4), (56, 2, 2)), (112, 2, 2)
    expected = [stem, *(stage for stage in stages for _ in range(3)), head]
    assert shapes == [(4, *shape) for shape in expected]


def test_outputs_without_channels_are_passed_over() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Flatten(0), nn.Unflatten(0, (4, 3)), nn.Linear(3, 2))
    assert maps(net, torch.randn(4, 3)) == [(4, 3)]


def test_hooks_are_taken_away() -> None:
    net = convs()
    maps(net, torch.randn(4, 2, 4, 4, dtype=torch.float64))
    assert not any(m._forward_hooks for m in net.modules())
