"""NASWOT against enumerated codes, Jacobian covariance against a given Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, NotFinite
from assay.signals.kernels import spectrum
from tests.signals.nets import convs, measured, normal


class Functional(nn.Module):
    """The same ReLUs as functions: one plain, one in place, one clipped at 6."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(net[i] for i in (0, 2, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.layers[0](x))
        x = F.relu_(self.layers[1](x))
        return self.layers[3](F.relu6(self.layers[2](x)))


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 4),
        nn.ReLU6(), nn.Linear(4, 2),
    ).double()  # fmt: skip


def codes(network: nn.Sequential, x: Tensor) -> np.ndarray:
    """Return which ReLUs are on, `[N, units]`."""
    found = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            found.append(x > 0)
    return torch.cat(found, 1).numpy()


def test_naswot_of_enumerated_codes() -> None:
    network, x = net(), 3 * normal(6, 2)
    on = codes(network, x)
    kernel = np.array([[float((a == b).sum()) for b in on] for a in on])
    sign, expected = np.linalg.slogdet(kernel)
    assert sign == 1
    assert measured("naswot", network, x) == pytest.approx(expected)


def test_naswot_finds_relus_that_are_functions() -> None:
    network, x = net(), 3 * normal(6, 2)
    assert measured("naswot", Functional(network), x) == measured("naswot", network, x)


def test_naswot_reads_images_too() -> None:
    network, x = convs(), normal(8, 2, 4, 4)
    halves = []
    for half in x.chunk(2):
        first = network[:3](half)
        halves.append(torch.cat([first.flatten(1), network[3:6](first).flatten(1)], 1) > 0)
    on = torch.cat(halves).numpy()
    kernel = np.array([[float((a == b).sum()) for b in on] for a in on])
    assert measured("naswot", network, x) == pytest.approx(np.linalg.slogdet(kernel)[1])


def test_naswot_refuses_equal_codes_and_networks_without_relu() -> None:
    with pytest.raises(NotFinite, match="logarithm of 0: 4 samples"):
        measured("naswot", net(), normal(2, 2).repeat(2, 1))
    with pytest.raises(NotFinite, match="logarithm of 0: 20 samples"):
        measured("naswot", net(), 3 * normal(20, 2))
    with pytest.raises(InvalidSetting, match="has no ReLU"):
        measured("naswot", nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double(), normal(4, 2))


class Squares(nn.Module):
    """Its outputs are half the squares of its inputs, so that its Jacobian is its inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1).square() / 2


def test_jacob_cov_of_a_given_jacobian() -> None:
    x, y = normal(6, 5), normal(6, 7, seed=1)
    v = np.linalg.eigvalsh(np.corrcoef(torch.cat([x, y], 1).numpy()))
    expected = -np.sum(np.log(v + 1e-5) + 1 / (v + 1e-5))
    assert measured("jacob_cov", Squares(), (x, y)) == pytest.approx(expected, rel=1e-9)
    by_name = {"y": y, "x": x}
    assert measured("jacob_cov", Squares(), by_name) == pytest.approx(expected, rel=1e-9)


def test_jacob_cov_prefers_samples_that_are_told_apart() -> None:
    apart, alike = normal(6, 40), normal(1, 40) + 0.1 * normal(6, 40, seed=1)
    y = normal(6, 1)
    assert measured("jacob_cov", Squares(), (apart, y)) > measured(
        "jacob_cov", Squares(), (alike, y)
    )


def test_jacob_cov_refuses_words_and_gradients_that_do_not_vary() -> None:
    words = nn.Sequential(nn.Embedding(5, 3), nn.Flatten())
    with pytest.raises(InvalidSetting, match="have no gradient"):
        measured("jacob_cov", words, torch.ones(4, 2, dtype=torch.long))
    with pytest.raises(NotFinite, match="'jacob_cov' is nan"):
        measured("jacob_cov", Squares(), (torch.ones(4, 3).double(), torch.ones(4, 1).double()))


def test_what_is_not_finite_has_no_spectrum() -> None:
    assert spectrum(torch.full((2, 2), torch.inf)).isnan().all()
    assert spectrum(torch.eye(2)).tolist() == [1.0, 1.0]
