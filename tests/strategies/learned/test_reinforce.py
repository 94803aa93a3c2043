"""REINFORCE and PPO: their gradients against enumeration, and what rewards make of a controller."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.contracts import Estimate, History, Trial
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.scratch import Scratch
from assay.executors.inline import Inline
from assay.executors.processes import Processes
from assay.strategies.learned.reinforce import Reinforce, _Learned
from assay.train.recipe import Recipe
from tests.run.test_loop import Instant, few, ran, searcher, space
from tests.strategies.learned import toys
from tests.strategies.learned.test_alphas import nested
from tests.strategies.learned.test_controller import connections, randomise, softened


def reward(architecture) -> float:
    return float(architecture["first"] == "a") + 0.5 * architecture["stack"]


def linked(architecture) -> float:
    return (architecture["layer3.from1"] == "skip") + 0.5 * (architecture["last"] == (0, 2))


def learner(of, **settings) -> _Learned:
    learned = _Learned(History(of), Reinforce(hidden=6, **settings))
    randomise(learned.controller)
    return learned


def trials_of(points, scores) -> list[Trial]:
    return [
        Trial(i, a, "scored", Estimate(s), objectives=(s,))
        for i, (a, s) in enumerate(zip(points, scores))
    ]


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "worth"), [(nested, reward), (connections, linked)])
@pytest.mark.parametrize(("clip", "baseline"), [(0.0, 0.7), (0.2, 0.0)])
def test_its_expected_gradient_is_that_of_the_enumerated_reward_and_entropy(
    make, worth, clip, baseline
):
    learned = learner(make(), entropy=0.3, clip=clip)
    points = list(learned.controller.space.all())
    parameters = list(learned.controller.parameters())
    logs = learned._logs(points)
    p, rewards = logs.exp(), torch.tensor([worth(a) for a in points], dtype=torch.float64)
    assert float(p.sum().detach()) == pytest.approx(1.0)
    climbed = (p * rewards).sum() - 0.3 * (p * logs).sum()
    exact = torch.autograd.grad(climbed, parameters, retain_graph=True)
    drawn = []
    for i, a in enumerate(points):
        learned._baseline = baseline  # which does not bias it
        log = logs[i : i + 1]
        gains = learned._gains([worth(a)], log.detach())
        drawn.append(learned._surrogate(log, log.detach(), gains))
    told = torch.autograd.grad((p.detach() * torch.stack(drawn)).sum(), parameters)
    for one, other in zip(told, exact):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_where_nothing_is_clipped_ppo_climbs_what_is_expected_now_of_what_was_drawn_before():
    learned = learner(nested(), clip=0.9)
    points = list(learned.controller.space.all())
    before = learned._logs(points).detach()
    with torch.no_grad():
        for parameter in learned.controller.parameters():
            parameter.mul_(1.03)
    parameters = list(learned.controller.parameters())
    logs = learned._logs(points)
    assert 0.01 < float((logs - before).abs().max().detach()) < math.log(1.9)
    gains = torch.tensor([reward(a) - 1.0 for a in points], dtype=torch.float64)
    exact = torch.autograd.grad((logs.exp() * gains).sum(), parameters, retain_graph=True)
    # the mean that the surrogate takes, weighed by the chance of each draw
    drawn = before.exp() * len(points)
    told = torch.autograd.grad(learned._surrogate(logs, before, drawn * gains), parameters)
    for one, other in zip(told, exact):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("gain", "ratio", "value", "slope"),
    [
        (2.0, 1.1, 2.2, 2.2), (2.0, 1.3, 2.4, 0.0), (2.0, 0.5, 1.0, 1.0),
        (-2.0, 0.9, -1.8, -1.8), (-2.0, 0.7, -1.6, 0.0), (-2.0, 1.5, -3.0, -3.0),
    ],
)  # fmt: skip
def test_ppo_gains_nothing_from_a_ratio_beyond_its_clip(gain, ratio, value, slope):
    learned = learner(nested(), clip=0.2)
    logs = torch.tensor([math.log(ratio) - 1.5], dtype=torch.float64, requires_grad=True)
    before, gains = torch.full_like(logs, -1.5).detach(), torch.tensor([gain])
    found = learned._surrogate(logs, before, gains)
    (told,) = torch.autograd.grad(found, [logs])
    assert float(found.detach()) == pytest.approx(value)
    assert float(told) == pytest.approx(slope)  # d/d log P = ratio * gain


@pytest.mark.parametrize(("entropy", "cut"), [(0.0, False), (5.0, True)])
def test_a_batch_moves_along_its_mean_gradient_cut_to_the_length_of_one(entropy, cut):
    learned, twin = (learner(nested(), entropy=entropy) for _ in range(2))
    points = list(learned.controller.space.all())[::3]
    scores = [float(i % 2) for i in range(len(points))]
    learned.update(trials_of(points, scores))

    parameters = list(twin.controller.parameters())
    logs = twin._logs(points)
    r = (np.asarray(scores) - np.mean(scores)) / np.std(scores)
    whole = torch.from_numpy(r) - entropy * logs.detach()
    climbed = ((whole - whole.mean()) * logs).mean()
    slopes = torch.autograd.grad(climbed, parameters, allow_unused=True)
    length = math.sqrt(sum(float((s**2).sum()) for s in slopes if s is not None))
    assert (length > 1.0) == cut
    for moved, was, slope in zip(learned.controller.parameters(), parameters, slopes):
        if slope is None:
            assert torch.equal(moved, was)
            continue
        expected = -slope / max(1.0, length)
        torch.testing.assert_close(moved.grad, expected, rtol=1e-4, atol=1e-9)
        # the first step of Adam is lr along the sign of what is climbed
        clear = expected.abs() > 1e-4
        told = (moved - was).detach()[clear]
        torch.testing.assert_close(told, -0.01 * expected[clear].sign(), rtol=1e-3, atol=0)


def test_logits_are_divided_by_the_temperature():
    plain, soft = (learner(nested(), temperature=t).controller for t in (1.0, 5.0))
    point = next(iter(plain.space.all()))
    before = plain.steps(point)
    for label, logs in soft.steps(point).items():
        torch.testing.assert_close(logs, softened(before[label], 5.0))


# --- rewards --------------------------------------------------------------------------------------


def test_scores_are_cubed_before_they_are_standardised():
    points = list(nested().all())[:4]
    scores = [0.5, 0.9, 0.1, 0.6]
    learned = learner(nested(), power=3)
    cubed = np.asarray(scores) ** 3
    told = learned._standard(trials_of(points, scores))
    assert told == pytest.approx((cubed - cubed.mean()) / cubed.std())
    assert learned._average == pytest.approx(np.mean(scores))  # who watches is shown scores
    plain = learner(nested())._standard(trials_of(points, scores))
    assert plain == pytest.approx((scores - np.mean(scores)) / np.std(scores))


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_a_power_keeps_the_sign_and_the_order_of_scores(power):
    scores = [0.1, -0.2, -0.9]  # such as losses, which are told as what is to be raised
    learned = learner(nested(), power=power)
    told = learned._standard(trials_of(list(nested().all())[:3], scores))
    powers = np.sign(scores) * np.abs(scores) ** power
    assert told == pytest.approx((powers - powers.mean()) / powers.std())
    assert told == sorted(told, reverse=True)


def test_scores_that_are_all_alike_teach_nothing():
    learned = learner(nested())
    points = list(nested().all())[:8]
    for _ in range(3):  # whose mean is off by rounding: 24 times a tenth
        assert learned._standard(trials_of(points, [0.1] * 8)) == [0.0] * 8


def test_scores_too_close_for_a_deviation_are_no_error():
    points = list(nested().all())[:2]
    told = learner(nested())._standard(trials_of(points, [0.0, 1e-170]))
    assert told == pytest.approx([0.0, 0.0])


def test_the_baseline_is_the_moving_average_of_the_batches_means():
    learned = learner(nested(), baseline=0.75, entropy=0.0)
    before = torch.zeros(2, dtype=torch.float64)
    gains = [learned._gains(r, before).tolist() for r in ((0.2, 0.4), (0.5, 0.7), (0.0, 0.0))]
    second = 0.3 + 0.25 * 0.3
    expected = [[-0.1, 0.1], [0.2, 0.4], [-second, -second]]  # it moves after it was used
    assert np.array(gains) == pytest.approx(np.array(expected))
    assert learned._baseline == pytest.approx(0.75 * second)


def test_a_controller_that_is_no_longer_finite_is_told_of():
    learned = learner(nested(), lr=1e300)
    points = list(nested().all())[:2]
    with pytest.raises(
        NotFinite, match=r"not finite after trial 1; lower strategy\.lr \(1e\+300\)"
    ):
        learned.update(trials_of(points, [0.0, 1.0]))


def test_two_histories_that_begin_alike_are_learned_of_apart():
    strategy, one, other = Reinforce(batch=4), grown(Reinforce(batch=4), 8), History(nested())
    for t in one:
        other.append(replace(t, objectives=(-t.objectives[0],)))
    strategy.ask(one, 1, rng=np.random.default_rng(0))
    again, alone = (
        s.ask(other, 4, rng=np.random.default_rng(0)) for s in (strategy, Reinforce(batch=4))
    )
    assert again == alone


def over_by(points, violations) -> list[Trial]:
    return [
        Trial(10 + i, a, "infeasible", violation=v)
        for i, (a, v) in enumerate(zip(points, violations))
    ]


def test_what_is_over_a_limit_has_the_least_reward_of_its_batch_less_the_share_that_is_over():
    a, b, c, d, e = list(nested().all())[:5]
    batch = [*trials_of([a, b], [1.0, 3.0]), *over_by([c, d, e], [0.25, 1e3, math.inf])]
    least, learned = -1.0, learner(nested())
    shares = [0.25 / 1.25, 1e3 / 1001, 1.0]  # 1 - limit / value
    assert learned._standard(batch) == pytest.approx([-1.0, 1.0, *(least - x for x in shares)])
    assert learned._standard(over_by([c], [1.0])) == pytest.approx([least - 0.5])  # of all so far


def test_while_nothing_was_scored_the_share_that_is_over_is_all_that_counts():
    a, b, c = list(nested().all())[:3]
    batch = [*over_by([a, b], [1.0, 3.0]), Trial(2, c, "failed")]
    assert learner(nested())._standard(batch) == pytest.approx([-0.5, -0.75, 0.0])


# --- what it learns -------------------------------------------------------------------------------


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


@pytest.mark.parametrize("violation", [0.5, 1000.0])
def test_a_few_that_are_far_over_a_limit_do_no_harm_to_what_is_learned_later(violation):
    number = itertools.count()
    strategy = Reinforce()
    history = grown(
        strategy, 160, worth=lambda a: float(a["first"] == "a"),
        over=lambda a: violation * (next(number) < 16 and a["stack"] == 3),
    )  # fmt: skip
    assert 0 < sum(trial.state == "infeasible" for trial in history) < 16
    assert np.mean([a["first"] == "a" for a in drawn(strategy, history)]) > 0.9


def test_it_comes_nearer_to_a_limit_that_nothing_has_met():
    strategy = Reinforce()
    history = grown(strategy, 120, over=lambda a: float(a["stack"]))
    assert {trial.state for trial in history} == {"infeasible"}
    assert np.mean([trial.violation for trial in history[:32]]) > 1.7
    assert np.mean([a["stack"] for a in drawn(strategy, history)]) < 1.3


def test_it_is_a_function_of_the_history():
    one = Reinforce()
    history = grown(one, 60)
    assert drawn(one, history, 20) == drawn(Reinforce(), history, 20)
    other = grown(Reinforce(), 24, worth=lambda a: -reward(a))
    assert drawn(one, other, 20) == drawn(Reinforce(), other, 20)  # another history: begins anew


# --- within a search ------------------------------------------------------------------------------


class Noted(Reinforce):
    """Notes, of each draw that is new, how many trials were learned from and its log P."""

    def ask(self, history, n, *, rng):
        asked = super().ask(history, n, rng=rng)
        learned = self._taught(history)
        for proposal in asked:
            point = history.space.canonical(proposal.architecture)
            if history.seen(point) is None:
                log = float(learned.controller.log_prob(point).detach())
                self.drawn[point] = (learned.done, log)
        return asked


@pytest.mark.parametrize("settings", [{}, {"clip": 0.2, "epochs": 2}])
def test_every_batch_is_learned_from_by_the_controller_that_drew_it(
    tmp_path: Path, settings, monkeypatch
):
    strategy = Noted(batch=4, lr=0.05, **settings)
    strategy.drawn, seen = {}, []
    gains = _Learned._gains

    def noting(learned, rewards, before):
        seen.append(before.tolist())
        return gains(learned, rewards, before)

    monkeypatch.setattr(_Learned, "_gains", noting)
    search = searcher(tmp_path / "out", space(), strategy, limit=3, measure=few)
    found = ran(search, 18)
    assert any(state == "infeasible" for _, _, state, _ in found)
    told = [strategy.drawn[architecture] for _, architecture, _, _ in found]
    assert [done for done, _ in told] == [4 * (k // 4) for k in range(len(found))]
    before = [log for _, log in told]
    assert len(seen) >= len(found) // 4 - 1  # the last may not have been asked after
    for k, logs in enumerate(seen):
        assert logs == pytest.approx(before[4 * k : 4 * k + 4], abs=1e-6)


def test_a_killed_search_learns_the_same(tmp_path: Path):
    of = space()
    whole = ran(searcher(tmp_path / "whole", of, Reinforce(batch=4, lr=0.05)), 20)
    first = searcher(tmp_path / "killed", of, Reinforce(batch=4, lr=0.05), Instant(killed_at=4))
    with pytest.raises(KeyboardInterrupt):
        ran(first, 20)
    again = Reinforce(batch=4, lr=0.05)
    second = searcher(tmp_path / "killed", of, again, trials=list(first.history))
    assert ran(second, 20) == whole


class Counted(Processes):
    """Notes how many jobs ran at once."""

    most = 0

    def submit(self, work, *, in_place=False):
        job = super().submit(work, in_place=in_place)
        self.most = max(self.most, len(self._running))
        return job


def test_its_children_are_trained_in_parallel_and_teach_it_the_same(tmp_path: Path):
    executor, found = Counted(workers=2), []
    for i, made in enumerate((executor, Inline())):
        recipe = Recipe(lr=0.05, batch_size=64, epochs=1)
        ctx = replace(toys.context(toys.of_two), executor=made, recipe=recipe)
        strategy = Reinforce(batch=3, lr=0.05)
        search = searcher(tmp_path / str(i), ctx.space, strategy, Scratch(score="loss"), ctx=ctx)
        found.append(ran(search, 6))
        assert [known.step for known in strategy.learned(ctx.history)] == [3, 6]
    assert executor.most == 2
    assert [state for _, _, state, _ in found[0]] == ["scored"] * 6
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 0}, {"lr": 0.0}, {"baseline": 1.0}, {"clip": 1.5}, {"epochs": 2}, {"power": 0.0},
        {"temperature": 0.0}, {"entropy": -1.0}, {"power": math.inf},
        *({name: math.nan} for name in (
            "hidden", "layers", "temperature", "lr", "batch", "baseline", "entropy", "power",
            "clip", "epochs",
        )),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        Reinforce(**settings)
