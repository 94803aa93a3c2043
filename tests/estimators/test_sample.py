"""A sample that others learn from: one architecture that diverges takes no other with it."""

from __future__ import annotations

import math

import pytest

from assay.contracts import Proposal
from assay.cost import Budget, derive
from assay.errors import NotFinite
from assay.estimators.fused import Fused
from assay.estimators.predictor import Predictor
from assay.estimators.sample import Sample, asked, num_trainings, trainings
from assay.estimators.scratch import Scratch
from assay.testing import FakeEstimator, tiny_context


class Trains(FakeEstimator):
    """A fake whose estimates cost ten training steps each."""

    def steps_each(self, ctx):
        return 10

    def training_step_seconds(self, ctx):
        return 1e-6


class Raises(Trains):
    """Its whole batch is lost where one diverges."""

    def estimate(self, ctx, proposals):
        if any(diverges(p.architecture) for p in proposals):
            raise NotFinite("a training loss is not finite: [nan], at step 3; lower recipe.lr")
        return super().estimate(ctx, proposals)


class Backwards(Trains):
    """Tells one at a time, the last first."""

    def estimate_each(self, ctx, proposals):
        for i in reversed(range(len(proposals))):
            (said,) = self.estimate(ctx, [proposals[i]])
            yield i, said


def diverges(architecture):
    return architecture["body"] == 4


def worth(architecture):
    return sum(option == "wide" for option in architecture.values()) - 0.1 * len(architecture)


def silent(architecture):
    return math.nan if diverges(architecture) else worth(architecture)


MADE = {
    "predictor raises": lambda: Predictor(Raises(worth), batch=4, pool=64),
    "predictor nan": lambda: Predictor(Trains(silent), batch=4, pool=64),
    "fused raises": lambda: Fused(FakeEstimator(len), Raises(worth), batch=4),
    "fused nan": lambda: Fused(FakeEstimator(len), Trains(silent), batch=4),
    "predictor one by one": lambda: Predictor(Backwards(silent), batch=4, pool=64),
    "fused one by one": lambda: Fused(FakeEstimator(len), Backwards(silent), batch=4),
}


def known_and_failed(estimator):
    rows = estimator.state_dict()["sample"]
    return [r[:2] for r in rows if r[1] is not None], [[r[0], r[2]] for r in rows if r[2]]


def points(ctx, num):
    rng = derive(7, "points")
    return [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(num)]


@pytest.mark.parametrize("of", [Raises(worth), Trains(silent)], ids=["raises", "nan"])
def test_each_is_told_by_itself(of):
    ctx = tiny_context()
    those = points(ctx, 12)
    told = asked(ctx, of, those)
    assert any(map(diverges, those))
    for point, said in zip(those, told):
        if diverges(point):
            assert isinstance(said, NotFinite)
        else:
            assert said.score == worth(point)


def test_any_other_error_is_raised_on():
    def score(architecture):
        raise KeyError("a fault of the estimator")

    with pytest.raises(KeyError, match="a fault of the estimator"):
        asked(tiny_context(), FakeEstimator(score), points(tiny_context(), 2))


@pytest.mark.parametrize("name", MADE)
def test_what_diverges_is_left_out_and_told(name):
    estimator, ctx = MADE[name](), tiny_context()
    list(estimator.prepare(ctx, Budget(steps=240)))
    known, failed = known_and_failed(estimator)
    assert len(known) + len(failed) == 24
    assert len(failed) > 0
    assert all(math.isfinite(score) for _, score in known)
    assert all("not finite" in why or "is nan" in why for _, why in failed)
    estimates = estimator.estimate(ctx, [Proposal(a) for a in points(ctx, 20)])
    assert all(math.isfinite(e.score) for e in estimates)
    for e in estimates:
        assert e.made_from["sample"] == len(known)
        assert e.made_from["diverged"] == [text for text, _ in failed]


@pytest.mark.parametrize("kind", ["predictor", "fused"])
def test_in_what_order_scores_come_makes_no_difference(kind):
    together, backwards = MADE[f"{kind} nan"](), MADE[f"{kind} one by one"]()
    for estimator in (together, backwards):
        list(estimator.prepare(tiny_context(), Budget(steps=240)))
    assert backwards.state_dict() == together.state_dict()


