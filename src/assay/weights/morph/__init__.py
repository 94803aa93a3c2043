"""Morphs: networks that change their size and keep what they have learned."""

from __future__ import annotations

from assay.weights.morph.depth import add_branch, deepen
from assay.weights.morph.heir import Inherited, inherit
from assay.weights.morph.kernel import grow_kernel, shrink_kernel
from assay.weights.morph.same import assert_same_function
from assay.weights.morph.steps import Morph, plan
from assay.weights.morph.width import shrink, thin, widen

__all__ = [
    "Inherited",
    "Morph",
    "add_branch",
    "assert_same_function",
    "deepen",
    "grow_kernel",
    "inherit",
    "plan",
    "shrink",
    "shrink_kernel",
    "thin",
    "widen",
]
