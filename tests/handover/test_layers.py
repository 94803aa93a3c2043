from __future__ import annotations

import operator

import pytest
from torch import fx, nn

from assay.errors import ExportRefused
from assay.handover.layers import read_layers
from assay.handover.parts import find_parts, write_layer
from assay.zoo.blocks import inverted_bottleneck, residual


@pytest.mark.parametrize(
    ("layer", "written"),
    [
        (nn.Conv2d(3, 8, 3), "nn.Conv2d(3, 8, 3)"),
        (nn.Conv2d(4, 8, (1, 3), padding="same"), "nn.Conv2d(4, 8, (1, 3), padding='same')"),
        (
            nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=4, bias=False),
            "nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=4, bias=False)",
        ),
        (nn.Conv1d(1, 1, 1, dilation=2), "nn.Conv1d(1, 1, 1, dilation=2)"),
        (nn.Linear(4, 2, bias=False), "nn.Linear(4, 2, bias=False)"),
        (nn.BatchNorm2d(8), "nn.BatchNorm2d(8)"),
        (nn.BatchNorm2d(8, eps=1e-3, momentum=None), "nn.BatchNorm2d(8, eps=0.001, momentum=None)"),
        (nn.LayerNorm((4, 4)), "nn.LayerNorm((4, 4))"),
        (nn.GroupNorm(2, 8), "nn.GroupNorm(2, 8)"),
        (nn.MaxPool2d(2), "nn.MaxPool2d(2, stride=2)"),
        (nn.AvgPool2d(3, 2, 1), "nn.AvgPool2d(3, stride=2, padding=1)"),
        (nn.AdaptiveAvgPool2d(1), "nn.AdaptiveAvgPool2d(1)"),
        (nn.AdaptiveAvgPool2d((None, 2)), "nn.AdaptiveAvgPool2d((None, 2))"),
        (nn.Flatten(), "nn.Flatten()"),
        (nn.ReLU(inplace=True), "nn.ReLU(inplace=True)"),
        (nn.GELU("tanh"), "nn.GELU(approximate='tanh')"),
        (nn.Softmax(1), "nn.Softmax(dim=1)"),
        (nn.Dropout(0.2), "nn.Dropout(p=0.2)"),
        (nn.PReLU(4), "nn.PReLU(num_parameters=4)"),
        (nn.Embedding(9, 4), "nn.Embedding(9, 4)"),
        (nn.Identity(3, some="thing"), "nn.Identity()"),
    ],
)
def test_a_layer_is_written_as_it_was_made(layer: nn.Module, written: str) -> None:
    assert write_layer(read_layers(layer)) == written
    assert str(eval(written)) == str(layer)


def test_a_layer_that_stands_in_two_places_is_made_in_both() -> None:
    relu, body = nn.ReLU(), nn.Sequential(nn.Tanh())
    made = read_layers(nn.Sequential(relu, nn.Linear(3, 3), relu, body, body))
    assert [child.kind for child in made.children.values()] == [
        "ReLU", "Linear", "ReLU", "Sequential", "Sequential",
    ]  # fmt: skip


class Own(nn.Module):
    pass


class OwnLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.ReLU(), Own()), "no source for 1, a Own: no layer of torch.nn"),
        (OwnLinear(1, 1), "no source for the network, a OwnLinear"),
        (nn.MultiheadAttention(4, 2), "a MultiheadAttention: no layer of torch.nn, Sequential"),
        (nn.LSTM(3, 4), r"a LSTM: its constructor hides its parameters in \*args"),
    ],
)
def test_what_cannot_be_written_is_refused_by_its_path(net: nn.Module, said: str) -> None:
    with pytest.raises(ExportRefused, match=said):
        read_layers(net)


def test_a_graph_with_parameters_of_its_own_is_refused() -> None:
    root, graph = nn.Module(), fx.Graph()
    root.scale = nn.Parameter(nn.Linear(1, 1).bias.detach())
    graph.output(
        graph.call_function(operator.mul, (graph.placeholder("x"), graph.get_attr("scale")))
    )
    with pytest.raises(ExportRefused, match="a graph with parameters of its own"):
        read_layers(fx.GraphModule(root, graph))


def parts_of(*blocks: nn.Module) -> list[str]:
    return [part.source() for part in find_parts(read_layers(nn.Sequential(*blocks))).values()]


def test_blocks_that_recur_become_a_function() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 5, padding=2, bias=False, stride=2), nn.ReLU()),
    )
    (part,) = find_parts(read_layers(net)).values()
    assert part.source().splitlines() == [
        "def conv_relu(channels, out, kernel_size, stride=1):",
        "    return nn.Sequential(",
        "        nn.Conv2d(channels, out, kernel_size, stride=stride, padding=kernel_size // 2, "
        "bias=False),",
        "        nn.ReLU(),",
        "    )",
    ]
    calls = [part.call(block) for block in read_layers(net).children.values()]
    assert calls == [
        "conv_relu(1, 4, kernel_size=3)",
        "conv_relu(4, 8, kernel_size=5, stride=2)",
    ]


def test_what_always_changes_together_is_one_parameter() -> None:
    blocks = [
        inverted_bottleneck(4, 6, kernel=3, expansion=3, stride=2),
        residual(inverted_bottleneck(6, 6, kernel=7, expansion=3)),
        inverted_bottleneck(6, 10, kernel=3, expansion=3),
    ]
    (source,) = parts_of(*blocks)
    assert source.startswith("def block(channels, hidden, out, kernel_size, stride=1):")
    assert source.count("hidden") == 8
    assert max(map(len, source.splitlines())) <= 100


def test_equal_blocks_need_no_parameter() -> None:
    (source,) = parts_of(*[nn.Sequential(nn.ReLU(), nn.Dropout(0.1)) for _ in range(3)])
    assert source.splitlines()[0] == "def relu_dropout():"
    assert "nn.Dropout(p=0.1)" in source


def test_functions_have_names_of_their_own() -> None:
    relus = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)]
    deep = [nn.Sequential(*[nn.ReLU() for _ in range(n)]) for n in (4, 4, 5, 5)]
    norms = [nn.Sequential(norm, nn.Tanh()) for _ in range(2)
             for norm in (nn.BatchNorm1d(4), nn.LayerNorm(4))]  # fmt: skip
    heads = [source.partition("(")[0] for source in parts_of(*relus, *deep, *norms)]
    assert heads == [
        "def linear_relu", "def block", "def block2", "def norm_tanh", "def norm_tanh2",
    ]  # fmt: skip


def test_what_stands_once_stays_where_it_is() -> None:
    assert parts_of(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.ReLU())) == []
