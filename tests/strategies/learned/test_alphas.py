"""A distribution over architectures, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay.cost import derive
from assay.errors import InvalidSetting, InvalidStudy
from assay.space.choices import Depth, OneOf
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas, chance_taken
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


def log_prob(alphas: Alphas, options) -> torch.Tensor:
    """Return the log of the probability of some decisions' options; differentiable."""
    choices = alphas.space.choices
    return sum(
        torch.log_softmax(alphas.logits[label], 0)[choices[label].options.index(option)]
        for label, option in options.items()
    )


def over_all(alphas: Alphas, value) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the expectation of a value by enumeration, and its gradient by the logits."""
    own = Alphas(alphas.space)
    own.logits = {k: v.clone().requires_grad_() for k, v in alphas.logits.items()}
    total = sum(torch.exp(log_prob(own, a)) * value(a) for a in own.space.all())
    found = torch.autograd.grad(total, list(own.logits.values()), materialize_grads=True)
    return total.item(), dict(zip(own.logits, found))


def probability(alphas, architecture) -> float:
    return float(torch.exp(log_prob(alphas, architecture)))


def taken(alphas, label) -> float:
    p = {k: alphas.probabilities(k) for k in alphas.logits}
    return float(chance_taken(alphas.space, label, p))


def test_probabilities_of_all_architectures_add_up_to_one():
    space = nested()
    alphas = random_alphas(space)
    assert sum(probability(alphas, a) for a in space.all()) == pytest.approx(1.0, abs=1e-12)


def test_a_decision_is_taken_as_often_as_enumeration_says():
    space = nested()
    alphas = random_alphas(space)
    for label in space.choices:
        expected = sum(probability(alphas, a) for a in space.all() if label in a)
        assert taken(alphas, label) == pytest.approx(expected, abs=1e-12), label


def test_a_decision_with_many_ways_to_it_is_worked_out_at_once():
    space = mobile()
    assert max(len(choice.conditions) for choice in space.choices.values()) > 20
    alphas = random_alphas(space)
    drawn = [alphas.sample(np.random.default_rng(i)) for i in range(500)]
    for label in space.choices:
        share = sum(label in a for a in drawn) / len(drawn)
        assert taken(alphas, label) == pytest.approx(share, abs=0.08), label


def test_the_entropy_is_that_of_what_is_drawn():
    alphas = random_alphas(nested())
    chances = [probability(alphas, a) for a in alphas.space.all()]
    exact = -sum(p * np.log(p) for p in chances)
    most = sum(taken(alphas, k) * np.log(len(c.options)) for k, c in alphas.space.choices.items())
    assert alphas.entropy_share() == pytest.approx(exact / most, abs=1e-12)
    assert Alphas(alphas.space).entropy_share() == pytest.approx(1.0)


def test_decisions_that_settled_ones_never_lead_to_have_no_entropy():
    alphas = Alphas(nested())
    for label, option in {"first": "b", "second": "d", "stack": 1}.items():
        alphas.logits[label][alphas.space.choices[label].options.index(option)] = 40.0
    assert alphas.entropy_share() < 1e-12  # though nothing was learned of the three inside of "a"
    alphas.logits["first"] = torch.tensor([40.0, 0.0], dtype=torch.float64)
    assert alphas.entropy_share() > 0.3


def test_an_option_without_a_chance_is_none():
    alphas = Alphas(Space(OneOf(a=linear(), b=linear(), c=linear())))
    (label,) = alphas.logits
    alphas.logits[label][0] = -torch.inf
    assert alphas.entropy_share() == pytest.approx(1.0)
    alphas.logits[label][1] = -torch.inf
    assert alphas.entropy_share() == 1.0  # one is left, and nothing has settled it


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


def inner() -> OneOf:
    return OneOf(p=linear(), q=linear(), r=linear())


def wrapped() -> Space:
    """An option with nine inner ones, and a flat one."""
    nine = OneOf({f"i{i}": nn.Identity() for i in range(9)}, label="inner")
    return Space(nn.Sequential(OneOf({"flat": nn.Identity(), "deep": nine}, label="outer")))


def in_nine(architecture) -> float:
    return 9.5 if architecture["outer"] == "flat" else 10.0


@pytest.mark.parametrize("seed", range(3))
def test_an_expected_sum_is_that_of_enumeration_and_so_are_its_slopes(seed):
    space = nested()
    cost, alphas = costs(space), random_alphas(space, seed)
    expected = Expected(space, cost, seed=seed)
    assert expected.error < 1e-6
    told, by_option = expected.by_option(alphas)
    enumerated, gradients = over_all(alphas, cost)
    assert told == expected(alphas) == pytest.approx(enumerated, rel=1e-7)
    for label, exact in gradients.items():
        p = alphas.probabilities(label)
        mean = (p * by_option[label]).sum()
        found = taken(alphas, label) * p * (by_option[label] - mean)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8, msg=label)


def test_what_lies_in_an_option_counts_as_its_cost():
    space = wrapped()
    expected = Expected(space, in_nine)
    flat, deep = expected.by_option(Alphas(space))[1]["outer"].tolist()
    assert deep - flat == pytest.approx(0.5)
    # The least of all solutions gives the inner decision a share that the outer one then lacks.
    assert expected.costs["outer"][1] - expected.costs["outer"][0] < 0.2


def test_the_cheapest_is_that_of_enumeration():
    outer = OneOf({"a": nn.Sequential(inner(), inner()), "b": inner(), "c": linear()})
    tree = Space(nn.Sequential(outer, Depth(linear(), inner(), inner(), min=0)))
    for space, cost in [(wrapped(), in_nine), (tree, costs(tree))]:
        cheapest = Expected(space, cost).cheapest()
        assert cost(cheapest) == pytest.approx(min(cost(a) for a in space.all()))


def test_it_is_fitted_to_what_draws_would_hardly_lead_to():
    module = inner()
    for _ in range(6):
        module = OneOf(deeper=module, **{f"o{i}": linear() for i in range(3)})
    space = Space(nn.Sequential(module))
    cost = costs(space)
    expected, alphas = Expected(space, cost), random_alphas(space)
    assert expected.error < 1e-9
    assert expected(alphas) == pytest.approx(over_all(alphas, cost)[0])


def test_the_error_says_how_far_from_a_sum_the_quantity_is():
    space = nested()
    assert Expected(space, lambda a: 1 + 9 * (a["first"] == "a") * (a["stack"] == 3)).error > 0.1


def test_a_quantity_of_which_nothing_has_any_is_refused():
    with pytest.raises(InvalidSetting, match=r"0 for all of \d+ .*strategy\.quantity"):
        Expected(nested(), lambda a: 0.0)
