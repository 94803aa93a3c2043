from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.estimators.ranks import Ranks

floats = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))


def test_a_mid_rank_is_a_share_of_the_sample_and_itself() -> None:
    ranks = Ranks(np.array([4.0, 2.0, 1.0, 2.0]))
    assert list(ranks(np.array([1.0, 2.0, 4.0])) * 5) == [1.0, 2.5, 4.0]
    assert ranks(np.array(3.0)) * 5 == (2.5 + 4.0) / 2  # half of the way between two


def test_beyond_the_sample_values_still_differ() -> None:
    ranks = Ranks(np.array([0.0, 1.0, 2.0, 5.0]))  # the median is 1.5
    assert ranks(np.array(5.0)) * 5 == 4
    assert ranks(np.array(8.5)) * 5 == pytest.approx(4.25)  # as far beyond as 5 is from the median
    assert ranks(np.array(-1.5)) * 5 == pytest.approx(0.75)
    assert list(ranks(np.array([1e20, -1e20])) * 5) == [4.5, 0.5]


def test_what_is_not_defined_is_below_all() -> None:
    ranks = Ranks(np.array([-math.inf, 2.0, -math.inf, 3.0]))
    assert list(ranks(np.array([-math.inf, -1e20, 2.0, 3.0])) * 5) == [1.5, 2.5, 3.0, 4.0]
    assert Ranks(np.array([1.0, 2.0]))(np.array(-math.inf)) == 0.5 / 3
    nothing = Ranks(np.full(3, -math.inf))
    assert list(nothing(np.array([-math.inf, 7.0])) * 4) == [2.0, 3.5]


@given(st.lists(floats, min_size=1, max_size=12), st.sets(floats, min_size=2, max_size=12))
def test_a_larger_value_has_a_higher_rank(sample: list[float], values: set[float]) -> None:
    told = Ranks(np.array(sample))(np.array(sorted(values)))
    assert (np.diff(told) > 0).all()
    assert told[0] >= 0.5 / (len(sample) + 1)
    assert told[-1] <= 1 - 0.5 / (len(sample) + 1)
