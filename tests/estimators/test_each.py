"""Estimates as they come: one by one or all at once, and what an error costs the others."""

from __future__ import annotations

import pytest

from assay.contracts import Estimate, Proposal
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.each import Diverged, all_of, each
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.scratch import Scratch
from assay.testing import FakeEstimator, tiny_context


@pytest.fixture
def ctx():
    return tiny_context()


def proposals(ctx, num):
    rng = derive(3, "each")
    return [Proposal(ctx.space.canonical(ctx.space.sample(rng))) for _ in range(num)]


class Listed:
    """Tells what it was given, one by one, in an order of its own."""

    def __init__(self, told, then=None):
        self.told, self.then, self.closed = told, then, False

    def estimate_each(self, ctx, given):
        try:
            yield from self.told
            if self.then is not None:
                raise self.then
        finally:
            self.closed = True


def scored(score):
    return Estimate(score, {}, Cost(1.0), {})


def test_all_at_once_comes_at_once(ctx):
    (told,) = each(FakeEstimator(len), ctx, proposals(ctx, 5))
    assert list(told) == [0, 1, 2, 3, 4]
    assert all(isinstance(said, Estimate) for said in told.values())


def test_one_that_raises_takes_no_other_with_it(ctx):
    batches = []

    class Fails(FakeEstimator):
        def estimate(self, ctx, given):
            batches.append(len(given))
            if bad in given:
                raise KeyError("a fault")
            return super().estimate(ctx, given)

    given = proposals(ctx, 16)
    bad = given[5]
    (told,) = each(Fails(len), ctx, given)
    assert list(told) == list(range(16))
    alike = [i for i, proposal in enumerate(given) if proposal == bad]
    assert [i for i, said in told.items() if isinstance(said, KeyError)] == alike
    if len(alike) == 1:
        assert batches == [16, 8, 4, 4, 2, 1, 1, 2, 8]


def test_what_is_no_answer_is_told(ctx):
    class Short(FakeEstimator):
        def estimate(self, ctx, given):
            return super().estimate(ctx, given)[:-1]

    (told,) = each(Short(len), ctx, proposals(ctx, 3))
    assert all("0 estimates came back for 1" in str(said) for said in told.values())

    class Numbers(FakeEstimator):
        def estimate(self, ctx, given):
            return [0.5] * len(given)

    (told,) = each(Numbers(len), ctx, proposals(ctx, 3))
    assert all("0.5 came back, which is no Estimate" in str(said) for said in told.values())


def test_what_comes_one_by_one_is_told_one_by_one(ctx):
    lost = Estimate.failed("it exploded", Cost(2.0, 7), {})
    error = InvalidSetting("cannot be built")
    told = list(each(Listed([(2, scored(2.0)), (0, lost), (1, error)]), ctx, proposals(ctx, 3)))
    assert [list(one) for one in told] == [[2], [0], [1]]
    assert told[0][2] == scored(2.0)
    assert isinstance(told[1][0], Diverged)
    assert (str(told[1][0]), told[1][0].cost) == ("it exploded", Cost(2.0, 7))
    assert told[2][1] is error


def test_an_error_of_all_is_that_of_each_that_is_left(ctx):
    error = InvalidSetting("nothing was prepared")
    told = list(each(Listed([(1, scored(1.0))], error), ctx, proposals(ctx, 3)))
    assert told == [{1: scored(1.0)}, {0: error, 2: error}]


def test_what_is_no_estimate_costs_none_of_the_others(ctx):
    told = list(each(Listed([(1, 0.5), (0, scored(0.0))]), ctx, proposals(ctx, 2)))
    assert "0.5 came back, which is no Estimate" in str(told[0][1])
    assert told[1] == {0: scored(0.0)}


def test_of_what_nothing_comes_back_is_told(ctx):
    told = list(each(Listed([(1, scored(1.0))]), ctx, proposals(ctx, 3)))
    assert told[0] == {1: scored(1.0)}
    assert list(told[1]) == [0, 2]
    assert all("of 2 of 3 architectures nothing came back" in str(e) for e in told[1].values())


def test_who_stops_listening_ends_it(ctx):
    listed = Listed([(0, scored(0.0)), (1, scored(1.0))])
    telling = each(listed, ctx, proposals(ctx, 2))
    next(telling)
    telling.close()
    assert listed.closed


def test_all_of_returns_them_in_order_or_raises_the_first_error():
    assert all_of(iter([(1, scored(1.0)), (0, scored(0.0))])) == [scored(0.0), scored(1.0)]
    with pytest.raises(NotFinite, match="first"):
        all_of(iter([(1, NotFinite("first")), (0, NotFinite("second"))]))


@pytest.mark.parametrize("make", [lambda: Scratch(seeds=2), lambda: LowFidelity(share=1.0)])
def test_trainings_are_told_one_by_one_and_as_in_a_batch(ctx, make):
    given = proposals(ctx, 3)
    whole = make().estimate(ctx, given)
    told = list(each(make(), ctx, given))
    assert [list(one) for one in told] == [[0], [1], [2]]
    assert [one[i].score for i, one in enumerate(told)] == [e.score for e in whole]


def test_an_architecture_that_cannot_be_built_costs_itself_alone(ctx):
    good, wrong = proposals(ctx, 2), Proposal({"body": 99})
    told = list(each(LowFidelity(share=1.0), ctx, [good[0], wrong, good[1]]))
    kinds = {i: isinstance(said, Estimate) for one in told for i, said in one.items()}
    assert kinds == {0: True, 1: False, 2: True}


def test_a_score_that_is_no_number_costs_its_own_architecture_alone(ctx):
    listed = Listed([(1, Estimate(None)), (0, scored(0.0)), (2, scored(2.0))])
    told = list(each(listed, ctx, proposals(ctx, 3)))
    assert "the score None came back, which is no number" in str(told[0][1])
    assert told[1:] == [{0: scored(0.0)}, {2: scored(2.0)}]


def test_what_is_answered_twice_is_told_of_all_that_are_left(ctx):
    told = list(each(Listed([(1, scored(1.0)), (1, scored(9.0))]), ctx, proposals(ctx, 3)))
    assert told[0] == {1: scored(1.0)}
    assert list(told[1]) == [0, 2]
    assert all("architecture 1 of 3 was answered twice" in str(e) for e in told[1].values())


def test_any_iterator_will_do(ctx):
    class Plain:
        def estimate_each(self, ctx, given):
            return iter([(i, scored(float(i))) for i in range(len(given))])

    assert list(each(Plain(), ctx, proposals(ctx, 2))) == [{0: scored(0.0)}, {1: scored(1.0)}]


def test_an_error_after_the_last_answer_is_no_architectures(ctx):
    telling = each(Listed([(0, scored(0.0))], KeyError("clearing up")), ctx, proposals(ctx, 1))
    assert next(telling) == {0: scored(0.0)}
    with pytest.raises(KeyError, match="clearing up"):
        next(telling)
