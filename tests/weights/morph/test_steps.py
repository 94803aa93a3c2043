from __future__ import annotations

import numpy as np
import pytest

from assay.errors import InvalidArchitecture
from assay.space.space import Space
from assay.testing.tiny import TinyNet, tiny_space
from assay.weights.morph import plan
from assay.weights.morph.steps import KINDS, origins, price
from assay.zoo.cell import cell
from tests.space.spaces import Chain, Tangle


@pytest.mark.parametrize("model", [TinyNet, Tangle, Chain])
def test_every_tensor_of_a_built_network_has_its_place_in_the_model(model):
    made = Space(model)
    rng = np.random.default_rng(0)
    for _ in range(5):
        point = made.sample(rng)
        where = origins(made, point)
        built, whole = made.build(point), made.model.state_dict()
        for name, tensor in built.state_dict().items():
            path, _, own = name.rpartition(".")
            large = whole[f"{where[path]}.{own}" if where[path] else own]
            assert all(a <= b for a, b in zip(tensor.shape, large.shape)), name


def test_the_plan_names_what_differs_and_the_cheapest_comes_first():
    space = tiny_space()
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = space.sample(rng), space.sample(rng)
        morphs = plan(space, one, other)
        assert {m.label for m in morphs} == {
            label for label in set(one) & set(other) if one[label] != other[label]
        }
        order = [KINDS.index(m.kind) for m in morphs]
        assert order == sorted(order)
        assert price(morphs) == (sum(not m.preserving for m in morphs), len(morphs))
        assert plan(space, one, one) == ()


def test_what_learns_nothing_is_exchanged_and_not_grown():
    space = cell(input_shape=(1, 8, 8), channels=4, cells=1)
    skip = dict.fromkeys(space.choices, "skip_connect")
    kinds = {
        option: plan(space, skip, {**skip, "edge01": option})[0].kind
        for option in space.choices["edge01"].options
        if option != "skip_connect"
    }
    assert kinds == {
        "none": "exchange", "avg_pool_3x3": "exchange",
        "nor_conv_1x1": "deepen", "nor_conv_3x3": "deepen",
    }  # fmt: skip
    assert plan(space, {**skip, "edge01": "nor_conv_1x1"}, skip)[0].kind == "cut"


def test_a_point_of_another_space_is_refused():
    space = tiny_space()
    with pytest.raises(InvalidArchitecture):
        plan(space, space.largest(), {"other": 1})
