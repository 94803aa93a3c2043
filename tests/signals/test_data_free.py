"""SynFlow's laws of conservation, Zen's invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from assay.errors import InvalidSetting, NotFinite
from tests.signals.nets import convs, linear, measured, normal


def flow(net: nn.Module, shape: tuple[int, ...]) -> float:
    """Return R: the sum of outputs for ones, connections by absolute value and nothing else."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        layer.weight.data.abs_()
        if layer.bias is not None:
            layer.bias.data.zero_()
    kept = [m for m in net if not isinstance(m, nn.BatchNorm2d)]
    ones = torch.ones(1, *shape, dtype=torch.float64)
    return float(nn.Sequential(*kept)(ones).detach().sum())


def test_synflow_of_two_linear_layers() -> None:
    one, two = normal(4, 3), normal(2, 4, seed=1)
    paths = float((two.abs() @ one.abs()).sum())
    assert measured("synflow", linear(one, two), normal(4, 3)) == pytest.approx(2 * paths)


def test_every_layer_passes_on_the_same_flow() -> None:
    net = convs()
    found = measured("synflow", net, normal(4, 2, 4, 4))
    assert found == pytest.approx(3 * flow(net, (2, 4, 4)), rel=1e-12)


def test_a_module_at_two_places_has_its_own_weights_back() -> None:
    block = nn.Linear(4, 4)
    net = nn.Sequential(block, nn.ReLU(), nn.Sequential(block, nn.ReLU()), nn.Linear(4, 2)).double()
    weight = block.weight
    assert measured("synflow", net, normal(6, 4)) > 0
    assert block.weight is weight


def test_synflow_is_positive_and_sees_no_data() -> None:
    net = convs()
    found = {measured("synflow", net, normal(n, 2, 4, 4, seed=n)) for n in (4, 6, 9)}
    assert len(found) == 1
    assert found.pop() > 0


def test_synflow_sees_no_sign_no_norm_and_no_bias() -> None:
    net, x = convs(), normal(4, 2, 4, 4)
    before = measured("synflow", net, x)
    net[0].weight.data.neg_()
    net[1].weight.data.fill_(7.0)
    net[1].running_var.fill_(9.0)
    net[3].bias.data.fill_(5.0)
    assert measured("synflow", net, x) == before


def test_synflow_of_float32_is_computed_in_float64() -> None:
    net, x = convs().float(), normal(4, 2, 4, 4).float()
    assert measured("synflow", net, x) == measured("synflow", net.double(), x.double())


def test_synflow_that_overflows_is_refused() -> None:
    with pytest.raises(NotFinite, match="'synflow' is inf"):
        measured(
            "synflow", linear(*[torch.full((1, 1), 1e200, dtype=torch.float64)] * 2), normal(4, 1)
        )


def test_synflow_without_weights_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="no weights to flow through"):
        measured("synflow", nn.Sequential(nn.Tanh()), normal(4, 1))


def test_zen_sees_neither_weights_nor_data() -> None:
    net = convs()
    before = measured("zen", net, normal(4, 2, 4, 4))
    net[0].weight.data.mul_(3.0)
    assert measured("zen", net, normal(6, 2, 4, 4, seed=1)) == before
    assert measured("zen", net, normal(4, 2, 4, 4), seed=1) != before


def test_zen_puts_back_what_norms_take_out() -> None:
    """With one channel and no activation it is the same with norms as without."""

    def net(*, norms: bool) -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(3):
            layers.append(nn.Conv2d(1, 1, 3, padding=1))
            layers += [nn.BatchNorm2d(1, eps=1e-300)] if norms else []
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 2)).double()

    x = normal(4, 1, 4, 4)
    assert measured("zen", net(norms=True), x) == pytest.approx(
        measured("zen", net(norms=False), x), abs=1e-9
    )


def test_zen_of_one_linear_layer_is_that_of_its_weights() -> None:
    """log E||0.01 W e|| of Gaussian W: close to log 0.01 + log of sqrt(in * out)."""
    wide = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 2))
    expected = math.log(0.01 * math.sqrt(200 * 300))
    assert measured("zen", wide, normal(4, 200).float()) == pytest.approx(expected, abs=0.05)


def test_zen_wants_a_feature_map_and_floats() -> None:
    with pytest.raises(InvalidSetting, match="no feature map"):
        measured("zen", nn.Sequential(nn.Linear(3, 2)), normal(4, 3).float())
    words = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    for name in ("zen", "synflow"):
        with pytest.raises(InvalidSetting, match="reads integers"):
            measured(name, words, torch.ones(4, 2, dtype=torch.long))


def test_a_norms_own_forward_is_put_back() -> None:
    net = convs()
    own = net[1].forward

    def forward(x: Tensor) -> Tensor:
        return own(x)

    net[1].forward = forward  # type: ignore[method-assign]
    measured("synflow", net, normal(4, 2, 4, 4))
    assert net[1].forward is forward
    assert "forward" not in vars(net[4])


def test_a_norm_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self, net: nn.Sequential, *, named: bool) -> None:
            super().__init__()
            self.net, self.named = net, named

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.net:
                norm = isinstance(layer, nn.BatchNorm2d)
                x = layer(input=x) if self.named and norm else layer(x)
            return x

    x = normal(4, 2, 4, 4)
    for name in ("synflow", "zen"):
        by_name, by_place = (measured(name, Named(convs(), named=n), x) for n in (True, False))
        assert by_name == by_place
