from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph import assert_same_function, grow_kernel, widen
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
    return trace(Between(act, **parts)).run("first").group.obstacles


def widened(model: nn.Module, path: str, width: int) -> nn.Module:
    return widen(model, path, width, rng=np.random.default_rng(0))


def squeeze_excite(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    n, c, _, _ = y.size()
    gate = m.squeeze(F.adaptive_avg_pool2d(y, 1).view(n, c)).view(n, c, 1, 1)
    return y * gate.expand_as(y)


FOLLOWED = [
    lambda m, x, y: y * 2 + 1,
    lambda m, x, y: F.dropout(y.contiguous(), 0.1, m.training),
    lambda m, x, y: y - y.mean((-1, -2), keepdim=True),
    lambda m, x, y: y * torch.sigmoid(y.mean((2, 3)).unsqueeze(-1).unsqueeze(3)),
    lambda m, x, y: F.interpolate(y, scale_factor=2) / y.shape[2],
    lambda m, x, y: F.interpolate(y, size=y.shape[-2:]) + y.shape[0] + y.size(-1),
    lambda m, x, y: F.interpolate(y.to(m.first.weight.dtype), size=y.size()[2:]),
    lambda m, x, y: y * m.flat(y.view(y.size(0), -1))[:, :, None, None],
    lambda m, x, y: y * m.flat(m.first(m.norm(x / 2)).view(x.size(0), -1))[:, :, None, None],
    squeeze_excite,
    lambda m, x, y: m.prelu(y) * torch.sigmoid(m.gate(y)),
    lambda m, x, y: torch.maximum(y.clamp(0, 1), F.leaky_relu(y, inplace=False)),
]
NUMBER = "their number is used as a number"
REFUSED = [
    (lambda m, x, y: y.softmax(1), "softmax has no rule"),
    (lambda m, x, y: y.transpose(1, 2).transpose(1, 2), "transpose has no rule"),
    (lambda m, x, y: y * m.scale, "mul meets a tensor whose channels are given"),
    (lambda m, x, y: y + x.mean(1, keepdim=True), "add meets a tensor whose channels are given"),
    (lambda m, x, y: y + y.mean(1, keepdim=True), "mean has no rule for these arguments"),
    (lambda m, x, y: y.mean(3).mean(2), "mean has no rule for these arguments"),
    (lambda m, x, y: y.flatten(2), "flatten has no rule for these arguments"),
    (lambda m, x, y: y[:, :4], "getitem has no rule for these arguments"),
    (lambda m, x, y: y.reshape(3, 4, 6, 6), "reshape has no rule for these arguments"),
    (lambda m, x, y: torch.cat([y, x], 1)[:, :4], "cat has no rule for these arguments"),
    (lambda m, x, y: y / y.shape[1], NUMBER),
    (lambda m, x, y: y * (1 / y.size(1)), NUMBER),
    (lambda m, x, y: y + y.size()[-3], NUMBER),
    (lambda m, x, y: x.expand(y.shape), NUMBER),
    (lambda m, x, y: x.expand(y.shape[:2] + x.shape[2:]), NUMBER),
    (lambda m, x, y: x.view(1, y.shape[1], 6, 6), "view has no rule for these arguments"),
    (lambda m, x, y: y.view(3, -1), "view may split or merge the batch; flatten(1) does not"),
    (
        lambda m, x, y: y.reshape(y.shape[0] * 4, -1),
        "reshape may split or merge the batch; flatten(1) does not",
    ),
    (lambda m, x, y: torch.cat([y, y], 2), None),
]


@pytest.mark.parametrize("act", FOLLOWED)
def test_what_is_followed_computes_the_same(act):
    parts = {
        "flat": nn.Linear(144, 4), "squeeze": nn.Linear(4, 4), "norm": nn.BatchNorm2d(2),
    }  # fmt: skip
    model = Between(act, prelu=nn.PReLU(), gate=nn.Conv2d(4, 1, 1), **parts).double()
    assert trace(model).run("first").group.obstacles == []
    assert_same_function(model, widened(model, "first", 6), nets.images())


@pytest.mark.parametrize(("act", "why"), REFUSED)
def test_what_is_not_followed_is_fixed_and_named(act, why):
    found = fixed(act)
    assert found
    assert why is None or found[0] == why


def test_layers_that_fix_are_named():
    norm = fixed(lambda m, x, y: m.norm(y), norm=nn.GroupNorm(2, 4))
    assert norm == ["norm (GroupNorm) averages over them, and copies count twice"]
    head = trace(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    assert head.run("0").group.root.averaged == [
        "1 (LayerNorm) averages over them, and copies count twice"
    ]
    attention = trace(nn.Sequential(nn.Linear(2, 4), nn.Softmax(-1), nn.Linear(4, 2)))
    assert attention.run("0").group.root.fixed == ["1 (Softmax) has no rule"]
    rows = trace(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm((3, 4)), nn.Linear(4, 2)))
    assert rows.run("0").group.root.fixed == [
        "1 (LayerNorm) weighs each of their positions by itself"
    ]
    half = Between(lambda m, x, y: m.norm(torch.cat([y, m.other(x)], 1)), nn.Conv2d(6, 1, 1),
                   norm=nn.GroupNorm(2, 6), other=nn.Conv2d(2, 2, 1))  # fmt: skip
    assert trace(half).run("first").group.root.fixed == [
        "norm (GroupNorm) groups the channels of several layers"
    ]


class Video(nn.Module):
    """Frames `[N, 3, 2, 6, 6]`, each looked at by itself, then all of a sample together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c, h, w = x.shape
        y = F.adaptive_avg_pool2d(F.relu(self.first(x.reshape(n * t, c, h, w))), 1)
        return self.last(y.view(n, -1))


def test_frames_of_a_sample_are_not_taken_for_positions_of_a_channel():
    with pytest.raises(UnsupportedLayer, match="view may split or merge the batch"):
        widened(Video(), "first", 6)


def test_a_single_channel_that_is_taken_for_all_stays_single():
    gated = trace(Between(lambda m, x, y: y * m.gate(y), gate=nn.Conv2d(4, 1, 1)))
    assert gated.run("gate").group.root.fixed == ["mul takes the single one for all channels"]


class Auxiliary(nn.Module):
    """A head in train mode alone, and one that only a condition is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.head, self.aux, self.film = (nn.Conv2d(4, 3, 1) for _ in range(3))

    def forward(self, x: Tensor, cond: Tensor | None = None, twice: bool = False) -> Tensor:
        y = F.relu(self.first(x))
        if twice:
            y = y * y.shape[1]
        out = self.head(y) if cond is None else self.film(y) * cond
        return out + self.aux(y) if self.training else out


def test_layers_of_both_modes_and_of_optional_arguments_are_read():
    model, x = Auxiliary().double(), nets.images()
    model.aux.eval()
    wide = widened(model, "first", 6)
    assert_same_function(model, wide, x)
    assert_same_function(model, wide, (x, x[:, :1]))
    assert torch.allclose(model(x), wide(x), atol=1e-9)
    assert [m.training for m in wide.modules()] == [m.training for m in model.modules()]


class Masked(nn.Module):
    """Cannot do without its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.last(self.first(x) * self.gate(mask))


class Named(Masked):
    """Is given by name what it is given."""

    def forward(self, x: Tensor | None = None, mask: Tensor | None = None, **more: Tensor):
        return self.last(self.first(x) if mask is None else self.first(x) * self.gate(mask))


@pytest.mark.parametrize("model", [Masked, Named])
def test_a_model_is_not_called_without_what_it_needs(model):
    assert trace(model()).widenable() == ["first", "gate"]


class Keeps(nn.Module):
    """Keeps a feature, and makes a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.feature = self.first(x - torch.tensor([0.1, 0.2, 0.3]))
        return self.last(self.feature)


def test_a_trace_leaves_no_mark():
    model = Keeps()
    before = dict(vars(model))
    trace(model)
    assert vars(model) == before
    model(torch.ones(2, 3))
    wide = pickle.loads(pickle.dumps(widened(model, "first", 6)))
    assert_same_function(model, wide, torch.ones(2, 3))


class Reads(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.enc = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.enc(self.first(x))), self.enc.weight.t())


