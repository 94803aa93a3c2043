"""The mathematics of DARTS where gradients are known: two levels, one draw, zero-one loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.strategies.learned.bilevel import by_alpha, drawn_gate, second_order, zero_one

RNG = np.random.default_rng(0)
A, B, C, D = (torch.from_numpy(RNG.normal(size=s)) for s in ((4, 3), (2, 3), (4,), (3,)))


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def train(alphas, weights):
    """Half the squared distance of both weights from what alpha makes of them."""
    one, other = weights["one"] - A @ alphas["x"], weights["other"] - B @ alphas["x"]
    return ((one**2).sum() + (other**2).sum()) / 2


def valid(alphas, weights):
    return ((weights["one"] - C) ** 2).sum() / 2 + D @ alphas["x"]


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.7])
def test_of_quadratic_losses_the_second_order_gradient_is_exact(xi):
    """w' = w - xi (w - A x), so that d/dx L_val(w', x) = D + xi A^T (w' - C)."""
    alphas = {"x": leaf(0.3, -1.0, 0.5)}
    weights = {"one": leaf(1.0, 2.0, -1.0, 0.5), "other": leaf(0.1, 0.2)}
    told = second_order(train, valid, alphas, weights, xi)
    x, w = alphas["x"].detach(), weights["one"].detach()
    ahead = w - xi * (w - A @ x)
    torch.testing.assert_close(told["x"], D + xi * A.T @ (ahead - C), rtol=1e-9, atol=1e-9)
    assert weights["one"].grad is None
    assert torch.equal(weights["one"], w)


def test_where_the_validation_loss_does_not_depend_on_the_weights_nothing_is_looked_through():
    alphas, weights = {"x": leaf(0.3, -1.0, 0.5)}, {"one": leaf(*C), "other": leaf(0.1, 0.2)}
    told = second_order(train, lambda a, _: D @ a["x"], alphas, weights, 0.5)
    torch.testing.assert_close(told["x"], D)


def test_an_alpha_that_a_loss_does_not_depend_on_has_a_gradient_of_nought():
    alphas = {"x": leaf(1.0, 2.0), "y": leaf(3.0)}
    told = by_alpha((alphas["x"] ** 2).sum(), alphas)
    assert {k: v.tolist() for k, v in told.items()} == {"x": [2.0, 4.0], "y": [0.0]}


# --- one draw -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_gate_is_one_and_its_gradient_that_of_the_softmax_it_was_drawn_by(temperature):
    """d soft_at / d alpha_j = soft_at (delta_at,j - soft_j) / temperature, the noise held."""
    alpha, noise = leaf(0.5, -1.0, 0.2, 1.5), torch.tensor([0.3, 2.9, -0.4, 0.1]).double()
    at, gate = drawn_gate(alpha, noise, temperature)
    assert (at, gate.item()) == (1, 1.0)
    soft = torch.softmax((alpha.detach() + noise) / temperature, 0)
    expected = soft[at] * (torch.eye(4, dtype=torch.float64)[at] - soft) / temperature
    torch.testing.assert_close(torch.autograd.grad(gate, alpha)[0], expected)


def test_by_gumbel_noise_an_option_is_drawn_with_its_probability():
    alpha, rng = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), np.random.default_rng(0)
    drawn = [drawn_gate(alpha, torch.from_numpy(n), 5.0)[0] for n in rng.gumbel(size=(4000, 3))]
    p, shares = torch.softmax(alpha, 0).numpy(), np.bincount(drawn, minlength=3) / 4000
    assert (abs(shares - p) < 4 * np.sqrt(p * (1 - p) / 4000)).all()


# --- the zero-one loss ----------------------------------------------------------------------------


def test_the_zero_one_loss_draws_gates_to_nought_or_one():
    """Its derivative by an entry is -2 (s - 1/2) s (1 - s) / n."""
    alphas = {"x": leaf(0.0, 2.0), "y": leaf(-1.0)}
    told = by_alpha(zero_one(alphas), alphas)
    for alpha, gradient in zip(alphas.values(), told.values()):
        s = torch.sigmoid(alpha.detach())
        torch.testing.assert_close(gradient, -2 * (s - 0.5) * s * (1 - s) / 3)
    assert zero_one({"x": leaf(0.0)}).item() == 0.0
    assert zero_one({"x": leaf(50.0, -50.0)}).item() == pytest.approx(-0.25)
