"""AZ-NAS's proxies on feature maps of known spectrum and parts of known Jacobian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.errors import InvalidSetting, NotFinite
from tests.signals.nets import linear, measured, normal


def spread(*variances: float) -> Tensor:
    """Return `[16, channels]` of uncorrelated columns with these variances and a common mean."""
    rows = torch.from_numpy(np.linalg.qr(normal(16, 1 + len(variances)).numpy())[0])
    signs = rows - rows.mean(0)
    signs = torch.from_numpy(np.linalg.qr(signs.numpy())[0])[:, : len(variances)]
    return signs * torch.tensor(variances, dtype=torch.float64).sqrt() + 5.0


def entropy(*variances: float) -> float:
    shares = np.array(variances) / sum(variances)
    return -float((shares * np.log(shares)).sum())


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def test_expressivity_is_the_entropy_of_the_spectrum() -> None:
    net, x = linear(eye(3), eye(3)), spread(4.0, 1.0, 1.0)
    assert measured("expressivity", net, x) == pytest.approx(entropy(4, 1, 1))


def test_expressivity_adds_up_maps_and_progressivity_is_the_smallest_rise() -> None:
    narrow, wide = eye(3)[:1], torch.cat([eye(1), eye(1)])
    net, x = linear(eye(3), narrow, wide, eye(2)), spread(4.0, 1.0, 1.0)
    assert measured("expressivity", net, x) == pytest.approx(entropy(4, 1, 1))
    assert measured("progressivity", net, x) == pytest.approx(-entropy(4, 1, 1))


def test_progressivity_of_a_network_that_spreads_out() -> None:
    flat = torch.diag(torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64))
    net, x = linear(eye(3), flat, eye(3)), spread(4.0, 1.0, 1.0)
    assert measured("progressivity", net, x) == pytest.approx(math.log(3) - entropy(4, 1, 1))


def test_positions_are_samples_of_a_map() -> None:
    conv, x = nn.Conv2d(3, 3, 1, bias=False).double(), spread(4.0, 1.0, 1.0)
    conv.weight.data.copy_(eye(3)[:, :, None, None])
    net = nn.Sequential(conv, nn.Flatten(), nn.Linear(12, 1).double())
    images = x.reshape(4, 2, 2, 3).movedim(-1, 1)
    assert measured("expressivity", net, images) == pytest.approx(entropy(4, 1, 1))


def test_more_channels_than_samples() -> None:
    wide = normal(50, 3)
    net, x = linear(wide, eye(50)), normal(8, 3)
    rows = x @ wide.T
    variances = np.linalg.eigvalsh(np.cov(rows.numpy().T))[-3:]
    assert measured("expressivity", net, x) == pytest.approx(entropy(*variances))


def test_a_constant_map_has_no_entropy() -> None:
    net = linear(eye(3), eye(3))
    assert measured("expressivity", net, torch.full((6, 3), 0.1).double()) == 0.0


def test_trainability_of_a_scale() -> None:
    for scale in (1.0, 0.5, 3.0):
        net = linear(eye(1), eye(1) * scale, eye(1))
        assert measured("trainability", net, normal(6, 1)) == pytest.approx(2 - scale - 1 / scale)


def test_trainability_takes_neighbours_for_channels() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 2, stride=2, bias=False), nn.Flatten(),
        nn.Linear(4, 1),
    ).double()  # fmt: skip
    net[1].weight.data.fill_(0.3)  # the signs come back on four neighbours: a singular value of 0.6
    expected = 2 - 0.6 - 1 / 0.6
    assert measured("trainability", net, normal(6, 1, 4, 4)) == pytest.approx(expected)


def test_trainability_where_positions_do_not_divide_and_where_they_end() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 3, stride=2, bias=False, padding=1),
        nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 1),
    ).double()  # fmt: skip
    assert measured("trainability", net, normal(6, 1, 7, 7)) < 0


def test_trainability_tells_the_jacobian_of_a_layer() -> None:
    """The mean of W'vv' over many samples is W'."""
    w = normal(3, 4)
    net, x = linear(eye(4), w, eye(3)), normal(20_000, 4)
    largest = float(torch.linalg.matrix_norm(w, 2))
    assert measured("trainability", net, x) == pytest.approx(2 - largest - 1 / largest, abs=0.05)


def test_channels_come_last_behind_linear_layers() -> None:
    """Of words `[N, T, C]`: the same as of as many more samples."""
    net, x = linear(eye(3), normal(3, 3), eye(3)), spread(4.0, 1.0, 1.0)
    assert measured("expressivity", net, x.reshape(4, 4, 3)) == pytest.approx(
        measured("expressivity", net, x)
    )


def test_a_part_that_nothing_passes_is_refused() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unread = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    net = nn.Sequential(nn.Linear(2, 2), Cut(), nn.Linear(2, 2)).double()
    with pytest.raises(NotFinite, match="'trainability' is -inf"):
        measured("trainability", net, normal(6, 2))


def test_too_few_maps_are_refused() -> None:
    for name, net in (
        ("expressivity", linear(eye(2))),
        ("progressivity", linear(eye(2), eye(2))),
        ("trainability", linear(eye(2), eye(2))),
    ):
        with pytest.raises(InvalidSetting, match=f"'{name}' needs . feature maps or more"):
            measured(name, net, normal(6, 2))
