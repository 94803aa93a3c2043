"""Opinions weighed on a small sample: what is trained, how it is weighed, and what it tells."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from assay.contracts import Estimate, Proposal
from assay.cost import Budget, derive
from assay.errors import InvalidSetting
from assay.estimators.fused import Fused, _expected
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.zero_cost import ZeroCost
from assay.testing import FakeEstimator, tiny_context


class Counted(FakeEstimator):
    """A fake whose estimates cost ten training steps each."""

    def steps_each(self, ctx):
        return 10

    def training_step_seconds(self, ctx):
        return 0.5


class Priced(FakeEstimator):
    """A fake that tells what it takes: 2 s a step, 0.25 s an estimate, 16 s a reference sample."""

    def step_seconds(self, ctx):
        return 2.0

    def estimate_seconds(self, ctx):
        return 0.25

    def reference_seconds(self, ctx):
        return 16.0


class Echo(FakeEstimator):
    """A signal that says just what the default's short training will."""

    def __init__(self, steps):
        super().__init__(len)
        self.of = LowFidelity(steps=steps)

    def estimate(self, ctx, proposals):
        return [Estimate(0.0, {"x": e.score}) for e in self.of.estimate(ctx, proposals)]


class Partial(FakeEstimator):
    """A fake signal that networks of depth one do not have, under a score that tells nothing."""

    def estimate(self, ctx, proposals):
        return [
            Estimate(0.0, {} if shallow(p.architecture) else {"x": self.score(p.architecture)})
            for p in proposals
        ]


def shallow(architecture):
    return architecture["body"] == 1


def structure(architecture):
    """Grows with width and with wide blocks, and is best at depth three."""
    wide = sum(option == "wide" for option in architecture.values())
    width = next(o for label, o in architecture.items() if label.startswith("neck"))
    return wide + 0.3 * width - 0.5 * abs(architecture["body"] - 3)


def luck(architecture):
    """Is known of each architecture, and follows from nothing that can be seen of it."""
    return float(derive(5, "luck", architecture.to_json()).normal())


def both(architecture):
    return structure(architecture) + luck(architecture)


def prepared(fused, steps=240):
    ctx = tiny_context()
    for _ in fused.prepare(ctx, Budget(steps=steps)):
        pass
    return ctx


def signals():
    return ZeroCost(("macs", "synflow"), reference=8, batch=8)


def new_points(ctx, known, num=150):
    rng = derive(9, "new")
    points = dict.fromkeys(ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num))
    return [a for a in points if a not in known]


def scores(estimator, ctx, points):
    return [e.score for e in estimator.estimate(ctx, [Proposal(a) for a in points])]


@pytest.fixture(scope="module")
def weighed():
    """Return a prepared one of which neither part alone can tell the score, and its sample."""
    fake = Counted(both)
    fused = Fused(FakeEstimator(luck), fake)
    ctx = prepared(fused, 400)
    return fused, ctx, fake.estimated


def test_it_ranks_better_than_each_part_alone(weighed):
    fused, ctx, sample = weighed
    regression = Predictor(Counted(both))
    list(regression.prepare(ctx, Budget(steps=400)))
    points = new_points(ctx, sample)
    truth = [both(a) for a in points]
    alone = [scores(regression, ctx, points), [luck(a) for a in points]]
    parts = [kendalltau(told, truth).statistic for told in alone]
    assert kendalltau(scores(fused, ctx, points), truth).statistic > max(parts) + 0.05


@pytest.mark.parametrize("steps", [120, 400])
def test_intervals_cover_at_least_about_as_often_as_they_say(steps):
    fake = Counted(both)
    fused = Fused(FakeEstimator(luck), fake)
    ctx = prepared(fused, steps)
    points = new_points(ctx, fake.estimated)
    told = fused.estimate(ctx, [Proposal(a) for a in points])
    off = np.array([(both(a) - e.score) / e.metrics["deviation"] for a, e in zip(points, told)])
    assert np.mean(np.abs(off) < 1.645) > 0.85  # 0.90 if exact
    assert 0.4 < np.sqrt(np.mean(off**2)) < 1.2  # 1 if exact: rather wide than narrow


def test_an_estimate_tells_the_weights_which_few_examples_leave_near_equal_parts():
    fused = Fused(FakeEstimator(luck), Counted(both))
    ctx = prepared(fused, 80)
    (estimate,) = fused.estimate(ctx, [Proposal(ctx.space.largest())])
    told = json.loads(json.dumps(estimate.made_from))
    assert told["sample"] == 8
    assert told["weights"] == pytest.approx({"process": 0.5, "signals": 0.5}, abs=0.1)
    assert told["tau_held_out"] > told["best_single_tau"]


def test_size_has_a_third_of_the_signals_part():
    fused = Fused(signals(), Counted(structure), others=(FakeEstimator(structure),))
    ctx = prepared(fused, 160)
    (estimate,) = fused.estimate(ctx, [Proposal(ctx.space.largest())])
    expected = {"process": 3 / 9, "FakeEstimator 0": 3 / 9, "signals": 2 / 9, "signal macs": 1 / 9}
    assert _expected(
        ["process", "signals", "FakeEstimator 0", "signal macs", "signal synflow"]
    ) == (pytest.approx(expected))
    assert set(estimate.made_from["weights"]) <= set(expected)


def test_the_deviation_is_larger_away_from_the_sample(weighed):
    fused, ctx, sample = weighed
    near, far = (
        np.mean(
            [e.metrics["deviation"] for e in fused.estimate(ctx, [Proposal(a) for a in points])]
        )
        for points in (sample, new_points(ctx, sample))
    )
    assert 0 < near < far


