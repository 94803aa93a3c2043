"""Counts against half of torch's own counter, closed forms, and what must not be missed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from assay.hardware.count import count, record, unfused_attention


def half_of_torchs(net: nn.Module, *args: Tensor, **kwargs: Tensor) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), unfused_attention(), sdpa_kernel(SDPBackend.MATH), counter:
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
    """Convolves twice, by weights of its own making: no rule may be taken to hold for it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / self.weight.norm()) + super().forward(x)


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


def test_a_subclass_with_its_own_forward_is_counted_by_what_it_does() -> None:
    counts = count(nn.Sequential(Scaled(2, 3, 3), nn.ReLU()), torch.zeros(1, 2, 5, 5))
    assert (counts.macs, counts.uncounted) == (2 * 27 * 18, ())


def test_a_forward_put_on_the_instance_is_counted_by_what_it_does() -> None:
    layer = nn.Linear(2, 3)
    layer.forward = lambda x: x @ x.T  # type: ignore[method-assign]
    counts = count(nn.Sequential(layer), torch.zeros(5, 2))
    assert (counts.macs, counts.uncounted) == (5 * 5 * 2, ())


def test_a_subclass_with_torchs_forward_is_counted() -> None:
    assert count(Plain(3, 2), torch.zeros(5, 3)).macs == 30


def test_operations_outside_layers_are_counted() -> None:
    counts = count(nn.Sequential(Loose()), torch.ones(3, 4))
    assert counts.macs == 3 * 4 * 4 + 2 * 3 * 3 * 4 == half_of_torchs(Loose(), torch.ones(3, 4))
    assert counts.uncounted == ()


class Odd(nn.Module):
    """A layer and operations that multiply and for which there is no formula."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.out = nn.Bilinear(3, 3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.pair(x, x)) * thrice(x)
        return y.addmm_(x, torch.ones(3, 2)) @ torch.ones(2)


@torch.library.custom_op("assay_tests::thrice", mutates_args=())
def thrice(x: Tensor) -> Tensor:
    """Return the product of a number of rows, in a way that torch knows nothing of."""
    return x.new_ones(1)


def test_what_has_no_formula_is_listed_by_name_and_place() -> None:
    counts = count(nn.Sequential(Odd()), torch.ones(5, 3))
    assert counts.macs == 5 * 4 * 2
    assert counts.uncounted == ("0.pair", "thrice in 0", "addmm_ in 0", "mv in 0")


RECURRENT = [
    (nn.LSTM, {}, 4 * 3 * (5 + 3)),
    (nn.GRU, {"batch_first": True, "bias": False}, 3 * 3 * (5 + 3)),
    (nn.RNN, {"nonlinearity": "relu"}, 3 * (5 + 3)),
    (nn.LSTM, {"num_layers": 3}, 4 * 3 * (5 + 3 + 2 * (3 + 3))),
    (nn.GRU, {"num_layers": 2, "bidirectional": True}, 2 * 3 * 3 * (5 + 3 + 6 + 3)),
    (nn.LSTM, {"proj_size": 2}, 4 * 3 * (5 + 2) + 3 * 2),
    (nn.LSTM, {"proj_size": 2, "num_layers": 2, "bidirectional": True},
     2 * (4 * 3 * (5 + 2 + 4 + 2) + 2 * 3 * 2)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("kind", "settings", "each_step"), RECURRENT)
def test_recurrent_layers_take_every_matrix_at_every_step(
    kind: type[nn.Module], settings: dict[str, object], each_step: int
) -> None:
    net = kind(5, 3, **settings)
    for shape, steps in (((2, 7, 5), 14), ((7, 5), 7)):
        counts = count(net, torch.zeros(shape))
        assert (counts.macs, counts.uncounted) == (steps * each_step, ())
    # in float64 torch takes all of them apart, and counts the parts
    x = torch.zeros(2, 7, 5).double()
    assert half_of_torchs(net.double(), x) == 14 * each_step


def test_of_packed_sequences_the_steps_that_are_there_count() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(5, 3)

        def forward(self, x: Tensor) -> PackedSequence:
            return self.rnn(pack_padded_sequence(x, torch.tensor([7, 2])))[0]

    assert count(Packed(), torch.zeros(7, 2, 5)).macs == (7 + 2) * 4 * 3 * (5 + 3)


def test_recurrent_cells_are_counted() -> None:
    assert count(nn.GRUCell(4, 3), torch.zeros(2, 4)).macs == 2 * 3 * 3 * (4 + 3)


def test_torchs_functional_attention_is_counted() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(self.q(x), x, x)

    counts = count(Attend(), torch.zeros(1, 2, 3, 4))
    assert counts.macs == 6 * 4 * 4 + 2 * 2 * 3 * 3 * 4
    assert counts.uncounted == ()


def test_a_tensor_that_is_given_twice_counts_once() -> None:
    class Attend(nn.Module):
        def __init__(self, *, copies: bool) -> None:
            super().__init__()
            self.attention, self.copies = nn.MultiheadAttention(4, 2), copies

        def forward(self, x: Tensor) -> Tensor:
            key = x.clone() if self.copies else x
            return self.attention(x, key, key)[0]

    x = torch.zeros(5, 3, 4)
    (once,), (twice,) = (record(Attend(copies=c), x).calls for c in (False, True))
    assert (once.in_bytes, twice.in_bytes) == (4 * 60, 4 * 120)
    assert (once.in_shapes, twice.in_shapes) == (((5, 3, 4),), ((5, 3, 4),) * 2)
    assert twice.moved - once.moved == 4 * 60


class Steps(nn.Module):
    """A layer that keeps its settings, and what it last saw, where no repr tells of them."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self._seen = [x]
        return x.repeat(self._steps, 1)


def test_layers_of_one_class_are_told_apart_by_what_their_repr_leaves_out() -> None:
    def told(net: nn.Module, x: Tensor) -> str:
        return str(record(net, (x, x, x) if isinstance(net, nn.MultiheadAttention) else x).calls[0])

    x = torch.zeros(3, 2, 8)
    assert told(nn.MultiheadAttention(8, 2), x) == told(nn.MultiheadAttention(8, 2), x)
    assert told(nn.MultiheadAttention(8, 2), x) != told(nn.MultiheadAttention(8, 4), x)
    ones = torch.ones(1, 4)
    assert told(Steps(2), ones) != told(Steps(3), ones)
    assert told(Steps(2), ones) == told(Steps(2), -ones)  # values are no settings
    assert (told(nn.Tanh(), ones), told(nn.ReLU(), ones)) == ("Tanh()", "ReLU()")


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
