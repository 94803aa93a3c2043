from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture

OPTIONS = st.text() | st.integers() | st.lists(st.integers(0, 9)).map(tuple)
MAPPINGS = st.dictionaries(st.text(), OPTIONS, max_size=6)


@given(MAPPINGS)
def test_json_gives_it_back(options):
    one = Architecture(options)
    text = one.to_json()
    assert "\n" not in text
    assert Architecture.from_json(text) == one
    assert Architecture.from_json(text).to_json() == text
    assert dict(one) == options


@given(MAPPINGS, st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(options, shuffle):
    labels = list(options)
    shuffle.shuffle(labels)
    one, two = Architecture(options), Architecture({label: options[label] for label in labels})
    assert one == two
    assert hash(one) == hash(two)
    assert list(one) == list(two) == sorted(options)
    assert repr(one) == repr(two)


@given(MAPPINGS, MAPPINGS)
def test_equal_are_those_with_the_same_options(one, two):
    assert (Architecture(one) == Architecture(two)) == (one == two)
    assert Architecture(one) == one
    assert Architecture(one) != "no mapping"


def test_it_is_a_frozen_mapping():
    point = Architecture({"b": 2, "a": "x", "c": [0, 2]})
    assert dict(point) == {"a": "x", "b": 2, "c": (0, 2)}
    assert len(point) == 3
    assert "b" in point
    assert "d" not in point
    with pytest.raises(TypeError):
        point["a"] = "y"
    with pytest.raises(AttributeError):
        point.more = 1
    assert pickle.loads(pickle.dumps(point)) == point


def test_integers_of_other_kinds_become_plain():
    class Width(int):
        pass

    point = Architecture({"w": Width(16)})
    assert type(point["w"]) is int
    assert json.loads(point.to_json()) == {"w": 16}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"a": 1.5}, r"the option of 'a' must be a str, an int or a tuple of ints, not 1\.5"),
        ({"a": True}, "the option of 'a' must be .* not True"),
        ({"a": None}, "the option of 'a' must be .* not None"),
        ({"a": (1, "x")}, r"the option of 'a' must be .* not \(1, 'x'\)"),
        ({1: "a"}, "a label must be a str, not 1; use the module path"),
    ],
)
def test_what_is_no_option_is_refused(options, said):
    with pytest.raises(InvalidArchitecture, match=said):
        Architecture(options)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', "null", '{"a": 1.5}', '{"a": {}}'])
def test_text_that_is_no_architecture_is_refused(text):
    with pytest.raises(InvalidArchitecture) as caught:
        Architecture.from_json(text)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
