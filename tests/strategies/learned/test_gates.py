"""ProxylessNAS's arithmetic, against closed forms and finite differences."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from assay.space.choices import Held, OneOf
from assay.strategies.learned.gates import EntryAdam, draw_two, gate_gradient, kept_apart


def test_two_are_drawn_without_replacement_by_their_probabilities():
    p, rng, n = np.array([0.5, 0.3, 0.2]), np.random.default_rng(0), 30_000
    counts = Counter(draw_two(p, rng) for _ in range(n))
    for i in range(3):
        assert counts[i, i] == 0
        for j in range(3):
            if i != j:
                expected = p[i] * p[j] / (1 - p[i])
                assert counts[i, j] / n == pytest.approx(expected, abs=0.01)


def test_the_gradient_of_a_pair_is_that_of_the_softmax():
    """For a loss that is linear in the gates the estimator is the derivative of its expectation."""
    logits = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    by_gate = torch.tensor([1.7, -0.4], dtype=torch.float64)
    expectation = (torch.softmax(logits, 0) * by_gate).sum()
    (exact,) = torch.autograd.grad(expectation, logits)
    torch.testing.assert_close(gate_gradient(by_gate, logits.detach()), exact, rtol=0, atol=1e-15)


def test_the_gradient_by_a_gate_is_the_output_against_the_loss():
    """dL/dg_j = <o_j(x), dL/dm>, though the second option computed without a graph."""
    torch.manual_seed(0)
    mixed = OneOf(a=nn.Linear(3, 3), b=nn.Linear(3, 3), c=nn.Linear(3, 3)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    gates = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    mixed.__dict__["mix"] = {"a": gates[0], "b": Held(gates[1])}
    out = mixed(x)
    assert torch.equal(out.detach(), mixed.a(x).detach())
    loss = (out**2).sum()
    (found,) = torch.autograd.grad(loss, gates, retain_graph=True)
    by_output = 2 * mixed.a(x).detach()
    expected = torch.stack([(mixed.a(x) * by_output).sum(), (mixed.b(x) * by_output).sum()])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    loss.backward()
    assert mixed.a.weight.grad is not None
    assert mixed.b.weight.grad is None


def test_a_held_option_keeps_its_output_only():
    kept: list[int] = []

    def pack(t):
        kept.append(t.numel())
        return t

    deep = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(10)])
    mixed = OneOf(a=nn.Identity(), b=deep)
    x, gates = torch.randn(4, 8), torch.tensor([1.0, 0.0], requires_grad=True)
    for weight in (Held(gates[1]), gates[1]):
        kept.clear()
        mixed.__dict__["mix"] = {"a": gates[0], "b": weight}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            mixed(x)
        if isinstance(weight, Held):
            assert sum(n for n in kept if n >= x.numel()) <= 2 * x.numel()
        else:
            assert sum(n for n in kept if n >= x.numel()) > 10 * x.numel()


def test_options_that_were_not_drawn_keep_their_probability():
    rng = np.random.default_rng(0)
    for _ in range(100):
        logits = torch.from_numpy(rng.normal(size=6) * 3)
        before = torch.softmax(logits, 0)
        i, j = draw_two(before.numpy(), rng)
        moved = logits[[i, j]] + torch.from_numpy(rng.normal(size=2))
        after = logits.clone()
        after[[i, j]] = kept_apart(moved, logits[[i, j]])
        p = torch.softmax(after, 0)
        others = [k for k in range(6) if k not in (i, j)]
        torch.testing.assert_close(p[others], before[others], rtol=0, atol=1e-12)
        # The pair shares what it had, by its new logits.
        share = torch.softmax(moved, 0) * before[[i, j]].sum()
        torch.testing.assert_close(p[[i, j]], share, rtol=1e-10, atol=1e-12)


def test_adam_on_entries_is_torchs_where_all_are_drawn_every_time():
    rng = np.random.default_rng(0)
    ours, theirs = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    theirs.requires_grad_()
    adam = EntryAdam({"x": 3}, lr=0.05, betas=(0.5, 0.999))
    torchs = torch.optim.Adam([theirs], lr=0.05, betas=(0.5, 0.999), eps=1e-8)
    for _ in range(20):
        gradient = torch.from_numpy(rng.normal(size=3))
        ours += adam.step("x", [0, 1, 2], gradient)
        theirs.grad = gradient.clone()
        torchs.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


def test_an_entry_that_is_not_drawn_does_not_move_and_a_state_goes_on():
    adam, again = EntryAdam({"x": 3}, lr=0.1), EntryAdam({"x": 3}, lr=0.1)
    gradient = torch.tensor([1.0, -2.0], dtype=torch.float64)
    adam.step("x", [0, 2], gradient)
    count, mean, square = adam.state_dict()["x"]
    assert (count[1], mean[1], square[1]) == (0, 0, 0)
    again.load_state_dict(adam.state_dict())
    assert torch.equal(again.step("x", [0, 1], gradient), adam.step("x", [0, 1], gradient))
