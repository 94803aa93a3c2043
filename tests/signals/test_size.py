"""Sizes against closed forms and the counts of `assay.hardware`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.hardware.count import count
from assay.zoo.cell import cell, from_arch_string
from assay.zoo.mobile import mobile
from tests.signals.nets import convs, linear, measured, normal


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True, dropout=0.0)
    return nn.Sequential(layer, nn.Linear(8, 2))


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def test_sizes_of_two_linear_layers() -> None:
    net, x = linear(normal(4, 3), normal(2, 4)), normal(6, 3)
    assert measured("params", net, x) == measured("macs", net, x) == 20
    assert measured("depth", net, x) == 2


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (convs().float(), (2, 4, 4)),
        (transformer(), (5, 8)),
        (mobile().fresh(mobile().sample(derive(0, "size")), 0), (1, 8, 8)),
        (Reads(), (5, 3)),
        (Reads().double(), (5, 3)),
    ],
    ids=["convs", "transformer", "mobile", "lstm", "lstm in parts"],
)
def test_macs_and_params_are_those_counted_elsewhere(net: nn.Module, shape: tuple[int]) -> None:
    x = torch.randn(4, *shape).to(next(net.parameters()).dtype)
    counts = count(net, x[:1])
    assert measured("macs", net, x) == counts.macs
    assert measured("params", net, x) == counts.params


def test_depth_of_cells() -> None:
    space = cell(input_shape=(3, 8, 8), channels=4, cells=2)
    chain = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    skip = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    none = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    x = torch.randn(4, 3, 8, 8)
    # The stem, two convolutions in each of two reductions, the classifier; three in each cell.
    for text, expected in ((chain, 6 + 6 * 3), (skip, 6), (none, 0)):
        network = space.fresh(from_arch_string(text), 0)
        assert measured("depth", network, x) == expected


def test_depth_counts_weights_and_not_products_of_values() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, words: Tensor) -> Tensor:
            x = self.embed(words)
            return self.head((x @ x.mT).softmax(-1) @ x).relu_().mean(1)

    words = torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(0))
    assert measured("depth", Attention(), words) == 1
    assert measured("depth", transformer(), torch.randn(4, 5, 8)) == 5


def test_depth_is_that_of_the_longest_way() -> None:
    class Ways(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            long = self.layer(self.layer(x).view(-1, 3).mul_(2.0))
            return {"sum": x + long, "short": self.layer(x)}["sum"]

    assert measured("depth", Ways(), torch.randn(4, 3)) == 2


def test_what_has_no_formula_is_refused_by_name() -> None:
    net = nn.Bilinear(3, 3, 2)
    pair = (torch.randn(4, 3), torch.randn(4, 3))
    with pytest.raises(InvalidSetting, match="the MACs of _trilinear have no formula"):
        measured("macs", net, pair)
    assert measured("depth", net, pair) == 1
