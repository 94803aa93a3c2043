"""A sample that others learn from: one architecture that fails takes no other with it."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from torch import nn

from assay.contracts import History, Proposal
from assay.cost import Budget, derive
from assay.errors import AssayError, InvalidSetting, NotFinite
from assay.estimators.fused import Fused
from assay.estimators.predictor import Predictor
from assay.estimators.sample import Sample, asked, num_trainings, trainings
from assay.estimators.scratch import Scratch
from assay.space.choices import OneOf
from assay.space.space import Space
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


class Breaks(Trains):
    """Its whole batch is lost where the training of one breaks."""

    def estimate(self, ctx, proposals):
        if any(diverges(p.architecture) for p in proposals):
            raise RuntimeError("a worker was out of memory")
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


def broken(architecture):
    raise KeyError("a fault of all")


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

BROKEN = {
    "predictor breaks": lambda: Predictor(Breaks(worth), batch=4, pool=64),
    "fused breaks": lambda: Fused(FakeEstimator(len), Breaks(worth), batch=4),
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


def test_any_other_error_is_told_too_and_an_interruption_is_none():
    def interrupted(architecture):
        raise KeyboardInterrupt

    those = points(tiny_context(), 2)
    told = asked(tiny_context(), FakeEstimator(broken), those)
    assert [str(said) for said in told] == [repr("a fault of all")] * 2
    with pytest.raises(KeyboardInterrupt):
        list(Predictor(Trains(interrupted), pool=64).prepare(tiny_context(), Budget(steps=240)))


@pytest.mark.parametrize("name", MADE | BROKEN)
def test_what_fails_is_left_out_and_told(name):
    estimator, ctx = (MADE | BROKEN)[name](), tiny_context()
    list(estimator.prepare(ctx, Budget(steps=240)))
    known, failed = known_and_failed(estimator)
    assert len(known) + len(failed) == 24
    assert len(failed) > 0
    assert all(math.isfinite(score) for _, score in known)
    reasons = ("not finite", "is nan", "RuntimeError: a worker was out of memory")
    assert all(any(reason in why for reason in reasons) for _, why in failed)
    estimates = estimator.estimate(ctx, [Proposal(a) for a in points(ctx, 20)])
    assert all(math.isfinite(e.score) for e in estimates)
    for e in estimates:
        assert e.made_from["sample"] == len(known)
        assert e.made_from["failed"] == [text for text, _ in failed]


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
    """What failed is tried again where there are too few scores to learn from."""
    whole, first, later = (MADE[name]() for _ in range(3))
    list(whole.prepare(tiny_context(), Budget(steps=240)))
    steps = 0
    for cost in first.prepare(tiny_context(), Budget(steps=240)):
        steps += getattr(cost, "steps", 0)
        if steps >= 10 * trainings:
            break
    later.load_state_dict(first.state_dict())
    scores, failed = known_and_failed(first)
    assert len(scores) + len(failed) == steps // 10
    known = len(scores) + (len(failed) if len(scores) >= first._examples.fewest else 0)
    costs = later.prepare(tiny_context(), Budget(steps=240))
    assert sum(getattr(c, "steps", 0) for c in costs) == 10 * (24 - known)
    assert later.state_dict() == whole.state_dict()
    assert list(later.prepare(tiny_context(), Budget(steps=240))) == []


@pytest.mark.parametrize("make", [
    lambda: Predictor(Trains(lambda a: math.inf), pool=64),
    lambda: Fused(FakeEstimator(len), Trains(lambda a: math.inf)),
])  # fmt: skip
def test_where_too_few_are_left_it_is_refused(make):
    with pytest.raises(NotFinite, match=r"8 of 8 .* of the sample failed.*score is inf"):
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


@pytest.mark.parametrize("make", [
    lambda of: Predictor(of, pool=64), lambda of: Fused(FakeEstimator(len), of)
])  # fmt: skip
def test_where_all_of_the_first_batch_fail_the_others_are_not_trained(make):
    asked_for = []

    def score(architecture):
        asked_for.append(architecture)
        return broken(architecture)

    why = r"8 of 8 architectures .* failed, and \d scores .*; the first: KeyError: 'a fault of all'"
    with pytest.raises(AssayError, match=why) as refused:
        list(make(Trains(score)).prepare(tiny_context(), Budget(steps=400)))
    assert len(set(asked_for)) == 8
    assert type(refused.value) is AssayError
    assert isinstance(refused.value.__cause__, KeyError)
    assert "in broken" in refused.value.__cause__.__notes__[0]


@pytest.mark.parametrize("make", [
    lambda of: Predictor(of, pool=64, batch=1), lambda of: Fused(FakeEstimator(len), of, batch=1)
])  # fmt: skip
def test_the_first_alone_is_not_all(make):
    first = []

    def score(architecture):
        first.append(architecture)
        return broken(architecture) if architecture == first[0] else worth(architecture)

    estimator = make(Trains(score))
    list(estimator.prepare(tiny_context(), Budget(steps=120)))
    known, failed = known_and_failed(estimator)
    assert (len(known), failed) == (11, [[first[0].to_json(), "KeyError: 'a fault of all'"]])


@pytest.mark.parametrize("kind", ["predictor", "fused"])
def test_a_sample_of_which_all_failed_goes_on_once_the_fault_is_mended(kind):
    broke, mended, whole = (MADE[f"{kind} nan"]() for _ in range(3))
    broke.of = Trains(broken)
    with pytest.raises(AssayError):
        list(broke.prepare(tiny_context(), Budget(steps=240)))
    mended.load_state_dict(broke.state_dict())
    for estimator in (mended, whole):
        estimator.of = Trains(worth)
        list(estimator.prepare(tiny_context(), Budget(steps=240)))
    assert len(known_and_failed(mended)[0]) == 24


def test_what_failed_keeps_no_network_in_memory():
    class Network:
        """Stands for what a training held."""

    held = []

    def score(architecture):
        network = Network()
        held.append(weakref.ref(network))
        return broken(architecture)

    ctx, sample = tiny_context(), Sample(fewest=4)
    sample.chosen = points(ctx, 3)
    list(sample.learn(ctx, Trains(score), 10))
    gc.collect()
    assert len(sample.failed) == 3
    assert [network() for network in held if network() is not None] == []


def test_a_sample_of_which_none_failed_may_be_as_small_as_its_space():
    small, those = Sample(fewest=4), [p.to_json() for p in points(tiny_context(), 3)]
    small.load([[text, 0.5, ""] for text in those])
    small.check()
    for num in (1, 2):
        small.load([[text, 0.5, ""] for text in those[:num]])
        with pytest.raises(InvalidSetting, match=f"has {num} of the 3 scores .*'scratch'"):
            small.check()


def few(num):
    """Return a context of a space of so many architectures."""

    class Few(nn.Module):
        def __init__(self):
            super().__init__()
            options = {f"o{i}": nn.Sequential(*[nn.Linear(6, 6)] * (i + 1)) for i in range(num)}
            self.body, self.head = OneOf(**options), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.body(x))

    return tiny_context(history=History(Space(Few, example=torch.zeros(2, 6))))


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("make", [
    lambda of: Predictor(of), lambda of: Predictor(of, model="trees"),
    lambda of: Fused(FakeEstimator(len), of),
])  # fmt: skip
def test_a_space_of_fewer_than_three_is_refused(make, num):
    estimator, ctx = make(Trains(lambda a: len(a["body"]))), few(num)
    if num < 3:
        with pytest.raises(InvalidSetting, match=f"has {num} of the 3 scores .*'scratch'"):
            list(estimator.prepare(ctx, Budget(steps=100)))
        return
    list(estimator.prepare(ctx, Budget(steps=100)))
    (estimate,) = estimator.estimate(ctx, [Proposal(ctx.space.largest())])
    assert estimate.made_from["sample"] == 3


def test_a_pool_of_one_is_enough_for_trees():
    estimator, ctx = Predictor(Trains(worth), model="trees", pool=1, batch=1), tiny_context()
    list(estimator.prepare(ctx, Budget(steps=40)))
    assert len(known_and_failed(estimator)[0]) == 4


@pytest.mark.parametrize("make", [
    lambda of: Predictor(of, sample=12), lambda of: Fused(FakeEstimator(len), of, sample=12)
])  # fmt: skip
def test_a_sample_that_the_budget_does_not_pay_for_is_refused(make):
    why = (
        r"estimator\.sample=12: 12 trainings of 10 steps take 120 steps, and the budget pays for "
        "119; give a smaller sample, or a larger budget"
    )
    of = Trains(worth)
    with pytest.raises(InvalidSetting, match=why):
        list(make(of).prepare(tiny_context(), Budget(steps=119)))
    assert of.estimated == []
    whole, later = make(of), make(of)
    list(whole.prepare(tiny_context(), Budget(steps=120)))
    later.load_state_dict(whole.state_dict())
    assert list(later.prepare(tiny_context(), Budget(steps=119))) == []


def test_a_sample_is_no_larger_than_its_space_when_the_budget_is_asked():
    of = Trains(lambda a: len(a["body"]))
    list(Predictor(of, sample=64).prepare(few(4), Budget(steps=40)))
    assert len(of.estimated) == 4


def test_the_default_heeds_a_sample_that_the_budget_does_not_pay_for():
    with pytest.raises(InvalidSetting, match=r"sample=64: 64 trainings of .* pays for 50;"):
        list(Predictor(sample=64).prepare(tiny_context(), Budget(steps=50)))


@pytest.mark.parametrize("other", [Raises(worth), Breaks(worth)], ids=["diverges", "breaks"])
def test_an_opinion_that_is_not_there_is_none(other):
    """Another estimator that fails on some has them rank lowest, and stops nothing."""
    ctx = tiny_context()
    fused = Fused(FakeEstimator(len), Trains(worth), others=(other,))
    list(fused.prepare(ctx, Budget(steps=320)))
    told = {name for opinions in fused._opinions.values() for name in opinions}
    name = f"{type(other).__name__} 0"
    assert name in told
    assert all((name in said) != diverges(a) for a, said in fused._opinions.items())
    later = Fused(FakeEstimator(len), Trains(worth), others=(other,))
    later.load_state_dict(fused.state_dict())
    those = [*fused._opinions, *points(ctx, 9)]
    for one in (fused, later):
        for a, e in zip(those, one.estimate(ctx, [Proposal(a) for a in those])):
            assert math.isfinite(e.score)
            assert list(e.made_from["silent"]) == ([name] if diverges(a) else [])


@pytest.mark.parametrize("batch", [1, 8])
def test_a_part_that_says_nothing_of_any_is_refused(batch):
    fused = Fused(FakeEstimator(broken), Trains(worth), batch=batch)
    why = "signals failed for each of the first 8 architectures; .*KeyError: 'a fault of all'"
    with pytest.raises(AssayError, match=why) as refused:
        list(fused.prepare(tiny_context(), Budget(steps=240)))
    assert isinstance(refused.value.__cause__, KeyError)
    assert fused.of.estimated == []


def test_the_number_of_trainings_is_told_without_refusing_any():
    ctx = tiny_context()
    each = Scratch().steps_each(ctx)
    assert num_trainings(ctx, Scratch(), 20 * each, 0, fewest=4) == 20
    assert trainings(ctx, Scratch(), 20 * each, 0, fewest=4)[1] == 20
    assert num_trainings(ctx, Scratch(), each, 0, fewest=4) == 4
    assert num_trainings(ctx, None, 20 * each, 7, fewest=4) == 7
