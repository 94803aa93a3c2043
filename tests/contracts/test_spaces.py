"""Every ready space keeps the contract, and a space that does not is found."""

from __future__ import annotations

from collections import Counter

import pytest
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.testing.spaces import SpaceContract


class TestMobile(SpaceContract):
    space = "assay.zoo.mobile:mobile"


class TestConv(SpaceContract):
    space = "assay.zoo.conv:conv"


class TestMemoryBank(SpaceContract):
    space = "assay.zoo.memory_bank:memory_bank"


class TestCell(SpaceContract):
    space = "assay.zoo.cell:cell"

    def make(self, **options):
        """Make it small: the published sizes have tests of their own."""
        return super().make(channels=4, cells=1, **options)

    def test_a_canonical_form_is_the_same_network(self):
        """By the published classes, to which convolutions that nothing reads do not matter."""
        for space, _ in self.spaces():
            rng = derive(0, "canonical")
            for a in (space.sample(rng) for _ in range(12)):
                whole, least = (Counter(_shapes(space.build(b))) for b in (a, space.canonical(a)))
                assert least <= whole


class TestDarts(SpaceContract):
    space = "assay.zoo.darts:darts"

    def make(self, **options):
        """Make it small: the published sizes have tests of their own."""
        return super().make(channels=4, cells=3, **options)


class TestENASMacro(SpaceContract):
    space = "assay.zoo.enas:macro"

    def make(self, **options):
        """Make it small: the published sizes have tests of their own."""
        return super().make(**{"layers": 4, "channels": 4, **options})


class TestENASMicro(SpaceContract):
    space = "assay.zoo.enas:micro"

    def make(self, **options):
        """Make it small: the published sizes have tests of their own."""
        return super().make(**{"nodes": 2, "channels": 4, **options})

    def test_a_canonical_form_is_the_same_network(self):
        """With the same parameters; sides that change places take theirs along."""
        for space, _ in self.spaces():
            rng = derive(0, "canonical")
            for a in (space.sample(rng) for _ in range(6)):
                one, other = (Counter(_shapes(space.build(b))) for b in (a, space.canonical(a)))
                assert one == other


def _shapes(network):
    return [tuple(p.shape) for p in network.parameters()]


class Own(nn.Linear):
    """No class of torch's."""


def stays(*, input_shape=(1, 2, 2), num_classes=2):
    size = input_shape[0] * input_shape[1] * input_shape[2]

    def model():
        head = OneOf(a=Own(size, num_classes), b=nn.Linear(size, num_classes, bias=False))
        return nn.Sequential(nn.Flatten(), head)

    return Space(model)


def no_function(*, input_shape=(1, 2, 2), num_classes=2):
    return Space(stays(input_shape=input_shape, num_classes=num_classes).model)


def merges(*, input_shape=(1, 2, 2), num_classes=2):
    space = stays(input_shape=input_shape, num_classes=num_classes)
    return Space(space.factory, canonical=lambda a: Architecture({"1": "a"}))


def swallows(**options):
    return stays()


@pytest.mark.parametrize(
    ("function", "test"),
    [
        (no_function, "test_it_is_a_space_of_its_own_defaults"),
        (merges, "test_a_canonical_form_is_the_same_network"),
        (stays, "test_what_it_builds_has_no_trace_of_assay"),
        (swallows, "test_an_unknown_argument_is_refused"),
        (swallows, "test_a_path_equals_its_network"),
    ],
)
def test_a_broken_space_is_found(function, test):
    broken = type("Broken", (SpaceContract,), {"space": function})()
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        getattr(broken, test)()


def test_a_suite_that_tests_nothing_says_so():
    with pytest.raises(NotImplementedError, match="SpaceContract tests nothing; set space = "):
        SpaceContract().make()
