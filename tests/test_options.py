"""Text is read as an option's type, in all the ways people write it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InvalidSetting
from assay.estimators.zero_cost import ZeroCost
from assay.options import read_option
from assay.run import names


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        (int, "3", 3),
        (float, "1e-3", 1e-3),
        (bool, "true", True),
        (str, "3", "3"),
        (str, "a,b", "a,b"),
        (Any, "fair", "fair"),
        (tuple[int, ...], "3,5", (3, 5)),
        (tuple[int, ...], "3", (3,)),
        (tuple[int, ...], "[3, 5]", (3, 5)),
        (tuple[str, ...], "macs, snip", ("macs", "snip")),
        (tuple[float, float], "5,0.5", (5.0, 0.5)),
        (dict[str, Any] | None, "{}", {}),
        (dict[str, Any] | None, '{"cells": 1}', {"cells": 1}),
        (dict[str, Any] | None, "null", None),
        (tuple[int, ...], (3, 5), (3, 5)),
    ],
)
def test_text_is_read_as_the_type(kind: Any, value: Any, meant: Any) -> None:
    assert read_option("x", kind, value) == meant


@given(st.lists(st.integers(), min_size=1))
def test_a_list_is_read_as_it_is_written(numbers: list[int]) -> None:
    assert read_option("x", list[int], ",".join(map(str, numbers))) == numbers
    assert read_option("x", list[int], str(numbers)) == numbers


@pytest.mark.parametrize(("kind", "value"), [(int, "three"), (tuple[int, ...], "3,x"), (bool, "")])
def test_what_does_not_fit_is_refused_by_name(kind: Any, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"space.x='{value}' does not fit: "):
        read_option("space.x", kind, value)


def test_fields_that_hold_several_values_can_be_typed() -> None:
    made = names.resolve(
        "estimator", names.ESTIMATORS, "zero-cost",
        {"signals": "macs,synflow", "variant": "{}", "batch": "8"},
    )  # fmt: skip
    assert made == ZeroCost(("macs", "synflow"), batch=8, variant={})
