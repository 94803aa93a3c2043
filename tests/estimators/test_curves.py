"""Power laws fitted to learning curves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InvalidSetting, NotFinite
from assay.estimators.curves import extrapolate


@given(
    a=st.floats(0.0, 2.0), b=st.floats(0.2, 3.0), c=st.floats(0.2, 1.5), end=st.integers(200, 2000)
)
def test_a_power_law_is_found_again(a, b, c, end):
    def loss(t):
        return a + b * (t / 100) ** -c

    curve = [(t, loss(t)) for t in (10, 20, 40, 60, 80, 100)]
    assert extrapolate(curve, end) == pytest.approx(loss(end), abs=0.02)


def test_it_is_found_again_where_losses_are_negative():
    curve = [(t, -3.0 + 2.0 * (t / 100) ** -0.5) for t in (10, 20, 40, 60, 80, 100)]
    assert curve[-1][1] == -1.0
    assert extrapolate(curve, 400) == pytest.approx(-2.0, abs=0.02)


def test_a_curve_that_rises_is_taken_as_flat():
    assert extrapolate([(1, 1.0), (2, 1.1), (3, 1.2), (4, 1.3)], 100) == pytest.approx(
        1.15, abs=0.1
    )


def test_few_points_are_refused():
    with pytest.raises(InvalidSetting, match="4"):
        extrapolate([(1, 1.0), (2, 0.5), (3, 0.4)], 10)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(loss):
    with pytest.raises(NotFinite, match=f"its losses are .*{loss}"):
        extrapolate([(1, 1.0), (2, loss), (3, 0.4), (4, 0.3)], 10)
