"""The controller against enumeration, and what rewards make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.contracts import Estimate, History, Trial
from assay.errors import InvalidSetting
from assay.strategies.learned.controller import Controller
from assay.strategies.learned.reinforce import Reinforce
from tests.strategies.learned.test_alphas import nested


def randomised(space) -> Controller:
    controller = Controller(space, hidden=8).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.normal_(generator=generator)
    return controller


def reward(architecture) -> float:
    return float(architecture["first"] == "a") + 0.5 * architecture["stack"]


def test_probabilities_of_all_architectures_add_up_to_one():
    space = nested()
    controller = randomised(space)
    total = sum(float(torch.exp(controller.judge(a)[0].detach())) for a in space.all())
    assert total == pytest.approx(1.0, abs=1e-6)


def test_draws_follow_the_probabilities():
    space, rng, n = nested(), np.random.default_rng(0), 4000
    controller = randomised(space)
    points = list(space.all())
    counts = dict.fromkeys(points, 0)
    for _ in range(n):
        counts[controller.sample(rng)] += 1
    expected = {a: n * float(torch.exp(controller.judge(a)[0].detach())) for a in points}
    likely = [a for a in points if expected[a] > 5]
    chi2 = sum((counts[a] - expected[a]) ** 2 / expected[a] for a in likely)
    assert chi2 < len(likely) + 5 * np.sqrt(2 * len(likely))


def test_the_policy_gradient_is_that_of_the_enumerated_expectation():
    space = nested()
    controller = randomised(space)
    points, parameters = list(space.all()), list(controller.parameters())
    logs = torch.stack([controller.judge(a)[0] for a in points])
    rewards = torch.tensor([reward(a) for a in points], dtype=torch.float64)
    exact = torch.autograd.grad((logs.exp() * rewards).sum(), parameters, retain_graph=True)
    for baseline in (0.0, 0.7):  # which does not bias it
        weight = logs.exp().detach() * (rewards - baseline)
        told = torch.autograd.grad((weight * logs).sum(), parameters, retain_graph=True)
        for one, other in zip(told, exact):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def grown(strategy, num: int, worth=reward, over=lambda a: 0.0) -> History:
    history = History(nested())
    while len(history) < num:
        rng = np.random.default_rng(len(history))
        for proposal in strategy.ask(history, 4, rng=rng):
            a, violation = proposal.architecture, over(proposal.architecture)
            number = len(history)
            if violation:
                history.append(Trial(number, a, "infeasible", violation=violation))
            else:
                score = worth(a)
                history.append(Trial(number, a, "scored", Estimate(score), objectives=(score,)))
    return history


def drawn(strategy, history, n: int = 200):
    rng = np.random.default_rng(99)
    return [p.architecture for p in strategy.ask(history, n, rng=rng)]


@pytest.mark.parametrize("settings", [{}, {"clip": 0.2, "epochs": 3}])
def test_it_learns_to_draw_what_is_rewarded(settings):
    strategy = Reinforce(**settings)
    before = np.mean([reward(a) for a in drawn(strategy, History(nested()))])
    history = grown(strategy, 400)
    after = np.mean([reward(a) for a in drawn(strategy, history)])
    assert after > before + 0.4


def test_it_learns_to_stay_within_a_limit():
    strategy = Reinforce()
    history = grown(strategy, 400, worth=lambda a: 1.0, over=lambda a: 0.5 * (a["stack"] == 3))
    assert np.mean([a["stack"] == 3 for a in drawn(strategy, history)]) < 0.2


def test_it_is_a_function_of_the_history():
    one = Reinforce()
    history = grown(one, 60)
    assert drawn(one, history, 20) == drawn(Reinforce(), history, 20)
    other = grown(Reinforce(), 24, worth=lambda a: -reward(a))
    assert drawn(one, other, 20) == drawn(Reinforce(), other, 20)  # another history: begins anew


@pytest.mark.parametrize(
    "settings", [{"batch": 0}, {"lr": 0.0}, {"baseline": 1.0}, {"clip": 1.5}, {"epochs": 2}]
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        Reinforce(**settings)
