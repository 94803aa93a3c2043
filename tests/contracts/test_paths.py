"""Every policy of paths, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.testing import PathsContract
from assay.weights.paths import Fair, Sandwich, Uniform


class TestUniform(PathsContract):
    paths = Uniform


class TestUniformOfThree(PathsContract):
    paths = staticmethod(lambda: Uniform(num=3))


class TestFair(PathsContract):
    paths = Fair


class TestSandwich(PathsContract):
    paths = Sandwich
