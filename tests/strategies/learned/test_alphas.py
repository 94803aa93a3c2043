"""A distribution over architectures, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay.cost import derive
from assay.errors import InvalidStudy
from assay.space.choices import Depth, OneOf
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.strategies.learned.expected import Expected
from assay.zoo.mobile import mobile


def linear():
    return nn.Linear(2, 2)


def nested() -> Space:
    """One choice inside an option of another, one shared by two places, and a stack."""
    inner = OneOf(p=linear(), q=linear(), r=linear())
    first = OneOf({"a": nn.Sequential(inner), "b": linear()}, label="first")
    shared = [OneOf({"x": linear(), "y": linear()}, label="shared") for _ in range(2)]
    second = OneOf({"c": shared[0], "d": nn.Identity()}, label="second")
    stack = Depth(linear(), shared[1], linear(), label="stack", min=1)
    return Space(nn.Sequential(first, second, stack))


def random_alphas(space: Space, seed: int = 0) -> Alphas:
    alphas, rng = Alphas(space), derive(seed, "alphas")
    for label, logits in alphas.logits.items():
        alphas.logits[label] = torch.from_numpy(rng.normal(size=len(logits)))
    return alphas


def probability(alphas, architecture) -> float:
    return float(torch.exp(alphas.log_prob(architecture)))


def test_probabilities_of_all_architectures_add_up_to_one():
    space = nested()
    alphas = random_alphas(space)
    assert sum(probability(alphas, a) for a in space.all()) == pytest.approx(1.0, abs=1e-12)


def test_a_decision_is_reached_as_often_as_enumeration_says():
    space = nested()
    alphas = random_alphas(space)
    for label in space.choices:
        expected = sum(probability(alphas, a) for a in space.all() if label in a)
        assert float(alphas.reached(label)) == pytest.approx(expected, abs=1e-12), label


def test_a_decision_with_many_ways_to_it_is_worked_out_at_once():
    space = mobile()
    assert max(len(choice.conditions) for choice in space.choices.values()) > 20
    alphas = random_alphas(space)
    drawn = [alphas.sample(np.random.default_rng(i)) for i in range(500)]
    for label in space.choices:
        share = sum(label in a for a in drawn) / len(drawn)
        assert float(alphas.reached(label)) == pytest.approx(share, abs=0.08), label


def test_draws_follow_the_probabilities():
    space = nested()
    alphas, rng, n = random_alphas(space), np.random.default_rng(0), 20_000
    drawn = [alphas.sample(rng) for _ in range(n)]
    points = list(space.all())
    counts = dict.fromkeys(points, 0)
    for a in drawn:
        counts[a] += 1
    chi2 = sum(
        (counts[a] - n * p) ** 2 / (n * p) for a, p in ((a, probability(alphas, a)) for a in points)
    )
    freedom = len(points) - 1
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)


def test_the_best_takes_the_likeliest_option_of_each_decision():
    space = nested()
    alphas = random_alphas(space)
    best = alphas.best()
    for label, option in best.items():
        options = space.choices[label].options
        assert options.index(option) == int(alphas.logits[label].argmax())


def test_entropy_is_the_log_of_the_number_of_options_at_first():
    alphas = Alphas(nested())
    for label, entropy in alphas.entropies().items():
        assert entropy == pytest.approx(np.log(len(alphas.space.choices[label].options)))


def test_a_state_of_other_decisions_is_refused():
    alphas, other = (
        random_alphas(nested()),
        Alphas(Space(nn.Sequential(OneOf(a=linear(), b=linear())))),
    )
    again = Alphas(nested())
    again.load_state_dict(alphas.state_dict())
    assert all(torch.equal(again.logits[k], v) for k, v in alphas.logits.items())
    with pytest.raises(InvalidStudy, match="this space has the decisions"):
        other.load_state_dict(alphas.state_dict())


# --- the expectation of a sum over decisions --------------------------------------------------


def costs(space: Space):
    rng = derive(1, "costs")
    table = {
        (label, option): float(rng.uniform(0.1, 2.0))
        for label, choice in space.choices.items()
        for option in choice.options
    }
    return lambda a: 3.0 + sum(table[label, option] for label, option in a.items())


def test_an_expected_sum_is_that_of_enumeration_and_so_is_its_gradient():
    space = nested()
    cost = costs(space)
    expected = Expected(space, cost)
    assert expected.error < 1e-6
    alphas = random_alphas(space)
    for logits in alphas.logits.values():
        logits.requires_grad_()
    enumerated = sum(torch.exp(alphas.log_prob(a)) * cost(a) for a in space.all())
    for a in list(space.all())[:9]:
        assert expected.of(a) == pytest.approx(cost(a))
    told = expected(alphas)
    assert told.item() == pytest.approx(enumerated.item(), rel=1e-7)
    leaves = list(alphas.logits.values())
    for one, other in zip(
        torch.autograd.grad(told, leaves), torch.autograd.grad(enumerated, leaves)
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_the_error_says_how_far_from_a_sum_the_quantity_is():
    space = nested()
    assert Expected(space, lambda a: 1 + 9 * (a["first"] == "a") * (a["stack"] == 3)).error > 0.1