class Penalty(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self[0].weight.pow(2).sum()


def test_a_weight_that_something_else_reads_is_not_resized():
    with pytest.raises(UnsupportedLayer, match="t reads enc too"):
        widened(Reads(), "first", 6)
    with pytest.raises(UnsupportedLayer, match="pow reads 0 too"):
        widened(Penalty(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "0", 6)
    words = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    words[2].weight = words[0].weight
    with pytest.raises(UnsupportedLayer, match="0 and 2 share a tensor"):
        widened(words, "1", 6)


HOOKS = [
    lambda conv: prune.l1_unstructured(conv, "weight", 0.3),
    nn.utils.spectral_norm,
    pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_layer_whose_weight_a_hook_makes_is_not_resized(hook):
    model = nn.Sequential(hook(nn.Conv2d(2, 4, 1)), nn.ReLU(), nn.Conv2d(4, 3, 1))
    reader = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), hook(nn.Conv2d(4, 3, 1)))
    for net in (model, reader):
        net(nets.images().float())  # as after training, when the weight has a gradient
    with pytest.raises(UnsupportedLayer, match=r"'0' has a hook that may make its weight"):
        widened(model, "0", 6)
    with pytest.raises(UnsupportedLayer, match=r": 2 has a hook that may make its weight"):
        widened(reader, "0", 6)
    with pytest.raises(UnsupportedLayer, match=r"'0' has a hook that may make its weight"):
        grow_kernel(model, "0", 3)


def test_a_module_without_a_rule_is_told_from_one_that_is_not_there():
    model = nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(UnsupportedLayer, match="'0' is a ConvTranspose2d, whose channels cannot"):
        widened(model, "0", 6)
    with pytest.raises(InvalidSetting, match="no layer '7' with channels"):
        widened(model, "7", 6)


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
        lambda y: y.max(1).values, lambda y: y.mean((1, 2)), lambda y: y.flatten(1),
        lambda y: y.select(1, 0), lambda y: y.unbind(1)[0],
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
    assert why[0] == f"norm ({type(norm).__name__}) reads them in a layout that cannot be followed"


def test_a_norm_behind_a_linear_layer_is_followed_where_nothing_looks_at_rows():
    assert trace(Rows(lambda y: y, nn.BatchNorm1d(4))).run("first").group.root.fixed == []
