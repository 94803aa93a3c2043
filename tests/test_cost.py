from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.cost import Budget, Cost, derive
from assay.errors import InvalidSetting

COSTS = st.builds(
    Cost, st.integers(0, 1000).map(float), st.integers(0, 2**40), st.integers(0, 2**60),
    st.sampled_from(["", "cpu"]),
)  # fmt: skip


@given(COSTS, COSTS, COSTS)
def test_costs_add_up_in_any_order(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Cost() == a
    assert sum([a, b, c], Cost()) == a + b + c
    assert (a + b).macs == a.macs + b.macs


def test_a_cost_is_a_row_of_plain_numbers():
    assert Cost(1.5, 2, 3, "cpu").to_dict() == {
        "wall_s": 1.5, "samples": 2, "macs": 3, "device": "cpu",
    }  # fmt: skip
    assert Cost(1.0, device="cpu") + Cost(1.0, device="cuda:0") == Cost(2.0, device="cpu")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0), ("90", 90.0), (90, 90.0), (0.5, 0.5), ("20min", 1200.0), ("1.5h", 5400.0),
        ("2m", 120.0), ("250ms", 0.25), (" 3 sec ", 3.0), ("1d", 86400.0),
    ],
)  # fmt: skip
def test_a_time(text, seconds):
    budget = Budget.parse(text)
    assert budget == Budget(seconds=seconds)
    assert not budget.in_counts
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("steps=300,trials=50", Budget(steps=300, trials=50)),
        ("trials=50", Budget(trials=50)),
        (" epochs = 4 , steps=1,", Budget(steps=1, epochs=4)),
    ],
)
def test_counts(text, budget):
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget
    assert budget.in_counts
    assert Budget.parse(budget) is budget


@pytest.mark.parametrize("text", ["20min,trials=500", "trials=500, 1200", " 20 min,trials=500,"])
def test_a_time_bounded_by_counts(text):
    budget = Budget.parse(text)
    assert budget == Budget(seconds=1200.0, trials=500)
    assert not budget.in_counts
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "budget '' is neither a time nor counts; write \"90s\""),
        ("soon", "budget 'soon' is neither a time nor counts"),
        ("1h,steps=3,steps=4", "budget '1h,steps=3,steps=4': steps is given twice (3 and 4);"),
        ("5 parsecs", "budget '5 parsecs' is neither a time nor counts"),
        ("-5s", "budget '-5s' is neither"),
        ("0s", "budget '0s' must be positive and finite"),
        (-1, "budget -1 must be positive and finite"),
        (math.inf, "budget inf must be positive"),
        (math.nan, "budget nan must be positive"),
        ("trails=5", "unknown count 'trails' in the budget; did you mean 'trials'?"),
        ("5s,90s", "budget '5s,90s' has the times ['5s', '90s']; give one"),
        ("5s,soon=1", "unknown count 'soon' in the budget"),
        ("steps=0", "budget count steps='0' must be a whole number of at least 1"),
        ("steps=\u00b2", "budget count steps='\u00b2' must be a whole number"),
        ("steps=1.5", "budget count steps='1.5' must be a whole number"),
        ("steps=", "budget count steps='' must be a whole number"),
        (Budget(), "the budget names neither a time nor a count; give seconds, steps, trials or"),
        (Budget(seconds=-5), "budget Budget(seconds=-5, steps=None, trials=None, epochs=None) "),
        (Budget(seconds="5s"), "must be positive and finite"),
        (Budget(steps=0, trials=3), "budget count steps=0 must be a whole number of at least 1"),
        (Budget(90.0, trials=-1), "budget count trials=-1 must be a whole number of at least 1"),
        (Budget(epochs=1.5), "budget count epochs=1.5 must be a whole number"),
    ],
)
def test_what_is_no_budget_is_refused(text, said):
    with pytest.raises(InvalidSetting) as caught:
        Budget.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_generator_belongs_to_its_seed_and_purpose():
    assert derive(0, "trial", 3).integers(2**60) == derive(0, "trial", 3).integers(2**60)
    names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a1"), (0, "a", "1"), (0, ("a", 1))]
    assert len({int(derive(*n).integers(2**60)) for n in names}) == len(names)


def test_derived_draws_are_pinned():
    """A change here would change every recorded search."""
    assert derive(0, "trial", 3).integers(2**32, size=3).tolist() == [
        3435753367,
        3107435284,
        1025281632,
    ]


@pytest.mark.parametrize("seconds", [1234567.0, 1000001.0, 97.31482, 1200.0, 0.25])
def test_a_time_written_down_is_read_again(seconds):
    assert Budget.parse(str(Budget(seconds=seconds))).seconds == seconds
