from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import UnsupportedLayer
from assay.weights.morph.flow import trace
from tests.weights.morph import nets


class Between(nn.Module):
    """A convolution, something, and a layer that reads it."""

    def __init__(self, act, last: nn.Module | None = None, **parts: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.last = last if last is not None else nn.Conv2d(4, 3, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.act = act
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self, x, self.first(x)))


def fixed(act, **parts) -> list[str]:
    return trace(Between(act, **parts)).run("first").group.root.fixed


FOLLOWED = [
    lambda m, x, y: y * 2 + 1,
    lambda m, x, y: F.dropout(y.contiguous(), 0.1, m.training),
    lambda m, x, y: y - y.mean((-1, -2), keepdim=True),
    lambda m, x, y: y * torch.sigmoid(y.mean((2, 3)).unsqueeze(-1).unsqueeze(3)),
    lambda m, x, y: F.interpolate(y, scale_factor=2) / y.shape[1],
    lambda m, x, y: torch.maximum(y.clamp(0, 1), F.leaky_relu(y, inplace=False)),
]
REFUSED = [
    (lambda m, x, y: y.softmax(1), "softmax has no rule"),
    (lambda m, x, y: y.transpose(1, 2).transpose(1, 2), "transpose has no rule"),
    (lambda m, x, y: y * m.scale, "mul meets a tensor whose channels are given"),
    (lambda m, x, y: y + x.mean(1, keepdim=True), "add meets a tensor whose channels are given"),
    (lambda m, x, y: y + y.mean(1, keepdim=True), "mean has no rule"),
    (lambda m, x, y: y[:, :4], "getitem has no rule"),
    (lambda m, x, y: y.reshape(-1, 4, 6, 6), "reshape has no rule"),
    (lambda m, x, y: torch.cat([y, x], 1)[:, :4], "cat has no rule"),
    (lambda m, x, y: torch.cat([y, y], 2), None),
]


@pytest.mark.parametrize("act", FOLLOWED)
def test_what_is_followed(act):
    assert fixed(act) == []


@pytest.mark.parametrize(("act", "why"), REFUSED)
def test_what_is_not_followed_is_fixed_and_named(act, why):
    found = fixed(act)
    assert found
    assert why is None or found[0] == why


def test_layers_that_fix_are_named():
    norm = fixed(lambda m, x, y: m.norm(y), norm=nn.GroupNorm(2, 4))
    assert norm == ["norm (GroupNorm) averages over them, and copies count twice"]
    head = trace(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    assert head.run("0").group.root.fixed == [
        "1 (LayerNorm) averages over them, and copies count twice"
    ]
    attention = trace(nn.Sequential(nn.Linear(2, 4), nn.Softmax(-1), nn.Linear(4, 2)))
    assert attention.run("0").group.root.fixed == ["1 (Softmax) has no rule"]


def test_areas_of_two_flattens_are_not_guessed():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 45, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.head(torch.cat([y.flatten(1), F.max_pool2d(y, 2).flatten(1)], 1))

    assert "layout that cannot be followed" in trace(Two()).run("conv").group.root.fixed[0]


def test_shared_layers_and_shared_tensors():
    assert "twice" in trace(nets.MLP()).widenable()
    layer = nn.Linear(4, 4)
    flow = trace(nn.Sequential(nn.Linear(2, 4), layer, nn.ReLU(), layer, nn.Linear(4, 3)))
    assert flow.run("0").group.root is flow.run("1").group.root
    tied = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(4, 2)
    )
    tied[3].weight = tied[0].weight
    assert trace(tied).run("0").group.root.fixed == ["0 and 3 share a tensor"]
    siamese = trace(Between(lambda m, x, y: y + m.first(x)))
    assert siamese.widenable() == ["first"]
    other = trace(Between(lambda m, x, y: m.again(m.first(x)) + m.again(x.mean(1, keepdim=True)),
                          again=nn.BatchNorm2d(4)))  # fmt: skip
    assert "called on different channels" in other.run("first").group.root.fixed[0]


def test_a_forward_that_looks_at_its_tensors_is_refused():
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedLayer, match=r"Looks cannot be traced by torch\.fx \(symbolic"):
        trace(Looks())


class Rows(nn.Module):
    """Tokens `[N, rows, channels]` of as many rows as channels, and a norm of dimension 1."""

    def __init__(self, act, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), norm, nn.Linear(4, 2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.last(self.norm(self.first(x)).relu()))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.PReLU])
@pytest.mark.parametrize(
    "act",
    [
        lambda y: y.sum(1), lambda y: y.mean(dim=-2), lambda y: y[:, 0],
        lambda y: y.transpose(1, 2), lambda y: y.permute(0, 2, 1),
    ],
)  # fmt: skip
def test_channels_behind_rows_are_not_what_a_norm_of_dimension_1_takes(act, norm):
    model = Rows(act, norm(4))
    model(torch.zeros(2, 4, 3))
    why = trace(model).run("first").group.root.fixed
    assert why == ["norm takes dimension 1, which may be rows"]


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.InstanceNorm1d(4), nn.InstanceNorm2d(4)]
)
def test_channels_are_where_the_rank_of_a_norm_has_them(norm):
    why = trace(Rows(lambda y: y, norm)).run("first").group.root.fixed
    assert why == [f"norm ({type(norm).__name__}) reads them in a layout that cannot be followed"]


def test_a_norm_behind_a_linear_layer_is_followed_where_nothing_looks_at_rows():
    assert trace(Rows(lambda y: y, nn.BatchNorm1d(4))).run("first").group.root.fixed == []
