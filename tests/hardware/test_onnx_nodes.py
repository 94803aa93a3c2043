"""Every rule gives torch's values on ONNX Runtime, or says that it has none."""

from __future__ import annotations

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.hardware.onnx_graph import NoRule, write_graph
from assay.hardware.onnx_nodes import RULES
from tests.hardware.onnx_gap import onnx_gap


class Does(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def drawn(module: nn.Module) -> nn.Module:
    """Give norms statistics that a wrong rule cannot hide behind."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module


ON_IMAGES = {
    "conv": nn.Conv2d(6, 4, 3, padding=1),
    "conv, strided, dilated, no bias": nn.Conv2d(6, 4, (3, 5), (2, 1), (2, 4), (2, 2), bias=False),
    "conv, grouped": nn.Conv2d(6, 12, 3, groups=3),
    "conv, depthwise": nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "batch norm": nn.Sequential(nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
    "batch norm, plain": nn.BatchNorm2d(6, affine=False, eps=0.1),
    "layer norm": nn.LayerNorm((8, 8)),
    "layer norm, plain": nn.LayerNorm(8, elementwise_affine=False),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool, dilated, ceil": nn.MaxPool2d(2, 3, dilation=2, ceil_mode=True),
    "average pool": nn.AvgPool2d(3, 2, 1),
    "average pool, without padding": nn.AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False),
    "global pool, flatten, linear": nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ),
    "linear on four dimensions": nn.Linear(8, 3),
    "linear, no bias": nn.Sequential(nn.Flatten(), nn.Linear(384, 3, bias=False)),
    "mean": Does(lambda x: x.mean((2, 3))),
    "mean of all": Does(lambda x: x.mean()),
    "mean, kept": Does(lambda x: x.mean(-1, keepdim=True)),
    "sum": Does(lambda x: x.sum((1, 2))),
    "add, factor 1": Does(lambda x: x + x.relu()),
    "add a number": Does(lambda x: x + 1.5),
    "arithmetic": Does(lambda x: (x - x.exp()) * x.tanh() / 3),
    "cat": Does(lambda x: torch.cat([x, x.relu()], 1)),
    "permute": Does(lambda x: x.permute(0, 2, -1, 1)),
    "transpose": Does(lambda x: x.transpose(1, -1)),
    "unsqueeze, squeeze": Does(lambda x: x.unsqueeze(2).squeeze(2).squeeze()),
    "expand": Does(lambda x: x[:, :, :1].expand(2, 6, 3, 8)),
    "select": Does(lambda x: x[:, -1, 2] + x[1, 0, 0, 0]),
    "slice": Does(lambda x: x[:, 1:5:2, :, -3:]),
    "pad": Does(lambda x: F.pad(x, (1, 2, 0, 3), value=0.5)),
    "pad and crop": Does(lambda x: F.pad(x, (-1, 2, 3, -2, 1, 0))),
    "zeros": Does(lambda x: x + torch.zeros_like(x[:, :1])),
    "clamp": Does(lambda x: x.clamp(min=-0.5)),
    "clone, detach": Does(lambda x: x.clone().detach() + 1),
    "softmax": nn.Softmax(1),
    "log softmax": nn.LogSoftmax(-1),
    "matrix product": Does(lambda x: x[0] @ x[0]),
    "product with a weight": Does(lambda x: x.flatten(1)[:, :4] @ torch.ones(4, 2)),
    "product of two": Does(lambda x: x[:, 0, 0].t() @ x[:, 0, 1]),
    "dropout": nn.Dropout(),
    "constants that are computed": Does(lambda x: x + torch.arange(8.0).sqrt().view(1, 1, 1, 8)),
}
ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.Hardswish(inplace=True),
    nn.Hardsigmoid(), nn.SiLU(), nn.SiLU(inplace=True), nn.GELU(), nn.ELU(0.7), nn.LeakyReLU(0.2),
    nn.Sigmoid(), nn.Tanh(), nn.Hardtanh(-0.3, 2.0), nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("name", ON_IMAGES)
def test_a_rule_gives_what_torch_gives(name):
    torch.manual_seed(0)
    module, x = drawn(ON_IMAGES[name]).eval(), torch.randn(2, 6, 8, 8)
    before = x.clone()
    graph = write_graph(module, x)
    onnx.checker.check_model(graph, full_check=True)
    assert onnx_gap(graph, module, x) <= 1e-5
    assert torch.equal(x, before)


@pytest.mark.parametrize("act", ACTIVATIONS, ids=repr)
def test_an_activation_gives_what_torch_gives(act):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 40), act)
    x = 4 * torch.randn(3, 5)
    assert onnx_gap(write_graph(module, x), module, x) <= 1e-5


def test_what_follows_an_activation_in_place_reads_its_result():
    def twice(x: Tensor) -> Tensor:
        y = x + 1
        y.relu_()
        y += 2
        return y * y

    module, x = Does(twice), torch.randn(4, 3)
    assert onnx_gap(write_graph(module, x), module, x) <= 1e-6


def _stale_view(x: Tensor) -> Tensor:
    y = x + 1
    view = y.view(-1)
    y.relu_()
    return view * 2


REFUSED = {
    "the batch's own statistics": nn.BatchNorm2d(6, track_running_stats=False),
    "transposed": nn.ConvTranspose2d(6, 4, 3),
    "computed weights": Does(lambda x: F.conv2d(x, x)),
    "Add with a factor": Does(lambda x: torch.add(x, x, alpha=2)),
    "change of type": Does(lambda x: x.mean(dtype=torch.float64)),
    "more than one position": nn.AdaptiveAvgPool2d(3),
    "approximated": nn.GELU(approximate="tanh"),
    "scale": nn.SELU(),
    "divisor": nn.AvgPool2d(2, divisor_override=3),
    "no rule for cos": Does(torch.cos),
    "overwritten in place": Does(_stale_view),
    "second result": Does(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]),
    "no rule for bernoulli": Does(torch.bernoulli),
    "no rule for rand": Does(lambda x: x + torch.rand(8)),
    "local_scalar": Does(lambda x: x * float(x.sum())),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_rule_is_refused_with_a_reason(reason):
    with pytest.raises(NoRule, match=reason):
        write_graph(REFUSED[reason], torch.ones(2, 6, 8, 8))


def test_a_half_precision_weight_is_refused():
    module = nn.Linear(6, 2, dtype=torch.bfloat16)
    with pytest.raises(NoRule, match="bfloat16"):
        write_graph(module, torch.ones(2, 6, dtype=torch.bfloat16))


def test_rules_are_of_operations_that_torch_has():
    assert [name for name in RULES if not hasattr(torch.ops.aten, name)] == []