def test_the_budget_pays_for_so_many_trainings_and_none_twice():
    fake = Counted(structure)
    fused = Fused(signals(), fake, candidates=2)
    ctx = prepared(fused, 245)
    assert len(fake.estimated) == len(set(fake.estimated)) == 24
    assert fused.step_seconds(ctx) == 0.5


def test_it_tells_what_all_of_its_parts_take():
    """Three parts share the steps; a candidate is seen by the signals and both others."""
    ctx = tiny_context()
    alone = Fused(Priced(len), Counted(structure))
    assert (alone.step_seconds(ctx), alone.estimate_seconds(ctx)) == (0.5, 0.25)
    assert alone.setup_seconds(ctx, 240) == 16.0 + 3 * 24 * 0.25
    fused = Fused(Priced(len), Counted(structure), (Priced(len), Priced(len)), candidates=2)
    assert fused.step_seconds(ctx) == (0.5 + 2.0 + 2.0) / 3
    assert fused.estimate_seconds(ctx) == 0.75
    assert fused.setup_seconds(ctx, 3 * 160) == 16.0 + 2 * 16 * 0.75
    assert Fused(Priced(len), Counted(structure)).setup_seconds(ctx, 0) == 16.0 + 3 * 8 * 0.25


def test_a_signal_that_is_not_surely_better_is_told_and_not_taken_alone():
    """It agrees with the sample wholly, but so does what is learned from it, nearly."""
    ctx = tiny_context()
    steps = ctx.recipe.epochs * ctx.task.steps_per_epoch(ctx.recipe.batch_size)
    fused = Fused(Echo(steps))
    list(fused.prepare(ctx, Budget(steps=12 * steps)))
    (estimate,) = fused.estimate(ctx, [Proposal(ctx.space.largest())])
    told = estimate.made_from
    assert told["sample"] == 12
    assert (told["best_single"], told["best_single_tau"]) == ("signal x", pytest.approx(1.0))
    assert told["tau_held_out"] < told["best_single_tau"]
    assert "process" in told["weights"]
    assert "signal x" not in told["weights"]
    assert fused.state_dict()["whole"] is False


def test_the_others_have_an_equal_part_of_the_steps_and_a_vote():
    fake, other = Counted(structure), FakeEstimator(structure)
    fused = Fused(signals(), fake, others=(other,))
    ctx = prepared(fused, 240)
    assert (len(fake.estimated), other.steps) == (12, 120)
    (estimate,) = fused.estimate(ctx, [Proposal(ctx.space.largest())])
    assert estimate.made_from["weights"]["FakeEstimator 0"] > 0


def test_the_best_are_sought_after_the_first_half():
    fake = Counted(structure)
    prepared(Fused(signals(), fake), 240)
    first, second = (
        np.mean([structure(a) for a in part]) for part in (fake.estimated[:12], fake.estimated[12:])
    )
    assert second > first + 0.5


def test_the_first_half_is_spread_over_the_signals():
    fake = Counted(structure)
    fused = Fused(ZeroCost(("macs",)), fake, candidates=4)
    prepared(fused, 200)
    ranked = sorted(told["signals"] for told in fused._opinions.values())
    evenly = [ranked[round(i)] for i in np.linspace(0, len(ranked) - 1, 10)]
    told = [fused._opinions[a]["signals"] for a in fake.estimated[:10]]
    assert sorted(told) == evenly


def test_a_signal_that_is_not_defined_ranks_lowest():
    def score(a):
        return -10.0 if shallow(a) else luck(a)

    fused = Fused(Partial(luck), Counted(score))
    ctx = prepared(fused)
    points = new_points(ctx, ())
    told = fused.estimate(ctx, [Proposal(a) for a in points])
    assert told[0].made_from["weights"] == {"signal x": 1.0}
    without = {e.score for e, a in zip(told, points) if shallow(a)}
    assert len(without) == 1
    assert max(without) < min(e.score for e, a in zip(told, points) if not shallow(a))


def test_a_budget_for_fewer_than_eight_is_refused():
    with pytest.raises(InvalidSetting, match=r"pay for 7 trainings of 10.*give a larger budget"):
        prepared(Fused(signals(), Counted(structure)), 79)


@pytest.mark.parametrize("options", [{"sample": 7}, {"candidates": 0}, {"batch": 0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InvalidSetting, match=next(iter(options))):
        Fused(**options)


def test_a_sample_of_what_trains_none_by_itself_is_refused():
    with pytest.raises(InvalidSetting, match=r"estimator\.of=OneShot has no steps_each.*in others"):
        Fused(of=OneShot())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"others": ("one-shot",)}, r"others='one-shot' is no estimator; give an object"),
        ({"others": OneShot()}, r"others=OneShot.*: give a tuple of estimators"),
        ({"of": "scratch"}, r"of='scratch' is no estimator"),
        ({"signals": "zero-cost"}, r"signals='zero-cost' is no estimator"),
    ],
)
def test_a_name_in_the_place_of_an_estimator_is_refused(settings, said):
    with pytest.raises(InvalidSetting, match=said):
        Fused(**settings)


def test_without_a_sample_it_says_what_to_do() -> None:
    ctx = tiny_context()
    with pytest.raises(InvalidSetting, match="prepare it first"):
        Fused(signals=ZeroCost(("macs",))).estimate(ctx, [Proposal(ctx.space.largest())])
