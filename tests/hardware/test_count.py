"""Counts against half of torch's own counter, closed forms, and what must not be missed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from assay.hardware.count import count, record, unfused_attention


def half_of_torchs(net: nn.Module, *args: Tensor, **kwargs: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), unfused_attention(), counter:
        net.eval()(*args, **kwargs)
    return counter.get_total_flops() / 2


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = nn.Conv2d(channels, out, 1, stride) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((3, 8), (8, 8), (8, 16)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU(), nn.Dropout(),
                         nn.Linear(32, 10))  # fmt: skip


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1), Residual(8, 8, 1), Residual(8, 12, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.Hardswish(),
        nn.Conv2d(12, 12, 5, padding=2, groups=12), nn.GroupNorm(3, 12), nn.PReLU(12),
        nn.Conv2d(12, 24, 3, padding=4, dilation=4, groups=4, padding_mode="reflect"),
        nn.InstanceNorm2d(24, affine=True), nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(24, 6, 4, stride=2, padding=1, groups=2),
    )  # fmt: skip


def sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 9, stride=2, bias=False), nn.SELU(), nn.ConvTranspose1d(8, 8, 3),
        nn.AdaptiveAvgPool1d(4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2, bias=False),
    )  # fmt: skip


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 4, (1, 3, 3), groups=1), nn.BatchNorm3d(4), nn.ConvTranspose3d(4, 2, 2)
    )


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (vgg(), (2, 3, 32, 32)),
        (resnet(), (3, 3, 32, 32)),
        (depthwise(), (2, 3, 16, 16)),
        (sequence(), (4, 3, 40)),
        (volume(), (2, 3, 5, 6, 7)),
        (nn.Linear(8, 4), (5, 2, 3, 8)),
        (nn.Conv2d(3, 8, 3), (3, 9, 9)),
        (nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.RMSNorm(8)), (5, 8)),
    ],
    ids=["vgg", "resnet", "depthwise", "1-d", "3-d", "linear", "unbatched", "norms"],
)
def test_macs_are_half_of_torchs_count(net: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    counts = count(net, x)
    assert counts.uncounted == ()
    assert counts.macs == half_of_torchs(net, x)
    assert counts.params == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("bias_kv", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_is_counted_exactly(batch_first: bool, bias_kv: bool) -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(
                8, 2, kdim=6, vdim=4, batch_first=batch_first, add_bias_kv=bias_kv,
                add_zero_attn=bias_kv,
            )  # fmt: skip

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.attention(q, value=v, key=k)[0]

    shapes = [(3, 5, 8), (3, 7, 6), (3, 7, 4)]
    if not batch_first:
        shapes = [(b, a, c) for a, b, c in shapes]
    inputs = tuple(torch.randn(s) for s in shapes)
    counts = count(Across(), inputs)
    assert counts.uncounted == ()
    assert counts.macs == half_of_torchs(Across(), *inputs)
    own = 3 * (5 * 64 + 7 * 8 * 6 + 7 * 8 * 4 + 5 * 64) + 3 * 2 * 5 * (7 + 2 * bias_kv) * 8
    assert counts.macs == own


def test_a_transformer_layer_is_counted_through_its_parts() -> None:
    net = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    projections, scores, mlp = 4 * 15 * 64, 2 * 3 * 25 * 8, 2 * 15 * 8 * 16
    assert count(net, x).macs == projections + scores + mlp
    assert count(net, x).uncounted == ()


def test_bytes_by_hand() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2, bias=False))
    counts = count(net, torch.zeros(3, 4))
    # float32: inputs 12, 24, 24 values; outputs 24, 24, 6; weights 40, 0, 16
    assert counts.bytes_moved == 4 * (12 + 24 + 40 + 24 + 24 + 24 + 6 + 16)
    assert counts.peak_bytes == 4 * 48
    assert counts.activation_bytes == 4 * 54
    assert counts.weight_bytes == 4 * 56
    assert count(net.double(), torch.zeros(3, 4).double()).peak_bytes == 8 * 48


def test_a_shared_layer_counts_twice_in_macs_and_once_in_params() -> None:
    layer = nn.Linear(4, 4)
    counts = count(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4))
    assert (counts.macs, counts.params, counts.weight_bytes) == (32, 20, 80)


def test_what_computes_nothing_is_no_call() -> None:
    net = nn.Sequential(nn.Identity(), nn.Dropout(), nn.Sequential(), nn.ReLU())
    assert [c.kind for c in record(net, torch.zeros(2, 3)).calls] == ["ReLU"]


def test_arguments_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.ConvTranspose2d(2, 3, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.conv(input=a) + b

    counts = count(Named(), {"b": torch.zeros(1), "a": torch.zeros(1, 2, 4, 4)})
    assert counts.macs == 2 * 16 * 3 * 4


class Scaled(nn.Conv2d):
    """Convolves by weights of its own making: no rule may be taken to hold for it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / self.weight.norm())


