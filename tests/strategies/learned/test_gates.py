"""ProxylessNAS's arithmetic, against closed forms and finite differences."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from assay.space.choices import Depth, Held, OneOf
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.gates import (
    EntryAdam,
    draw_step,
    draw_two,
    gate_gradient,
    kept_apart,
    score_gradients,
)
from tests.strategies.learned.test_alphas import log_prob, nested, over_all, random_alphas


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


def toy(*sizes: int) -> tuple[OneOf, torch.Tensor]:
    torch.manual_seed(0)
    mixed = OneOf({f"o{i}": nn.Linear(3, 3) for i in range(2)}).double()
    return mixed, torch.randn(*sizes, dtype=torch.float64)


def by_gates(mixed: OneOf, x: torch.Tensor, loss, gates) -> torch.Tensor:
    mixed.__dict__["mix"] = {"o0": gates[0], "o1": gates[1]}
    return loss(mixed(x))


def differences(function, at: list[float]) -> torch.Tensor:
    step, found = 1e-5, []
    for i in range(len(at)):
        ahead, behind = list(at), list(at)
        ahead[i] += step
        behind[i] -= step
        found.append((function(ahead) - function(behind)) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("active", [0, 1])
def test_the_gradient_by_the_gates_is_that_of_finite_differences(active):
    mixed, x = toy(5, 3)

    def loss(m):
        return (torch.tanh(m) ** 2).sum()

    at = [1.0 - active, float(active)]
    gates = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    weights = [gates[0], gates[1]]
    weights[1 - active] = Held(gates[1 - active])
    mixed.__dict__["mix"] = {"o0": weights[0], "o1": weights[1]}
    (found,) = torch.autograd.grad(loss(mixed(x)), gates)
    with torch.no_grad():
        exact = differences(lambda g: float(by_gates(mixed, x, loss, g)), at)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("active", [0, 1])
def test_the_gradient_by_the_logits_is_that_of_finite_differences(active):
    """Of the expected loss of two operations, which is linear in their output."""
    mixed, x = toy(5, 3)
    weights, alphas = torch.randn(5, 3, dtype=torch.float64), [0.4, -0.8]

    def loss(m):
        return (weights * m).sum()

    def expected(logits):
        q = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)
        ways = ([1.0, 0.0], [0.0, 1.0])
        return float(sum(q[k] * by_gates(mixed, x, loss, g) for k, g in enumerate(ways)))

    gates = torch.tensor([1.0 - active, float(active)], dtype=torch.float64, requires_grad=True)
    drawn = {k: gates[k] if k == active else Held(gates[k]) for k in (0, 1)}
    mixed.__dict__["mix"] = {f"o{k}": weight for k, weight in drawn.items()}
    (by_gate,) = torch.autograd.grad(loss(mixed(x)), gates)
    found = gate_gradient(by_gate, torch.tensor(alphas, dtype=torch.float64))
    with torch.no_grad():
        torch.testing.assert_close(found, differences(expected, alphas), rtol=1e-7, atol=1e-8)


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


# --- what a step runs ---------------------------------------------------------------------------


def inner(label: str) -> nn.Module:
    return nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Linear(2, 2), label=label), nn.Identity())


def two_sided() -> Space:
    """Two options with a choice and a stack in each, and a third that shares one of these."""
    shared = OneOf({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, label="left")
    stack = Depth(nn.Linear(2, 2), nn.Linear(2, 2), label="deep")
    outer = OneOf(
        {"l": inner("left"), "r": nn.Sequential(inner("right"), stack), "s": shared},
        label="outer",
    )
    return Space(nn.Sequential(outer))


def test_two_of_each_operation_on_the_active_path_and_one_of_what_lies_behind_one_held():
    space = two_sided()
    alphas, rng, seen = Alphas(space), np.random.default_rng(0), Counter()
    leads = {"l": {"left"}, "r": {"right", "deep"}, "s": {"left"}}
    for _ in range(200):
        drawn = draw_step(alphas, rng)
        active, held = (space.choices["outer"].options[i] for i in drawn.pairs["outer"])
        seen[active] += 1
        assert drawn.pairs.keys() - {"outer"} == leads[active] - {"deep"}
        assert set(drawn.single) == leads[active] & {"deep"}
        assert set(drawn.behind) == leads[held] - leads[active]
        assert all(len(set(at)) == 2 for at in drawn.pairs.values())
    assert min(seen[o] for o in "lrs") > 10


def test_of_two_options_each_is_active_by_its_probability():
    alphas = Alphas(Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Linear(2, 2), label="x"))))
    alphas.logits["x"] = torch.tensor([0.8, -0.3], dtype=torch.float64)
    rng, n = np.random.default_rng(0), 4_000
    active = Counter(draw_step(alphas, rng).pairs["x"][0] for _ in range(n))
    assert active[0] / n == pytest.approx(float(alphas.probabilities("x")[0]), abs=0.025)


# --- by reward ------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 1.7])
def test_draws_tell_the_gradient_of_the_expected_loss_whatever_the_baseline(baseline):
    space = nested()
    alphas = random_alphas(space)
    points = list(space.all())
    losses = dict(zip(points, np.random.default_rng(1).normal(size=len(points))))
    _, exact = over_all(alphas, losses.__getitem__)
    found = {label: torch.zeros_like(logits) for label, logits in alphas.logits.items()}
    for point in points:
        chance = float(torch.exp(log_prob(alphas, point)))
        one = score_gradients(alphas, [(point, losses[point])], baseline)
        assert one.keys() == set(point)
        for label, gradient in one.items():
            found[label] += chance * gradient
    for label, gradient in exact.items():
        torch.testing.assert_close(found[label], gradient, rtol=0, atol=1e-12, msg=label)


def test_of_several_draws_the_mean_is_taken():
    alphas = random_alphas(nested())
    points = list(alphas.space.all())[:3]
    drawn = [(point, float(i)) for i, point in enumerate(points)]
    together = score_gradients(alphas, drawn, 0.5)
    single = [score_gradients(alphas, [one], 0.5) for one in drawn]
    for label, gradient in together.items():
        mean = sum(one[label] for one in single if label in one) / 3
        torch.testing.assert_close(gradient, mean, rtol=0, atol=1e-14)
