"""Text is read as an option's type, in all the ways people write it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InvalidSetting
from assay.estimators.zero_cost import ZeroCost
from assay.options import options_of, read_option
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
    with pytest.raises(InvalidSetting, match=f"space.x='{value}' does not fit .+: "):
        read_option("space.x", kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (Sequence[Sequence[int]], "16", r"Sequence\[Sequence\[int\]\]: .*instance of Sequence"),
        (tuple[int, ...], "3,x", r"tuple\[int, \.\.\.\]: .*integer"),
        (int, "1.5", "int: .*fractional part"),
        (int | None, 1.5, r"int \| None: .*fractional part"),
    ],
)
def test_a_refusal_says_the_type_and_what_of_the_closest_reading_is_wrong(
    kind: Any, value: Any, why: str
) -> None:
    with pytest.raises(InvalidSetting, match=f"does not fit {why}"):
        read_option("x", kind, value)


def test_fields_that_hold_several_values_can_be_typed() -> None:
    made = names.resolve(
        "estimator", names.ESTIMATORS, "zero-cost",
        {"signals": "macs,synflow", "variant": "{}", "batch": "8"},
    )  # fmt: skip
    assert made == ZeroCost(("macs", "synflow"), batch=8, variant={})


def test_an_object_tells_what_it_was_made_with() -> None:
    class Plain:
        def __init__(self, size: int, words: tuple[str, ...], task: object, other: int = 3) -> None:
            self.size, self.words, self.task, self.calls = size, words, task, 17

    assert options_of(Plain(2, ("a", "b"), object())) == {"size": 2, "words": ("a", "b")}
    assert options_of(ZeroCost(batch=5))["batch"] == 5
    assert options_of(object()) == {}
    described = names.describe(Plain(2, ("a",), object()))
    assert (described["size"], described["words"]) == (2, ["a"])
    assert described["class"].endswith("Plain")


def test_functions_are_described_by_name_and_by_what_they_were_given() -> None:
    assert names.describe(sorted) == {"class": "builtins:sorted"}
    given = functools.partial(sorted, reverse=True)
    assert names.describe(given) == {"class": "builtins:sorted", "args": [], "reverse": True}
