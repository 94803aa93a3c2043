from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import fx, nn

from assay.zoo.blocks import (
    conv_norm_act,
    factorized_reduction,
    inverted_bottleneck,
    named,
    residual,
    wired,
)


def kinds(block: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in block]


def test_an_inverted_bottleneck_expands_filters_and_projects() -> None:
    block = inverted_bottleneck(8, 12, kernel=5, expansion=3, stride=2)
    norm_act = ["BatchNorm2d", "ReLU"]
    assert kinds(block) == ["Conv2d", *norm_act, "Conv2d", *norm_act, "Conv2d", "BatchNorm2d"]
    convs = [layer for layer in block if isinstance(layer, nn.Conv2d)]
    assert [tuple(c.weight.shape) for c in convs] == [(24, 8, 1, 1), (24, 1, 5, 5), (12, 24, 1, 1)]
    assert [c.groups for c in convs] == [1, 24, 1]
    assert all(c.bias is None for c in convs)
    assert block(torch.zeros(2, 8, 7, 7)).shape == (2, 12, 4, 4)


def test_without_expansion_there_is_no_layer_to_expand() -> None:
    block = inverted_bottleneck(8, 12, kernel=3, expansion=1)
    assert kinds(block) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert tuple(block[0].weight.shape) == (8, 1, 3, 3)


def test_a_residual_adds_its_input() -> None:
    body = nn.Conv2d(3, 3, 3, padding=1)
    net, x = residual(body), torch.randn(2, 3, 4, 4)
    assert isinstance(net, fx.GraphModule)
    assert torch.equal(net(x), x + body(x))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x), net(x))
        assert twin.get_parameter("body.weight").data_ptr() != body.weight.data_ptr()


def test_small_parts() -> None:
    assert kinds(nn.Sequential(*conv_norm_act(1, 2))) == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(nn.Sequential(*conv_norm_act(1, 2, act=False))) == ["Conv2d", "BatchNorm2d"]
    assert list(named(a=nn.ReLU(), b=nn.Tanh())._modules) == ["a", "b"]


@pytest.mark.parametrize("side", [4, 5])
def test_a_factorized_reduction_reads_two_diagonals(side: int) -> None:
    block = factorized_reduction(3, 6).eval()
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    here, there = block.get_parameter("here.weight"), block.get_parameter("there.weight")
    half = (side + 1) // 2
    padded = torch.zeros(2, 3, 2 * half + 1, 2 * half + 1)
    padded[..., :side, :side] = x.clamp_min(0)
    read = [padded[..., at::2, at::2][..., :half, :half] for at in (0, 1)]
    expected = [
        torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], pixels)
        for weight, pixels in zip((here, there), read)
    ]
    out = block.get_submodule("norm")(torch.cat(expected, 1))
    assert block(x).shape == (2, 6, half, half)
    torch.testing.assert_close(block(x), out)


def test_a_graph_calls_its_parts_by_name() -> None:
    def wire(graph: fx.Graph, x: fx.Node, y: fx.Node) -> fx.Node:
        return graph.call_function(torch.sub, (graph.call_module("twice", (x,)), y))

    made = wired(wire, "x", "y", twice=nn.Hardtanh(-2.0, 2.0))
    assert made(torch.tensor(5.0), y=torch.tensor(0.5)) == 1.5
    assert type(made).__module__.startswith("torch.")
