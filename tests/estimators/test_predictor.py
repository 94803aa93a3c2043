"""A regression over few estimates: what it chooses to be told, and what it tells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, norm

from assay.contracts import Proposal
from assay.cost import Budget, derive
from assay.errors import InvalidSetting
from assay.estimators import predictor as module
from assay.estimators.features import Features, Scaler
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor, expected_improvement, spread
from assay.estimators.surrogate import tamed
from assay.estimators.zero_cost import ZeroCost, _Signals
from assay.testing import FakeEstimator, tiny_context


class Counted(FakeEstimator):
    """A fake whose estimates cost ten training steps each."""

    def steps_each(self, ctx):
        return 10

    def training_step_seconds(self, ctx):
        return 0.5


class Knows(ZeroCost):
    """Signals of which one says what follows from nothing else that can be seen."""

    def _measure(self, ctx, points):
        return [_Signals({"macs": float(len(a)), "snip": luck(a)}, samples=8) for a in points]


def luck(architecture):
    """Is known of each architecture, and follows from nothing that can be seen of it."""
    return float(derive(5, "luck", architecture.to_json()).normal())


def worth(architecture):
    """Grows with width and with wide blocks, and is best at depth three."""
    wide = sum(option == "wide" for option in architecture.values())
    width = next(o for label, o in architecture.items() if label.startswith("neck"))
    return wide + 0.3 * width - 0.5 * abs(architecture["body"] - 3)


def prepared(steps=400, **options):
    ctx, fake = tiny_context(), Counted(worth)
    predictor = Predictor(fake, **options)
    for _ in predictor.prepare(ctx, Budget(steps=steps)):
        pass
    return predictor, fake, ctx


def test_the_budget_pays_for_so_many_estimates_and_none_twice():
    predictor, fake, ctx = prepared(steps=405)
    assert len(fake.estimated) == len(set(fake.estimated)) == 40
    assert predictor.step_seconds(ctx) == 0.5


@pytest.mark.parametrize("model", ["gp", "trees"])
def test_it_ranks_what_it_was_not_told(model):
    predictor, fake, ctx = prepared(model=model, explore=1.0)
    rng = derive(9, "new")
    points = [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(150)]
    points = [a for a in dict.fromkeys(points) if a not in fake.estimated]
    told = [e.score for e in predictor.estimate(ctx, [Proposal(a) for a in points])]
    assert kendalltau(told, [worth(a) for a in points]).statistic > 0.7


def test_improvement_is_sought_after_the_first_half():
    _, fake, _ = prepared(steps=400, explore=0.5)
    first, second = (
        np.mean([worth(a) for a in part]) for part in (fake.estimated[:20], fake.estimated[20:])
    )
    assert second > first + 1.0


def test_expected_improvement_is_the_integral():
    mean, deviation, best = np.array([0.3, -1.0, 2.0]), np.array([0.5, 1.0, 0.1]), 0.4
    grid = np.linspace(-8, 8, 40001)
    for m, d, told in zip(mean, deviation, expected_improvement(mean, deviation, best)):
        density = norm.pdf(grid, m, d)
        expected = np.trapezoid(np.maximum(0, grid - best) * density, grid)
        assert told == pytest.approx(expected, abs=1e-5)


def test_the_spread_is_farthest_first():
    ctx = tiny_context()
    rng = derive(2, "points")
    points = list(dict.fromkeys(ctx.space.canonical(ctx.space.sample(rng)) for _ in range(30)))
    rows = Features(ctx.space, ctx.task.example(1))
    chosen = spread(points, 6, rows)
    blocks = [rows(a) for a in points]
    where = dict(zip(points, Scaler(blocks)(blocks)))
    for i in range(1, 6):

        def away(a, i=i):
            return min(np.linalg.norm(where[a] - where[b]) for b in chosen[:i])

        assert away(chosen[i]) == pytest.approx(max(away(a) for a in points))


def test_each_block_of_features_weighs_alike():
    ctx = tiny_context()
    rng = derive(2, "points")
    rows = Features(ctx.space, ctx.task.example(1))
    blocks = [rows(ctx.space.canonical(ctx.space.sample(rng))) for _ in range(200)]
    scaled, start = Scaler(blocks)(blocks), 0
    for block in blocks[0]:
        part = scaled[:, start : start + len(block)]
        varying = part.std(0) > 0
        assert np.square(part).sum(1).mean() == pytest.approx(varying.mean())
        start += len(block)


def test_a_budget_for_fewer_than_four_is_refused():
    with pytest.raises(InvalidSetting, match="pay for 3 trainings of 10 steps"):
        prepared(steps=39)


@pytest.mark.parametrize(
    "options", [{"model": "net"}, {"sample": 3}, {"explore": 0.0}, {"pool": 0}, {"batch": 0}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InvalidSetting, match=next(iter(options))):
        Predictor(**options)


def test_it_learns_from_a_supernet_that_the_budget_prepares():
    ctx = tiny_context()
    predictor = Predictor(OneShot(), sample=12)
    assert predictor.step_seconds(ctx) > 0
    for _ in predictor.prepare(ctx, Budget(steps=5)):
        pass
    rng = derive(3, "new")
    proposals = [Proposal(ctx.space.sample(rng)) for _ in range(4)]
    told = [e.score for e in predictor.estimate(ctx, proposals)]
    assert len(predictor.state_dict()["sample"]) == 12
    other = Predictor(OneShot(), sample=12)
    other.load_state_dict(predictor.state_dict())
    assert [e.score for e in other.estimate(ctx, proposals)] == pytest.approx(told)


def test_it_may_be_told_signals_beside_the_rest():
    taus = {}
    for name, signals in (("with", Knows(("macs", "snip"), reference=16)), ("without", None)):
        ctx = tiny_context()
        predictor = Predictor(Counted(luck), pool=32, explore=1.0, signals=signals)
        costs = list(predictor.prepare(ctx, Budget(steps=400)))
        rng = derive(9, "new")
        points = [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(60)]
        estimates = predictor.estimate(ctx, [Proposal(a) for a in points])
        taus[name] = kendalltau([e.score for e in estimates], list(map(luck, points))).statistic
        booked = signals is not None
        assert (sum(c.samples for c in costs) > 0) == booked
        assert all((e.cost.samples > 0) == (e.cost.macs > 0) == booked for e in estimates)
    assert taus["with"] > 0.6
    assert abs(taus["without"]) < 0.3


def test_signals_are_part_of_its_price():
    ctx = tiny_context()
    signals = Knows(("macs", "snip"), reference=16)
    signals.estimate_seconds = lambda ctx: 0.25
    predictor = Predictor(Counted(worth), signals=signals, pool=10, batch=4, explore=0.5)
    # 16 of the reference, 20 of the sample, and 3 pools of 10 for the second half of it
    assert predictor.setup_seconds(ctx, 200) == 0.25 * (16 + 20 + 30)
    assert Predictor(Counted(worth)).setup_seconds(ctx, 200) == 0.0


def test_estimates_of_one_that_is_prepared_are_part_of_its_price():
    class Priced(FakeEstimator):
        def estimate_seconds(self, ctx):
            return 0.25

        def setup_seconds(self, ctx, steps):
            return 0.01 * steps

    ctx = tiny_context()
    assert Predictor(Priced(worth)).setup_seconds(ctx, 200) == 2.0 + 64 * 0.25
    assert Predictor(Priced(worth), sample=12).setup_seconds(ctx, 200) == 2.0 + 12 * 0.25
    assert Predictor(Priced(worth), sample=5000).setup_seconds(ctx, 200) == 2.0 + 1089 * 0.25
    assert Predictor(FakeEstimator(worth)).setup_seconds(ctx, 200) == 0.0


def test_a_single_signal_is_refused():
    with pytest.raises(InvalidSetting, match=r"estimator\.signals=.*has one signal"):
        Predictor(signals=ZeroCost(("snip",)))


def test_improvement_is_sought_over_the_best_as_the_model_was_told_it(monkeypatch):
    """One score far above all others is drawn in for the model, and so it is for what it seeks."""
    bests, known = [], []

    def improvement(mean, deviation, best):
        bests.append(best)
        return expected_improvement(mean, deviation, best)

    def score(architecture):
        known.append(1e6 if len(known) == 2 else worth(architecture))
        return known[-1]

    monkeypatch.setattr(module, "expected_improvement", improvement)
    list(Predictor(Counted(score), explore=0.5, batch=8).prepare(tiny_context(), Budget(steps=160)))
    assert bests == [tamed(np.array(known[:8])).max()]
    assert bests[0] < 100


def test_without_a_sample_it_says_what_to_do() -> None:
    ctx = tiny_context()
    with pytest.raises(InvalidSetting, match="prepare it first"):
        Predictor().estimate(ctx, [Proposal(ctx.space.largest())])


def test_the_steps_of_its_trainings_are_its_steps() -> None:
    ctx = tiny_context()
    estimator = Predictor(of=LowFidelity(steps=3), batch=4)
    parts = list(estimator.prepare(ctx, Budget(steps=24)))
    assert [part.steps for part in parts] == [0, 3, 3, 3, 3, 0, 3, 3, 3, 3]


def test_a_name_in_the_place_of_an_estimator_is_refused():
    with pytest.raises(InvalidSetting, match=r"of='one-shot' is no estimator; give an object"):
        Predictor(of="one-shot")