@pytest.mark.parametrize("kind", ["predictor", "fused"])
def test_progress_is_told_after_each_training(kind):
    estimator = MADE[f"{kind} one by one"]()
    costs = estimator.prepare(tiny_context(), Budget(steps=240))
    assert [c.steps for c in costs if getattr(c, "steps", 0)] == [10] * 24


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("trainings", [0, 3, 4, 13, 23])
def test_a_kill_loses_no_score_and_changes_no_choice(name, trainings):
    whole, first, later = (MADE[name]() for _ in range(3))
    list(whole.prepare(tiny_context(), Budget(steps=240)))
    steps = 0
    for cost in first.prepare(tiny_context(), Budget(steps=240)):
        steps += getattr(cost, "steps", 0)
        if steps >= 10 * trainings:
            break
    later.load_state_dict(first.state_dict())
    known = sum(map(len, known_and_failed(later)))
    assert known == steps // 10
    costs = later.prepare(tiny_context(), Budget(steps=240))
    assert sum(getattr(c, "steps", 0) for c in costs) == 10 * (24 - known)
    assert later.state_dict() == whole.state_dict()
    assert list(later.prepare(tiny_context(), Budget(steps=240))) == []


@pytest.mark.parametrize("make", [
    lambda: Predictor(Trains(lambda a: math.inf), pool=64),
    lambda: Fused(FakeEstimator(len), Trains(lambda a: math.inf)),
])  # fmt: skip
def test_where_too_few_are_left_it_is_refused(make):
    with pytest.raises(NotFinite, match=r"of the sample have no finite score.*score is inf"):
        list(make().prepare(tiny_context(), Budget(steps=240)))


@pytest.mark.parametrize("make", [
    lambda of: Predictor(of, pool=64, batch=4), lambda of: Fused(FakeEstimator(len), of, batch=4),
])  # fmt: skip
def test_the_beginning_goes_on_until_there_is_enough(make):
    """Most of the first diverge: what is left of the budget is trained all the same."""
    few = Trains(lambda a: math.nan if a["body"] == 5 else worth(a))
    estimator, ctx = make(few), tiny_context()
    list(estimator.prepare(ctx, Budget(steps=400)))
    known, failed = known_and_failed(estimator)
    assert len(known) + len(failed) == len(few.estimated) == 40
    assert len(failed) > 10


def test_a_sample_of_which_none_diverged_may_be_as_small_as_its_space():
    small, (a, b, c) = Sample(fewest=4), (p.to_json() for p in points(tiny_context(), 3))
    small.load([[a, 0.5, ""], [b, 0.25, ""]])
    small.check()
    small.load([[a, 0.5, ""], [b, 0.25, ""], [c, None, "it is"]])
    with pytest.raises(NotFinite, match=r"1 of 3 architectures .*; the first: it is"):
        small.check()


def test_an_opinion_that_is_not_finite_is_none():
    """Another estimator that diverges on some has them rank lowest, and stops nothing."""
    other, ctx = Raises(worth), tiny_context()
    fused = Fused(FakeEstimator(len), Trains(worth), others=(other,))
    list(fused.prepare(ctx, Budget(steps=320)))
    told = {name for opinions in fused._opinions.values() for name in opinions}
    assert "Raises 0" in told
    assert all(("Raises 0" in said) != diverges(a) for a, said in fused._opinions.items())
    assert all(
        math.isfinite(e.score) for e in fused.estimate(ctx, [Proposal(a) for a in points(ctx, 9)])
    )


def test_the_number_of_trainings_is_told_without_refusing_any():
    ctx = tiny_context()
    each = Scratch().steps_each(ctx)
    assert num_trainings(ctx, Scratch(), 20 * each, 0, fewest=4) == 20
    assert trainings(ctx, Scratch(), 20 * each, 0, fewest=4)[1] == 20
    assert num_trainings(ctx, Scratch(), each, 0, fewest=4) == 4
    assert num_trainings(ctx, None, 20 * each, 7, fewest=4) == 7
