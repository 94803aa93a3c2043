from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InvalidSetting
from assay.train.recipe import Recipe


def test_warm_up_rises_in_equal_parts_and_the_cosine_falls_from_the_peak():
    recipe = Recipe(lr=1.0, warmup=0.2)  # of 10 steps: 2 rise, 8 fall
    rates = [recipe.lr_at(step, 10) for step in range(10)]
    falling = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates == pytest.approx([1 / 3, 2 / 3, *falling], abs=1e-15)


def test_constant_stays_at_the_peak_after_warm_up():
    recipe = Recipe(lr=0.5, schedule="constant", warmup=0.25)
    assert [recipe.lr_at(s, 8) for s in range(8)] == pytest.approx([0.5 / 3, 1 / 3, *[0.5] * 6])


@given(
    st.integers(1, 300),
    st.floats(0, 1),
    st.sampled_from(["cosine", "constant"]),
    st.floats(1e-6, 10.0),
)
def test_the_rate_rises_once_falls_once_and_stays_in_range(steps, warmup, schedule, lr):
    recipe = Recipe(lr=lr, warmup=warmup, schedule=schedule)
    rates = [recipe.lr_at(step, steps) for step in range(steps)]
    assert all(0 < rate <= lr for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -0.1}, "recipe.lr=-0.1 must be a number from 1e-08 to 100.0"),
        ({"lr": math.nan}, "recipe.lr=nan must be a number"),
        ({"lr": "0.1"}, "recipe.lr='0.1' must be a number"),
        ({"batch_size": 1.5}, "recipe.batch_size=1.5 must be a whole number from 1 to 1048576"),
        ({"batch_size": True}, "recipe.batch_size=True must be a whole number"),
        ({"epochs": 0}, "recipe.epochs=0 must be a whole number from 1"),
        ({"momentum": 1.0}, "recipe.momentum=1.0 must be a number from 0.0 to 0.9999"),
        ({"optimizer": "adam"}, "recipe.optimizer='adam'; there are: sgd, adamw"),
        ({"channels_last": "yes"}, "recipe.channels_last='yes'; there are: True, False, auto"),
        ({"learning_rate": 1}, "unknown option recipe.learning_rate; .*there are: batch_size"),
        ({"momentun": 0.5}, "did you mean 'momentum'?"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InvalidSetting, match=message):
        Recipe().with_(**changes)


def test_numbers_of_numpy_are_numbers():
    assert Recipe(batch_size=np.int64(8), lr=np.float32(0.5)).batch_size == 8


def test_with_changes_a_copy():
    recipe = Recipe(lr=0.1)
    assert recipe.with_(lr=0.2) == Recipe(lr=0.2)
    assert recipe == Recipe(lr=0.1)


@pytest.mark.parametrize(("batch_size", "judged"), [(1, 4), (4, 16), (64, 256), (512, 256)])
def test_what_is_judged_at_once_fits_where_a_step_does(batch_size, judged):
    assert Recipe(batch_size=batch_size).evaluation_batch == judged