class Plain(nn.Linear):
    """Adds nothing that multiplies."""

    extra = 3


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Gram(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.T


class Loose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"gram": Gram(), "swish": Swish()})
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(self.inner["swish"](x), self.weight)
        return torch.einsum("ij,kj->ik", y, y) + self.inner["gram"](y)


def test_a_subclass_with_its_own_forward_is_listed() -> None:
    counts = count(nn.Sequential(Scaled(2, 3, 3), nn.ReLU()), torch.zeros(1, 2, 5, 5))
    assert (counts.macs, counts.uncounted) == (0, ("0",))


def test_a_forward_put_on_the_instance_is_listed() -> None:
    layer = nn.Linear(2, 2)
    layer.forward = lambda x: x @ layer.weight  # type: ignore[method-assign]
    assert count(nn.Sequential(layer), torch.zeros(1, 2)).uncounted == ("0",)


def test_a_subclass_with_torchs_forward_is_counted() -> None:
    assert count(Plain(3, 2), torch.zeros(5, 3)).macs == 30


def test_operations_outside_layers_are_listed_by_name_and_place() -> None:
    counts = count(nn.Sequential(Loose()), torch.ones(3, 4))
    assert counts.macs == 0
    assert counts.uncounted == ("mm in 0", "bmm in 0", "0.inner.gram")


@pytest.mark.parametrize(
    ("net", "shapes"),
    [
        (nn.LSTM(4, 3), [(2, 5, 4)]),
        (nn.GRUCell(4, 3), [(2, 4)]),
        (nn.Bilinear(2, 3, 4), [(5, 2), (5, 3)]),
    ],
)
def test_layers_without_a_rule_are_listed(net: nn.Module, shapes: list[tuple[int, ...]]) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = net

        def forward(self, *xs: Tensor) -> object:
            return self.part(*xs)

    assert "part" in count(Holder(), tuple(torch.zeros(s) for s in shapes)).uncounted


def test_torchs_functional_attention_is_listed() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(self.q(x), x, x)

    (listed,) = count(Attend(), torch.zeros(1, 2, 3, 4)).uncounted
    assert "attention" in listed
    assert listed.endswith("in Attend")


def test_modes_and_hooks_are_put_back() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2)))
    net[1].eval()
    before = net[0].running_mean.clone()
    count(net, torch.randn(4, 3))
    assert [m.training for m in net.modules()] == [True, True, False, False]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert torch.equal(net[0].running_mean, before)
    with pytest.raises(RuntimeError):
        count(net, torch.randn(4, 5))
    assert [m.training for m in net.modules()] == [True, True, False, False]
    assert all(not m._forward_hooks for m in net.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_parametrised_weights_keep_the_rule_of_their_layer() -> None:
    net = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    counts = count(net, torch.zeros(5, 3))
    assert (counts.macs, counts.uncounted) == (30, ())
