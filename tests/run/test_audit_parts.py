"""Equal parts of a budget, with the scoring of all set aside."""

from __future__ import annotations

import pytest

from assay.run.parts import Needs, equal_parts


def test_what_scoring_leaves_is_divided_equally_among_those_that_prepare():
    needs = {
        "a": Needs(0.1, 0.0, 10), "b": Needs(3.0, 1.0, 10), "c": Needs(0.0, 2.0, 10),
        "d": Needs(0.0, 0.0, 10),
    }  # fmt: skip
    parts = equal_parts(100.0, needs)
    assert parts == pytest.approx({"a": 35.0, "b": 35.0, "c": 0.0, "d": 0.0})
    assert equal_parts(100.0, dict(reversed(needs.items()))) == parts


def test_all_of_it_is_spent_and_no_more():
    needs = {name: Needs(1.0, i / 10, 7) for i, name in enumerate("abcde")}
    parts = equal_parts(50.0, needs)
    assert sum(parts.values()) + sum(n.score_s for n in needs.values()) == pytest.approx(50.0)


def test_those_that_score_dearest_are_left_out_until_the_others_fit():
    needs = {"a": Needs(1.0, 1.0, 10), "b": Needs(0.0, 9.0, 10), "c": Needs(0.0, 5.0, 10)}
    assert equal_parts(65.0, needs) == {"a": 5.0, "c": 0.0}
    assert equal_parts(30.0, needs) == {"a": 20.0}
    assert equal_parts(9.0, needs) == {}


def test_one_that_takes_nothing_is_kept_when_nothing_is_left():
    assert equal_parts(-5.0, {"free": Needs(0.0, 0.0, 10), "a": Needs(1.0, 0.0, 10)}) == {
        "free": 0.0, "a": 0.0,
    }  # fmt: skip
