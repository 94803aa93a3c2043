"""A figure is whole, or says what it lacks."""

from __future__ import annotations

import math

import pytest

from assay.errors import NotFinite
from assay.trust.interval import Interval


def test_it_reads_as_words():
    assert str(Interval(0.741, 0.5, 0.98)) == "0.74, 0.50 to 0.98"
    assert str(Interval(-0.001, -0.11, 0.17)) == "0.00, -0.11 to 0.17"
    assert str(Interval(1.0, reason="too few")) == "1.00, no interval: too few"
    assert str(Interval(reason="all truths are equal")) == "undefined: all truths are equal"


def test_it_excludes_what_lies_outside_and_nothing_without_ends():
    told = Interval(0.2, 0.1, 0.3)
    assert [told.excludes(x) for x in (0.0, 0.1, 0.3, 0.31)] == [True, False, False, True]
    assert not Interval(0.2, reason="too few").excludes(0.0)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_it_is_never_nan(number):
    with pytest.raises(NotFinite, match="give None and a reason"):
        Interval(0.5, number, 1.0)


@pytest.mark.parametrize(
    "fields", [(), (0.5,), (0.5, 0.1), (0.5, None, 0.1, "why"), (0.5, 0.1, 0.9, "why")]
)
def test_what_is_missing_has_a_reason_and_what_is_there_has_none(fields):
    with pytest.raises(ValueError, match="is no interval"):
        Interval(*fields)
