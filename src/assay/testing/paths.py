"""What every policy of paths must do."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Paths
from assay.cost import derive
from assay.space.space import Space
from assay.testing.plug import Plug, made
from assay.testing.tiny import tiny_space

__all__ = ["PathsContract"]

_STEPS = 20


class PathsContract:
    """Set `paths` to the class, or to a function without arguments that makes one."""

    paths: ClassVar[Plug | None] = None

    def new(self) -> Paths:
        """Make a fresh policy."""
        paths: Paths = made(self, "paths")
        return paths

    def test_each_pass_is_a_path_or_a_mix_of_the_space(self) -> None:
        """Take the passes of some steps; the space can activate each."""
        space, paths = tiny_space(), self.new()
        for step in range(_STEPS):
            passes = paths.passes(space, step, rng=derive(0, step))
            assert len(passes) >= 1, f"step {step} activates nothing"
            for chosen in passes:
                _check(space, chosen)
                space.select(chosen)
                assert space.model(space.example).shape == (2, 3)

    def test_a_step_is_a_function_of_its_number_and_generator(self) -> None:
        """Take a step again, from a fresh policy that took no step before, and get the same."""
        space, paths = tiny_space(), self.new()
        told = [list(paths.passes(space, s, rng=derive(0, s))) for s in range(_STEPS)]
        for step in reversed(range(_STEPS)):
            again = list(self.new().passes(space, step, rng=derive(0, step)))
            assert again == told[step], f"step {step} differs where it is the first one taken"

    def test_its_draws_come_from_the_generator_it_is_given(self) -> None:
        """Take steps; the global generators stay."""
        space, paths = tiny_space(), self.new()
        ambient = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        for step in range(_STEPS):
            paths.passes(space, step, rng=derive(0, step))
        assert ambient == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]


def _check(space: Space, chosen: object) -> None:
    if isinstance(chosen, Architecture):
        assert space.contains(chosen), f"{chosen} is not in the space"
        return
    assert isinstance(chosen, Mapping), f"{chosen!r} is neither an Architecture nor a Mix"
    for label, weights in chosen.items():
        assert label in space.choices, f"the space has no choice {label!r}"
        strange = set(weights) - set(space.choices[label].options)
        assert weights, f"{label!r} has no option at all"
        assert not strange, f"{label!r} has no options {strange}"
