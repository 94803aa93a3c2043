"""Signals of the gradient against closed forms, finite differences and explicit gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, NotFinite
from tests.signals.nets import convs, linear, measured, normal


def regression() -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """Return a linear regression, its data, its residuals and the gradient by hand."""
    x, y, w = normal(7, 3), normal(7, 1, seed=1), normal(1, 3, seed=2)
    residuals = x @ w.T - y
    return linear(w), x, y, residuals, 2 * (residuals * x).mean(0)


def test_snip_of_a_regression() -> None:
    net, x, y, _, g = regression()
    assert measured("snip", net, x, y) == pytest.approx(float((net[0].weight.data * g).abs().sum()))


def test_gradient_norm_of_a_regression() -> None:
    net, x, y, _, g = regression()
    assert measured("grad_norm", net, x, y) == pytest.approx(float(g.norm()))


def test_gradient_norm_adds_up_layers() -> None:
    net, x = linear(normal(4, 3), normal(2, 4, seed=1)), normal(6, 3, seed=2)
    grads = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
    assert measured("grad_norm", net, x) == pytest.approx(sum(float(g.norm()) for g in grads))


def test_grasp_of_a_regression() -> None:
    net, x, y, _, g = regression()
    hessian = 2 * x.T @ x / len(x)
    assert measured("grasp", net, x, y) == pytest.approx(-float(net[0].weight.data @ hessian @ g))


def test_grasp_is_the_finite_difference_of_the_gradient() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = normal(8, 3), torch.tensor([0, 1] * 4)
    weights, step = [net[0].weight, net[2].weight], 1e-5

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(F.cross_entropy(net(x), y), weights))

    g, (up, down) = gradient(), ([], [])
    for sign, found in ((1, up), (-1, down)):
        for w, part in zip(weights, g):
            w.data.add_(part, alpha=sign * step)
        found += gradient()
        for w, part in zip(weights, g):
            w.data.sub_(part, alpha=sign * step)
    hg = [(a - b) / (2 * step) for a, b in zip(up, down)]
    expected = -sum(float((w.data * part).sum()) for w, part in zip(weights, hg))
    assert measured("grasp", net, x, y, loss=F.cross_entropy) == pytest.approx(expected, rel=1e-7)


def test_fisher_of_a_regression() -> None:
    net, x, y, residuals, _ = regression()
    a = residuals + y
    by_sample = (a * 2 * residuals / len(x)).square()
    assert measured("fisher", net, x, y) == pytest.approx(float(by_sample.mean() / 2))


def test_fisher_adds_up_positions_before_it_squares() -> None:
    conv = nn.Conv2d(1, 2, 1, bias=False).double()
    net, x = nn.Sequential(conv, nn.Flatten()), normal(6, 1, 2, 2)
    a = conv(x).detach()
    per_channel = (a * 2 * a / a.numel()).sum((2, 3)).square()  # the loss is the mean square
    assert measured("fisher", net, x) == pytest.approx(float(per_channel.sum() / (2 * 6)))


def test_zico_of_explicit_gradients() -> None:
    net, x, y = linear(normal(4, 3), normal(2, 4, seed=1)), normal(8, 3, seed=2), normal(8, 2)
    pairs = zip(*[
        torch.autograd.grad(F.mse_loss(net(x[i]), y[i]), list(net.parameters()))
        for i in (slice(4), slice(4, None))
    ])  # fmt: skip
    expected = 0.0
    for pair in pairs:
        size = torch.stack(pair).abs()
        expected += float((size.mean(0) / size.std(0, correction=0)).sum().log())
    assert measured("zico", net, x, y) == pytest.approx(expected)


def test_zico_leaves_out_what_does_not_vary() -> None:
    net, x = linear(normal(2, 3)), normal(2, 3, seed=1).repeat(2, 1)
    assert measured("zico", net, x) == 0.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_zico_of_gradients_that_are_not_finite_is_refused(wrong: float) -> None:
    class Broken(nn.Module):
        """The gradient of one sample is not finite; its output is."""

        def forward(self, x: Tensor) -> Tensor:
            x.register_hook(lambda g: g.index_fill(0, torch.tensor(0), wrong))
            return x + 0

    net, x = nn.Sequential(*linear(normal(2, 3)), Broken()), normal(6, 3, seed=1)
    with pytest.raises(NotFinite, match="'zico' is nan"):
        measured("zico", net, x)


def test_halves_of_unequal_size_weigh_as_their_samples() -> None:
    net, x = linear(normal(2, 3)), normal(5, 3, seed=1)
    (g,) = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
    assert measured("grad_norm", net, x) == pytest.approx(float(g.norm()))


def test_with_norms_the_gradient_is_the_mean_over_two_batches() -> None:
    net, x, y = convs().train(), normal(8, 2, 4, 4), torch.tensor([0, 1, 2, 0] * 2)
    loss = sum(F.cross_entropy(net(x[i]), y[i]) / 2 for i in (slice(4), slice(4, None)))
    weights = [p for p in net.parameters() if p.dim() > 1]
    grads = torch.autograd.grad(loss, weights)
    expected = sum(float((w.data * g).abs().sum()) for w, g in zip(weights, grads))
    assert measured("snip", net, x, y, loss=F.cross_entropy) == pytest.approx(expected)


def test_frozen_and_unused_weights_add_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.unused, self.head = linear(*[normal(3, 3)] * 3)
            self.frozen.weight.requires_grad = False

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.frozen(x))

    net, x = Net(), normal(6, 3, seed=1)
    (g,) = torch.autograd.grad(net(x).square().mean(), [net.head.weight])
    assert measured("snip", net, x) == pytest.approx(float((net.head.weight.data * g).abs().sum()))


def test_no_weights_no_gradient() -> None:
    with pytest.raises(InvalidSetting, match="no weights to train"):
        measured("snip", nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)).double(), normal(6, 3))
