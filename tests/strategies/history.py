"""Histories made by hand, over a chain whose architectures are digits."""

from __future__ import annotations

from torch import nn

from assay.architecture import Architecture
from assay.contracts import Estimate, History, Trial
from assay.space.choices import OneOf
from assay.space.space import Space

OPTIONS = 10
BLOCKS = 6


class Counting(History):
    """Counts the trials that were looked at."""

    looks = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.looks += len(found) if isinstance(found, list) else 1
        return found

    def ended(self, start=0):
        found = super().ended(start)
        self.looks += len(found)
        return found


def chain() -> Space:
    """A million architectures: six digits, none of which merges with another."""
    return Space(nn.Sequential(*[
        OneOf({f"o{i}": nn.Linear(2, 2) for i in range(OPTIONS)}) for _ in range(BLOCKS)
    ]))  # fmt: skip


def point(number: int) -> Architecture:
    """The architecture of a number's digits."""
    return Architecture({str(i): f"o{number // 10**i % 10}" for i in range(BLOCKS)})


def scored(number: int, *objectives: float) -> Trial:
    return Trial(number, point(number), "scored", Estimate(objectives[0]), objectives=objectives)


def infeasible(number: int, violation: float) -> Trial:
    return Trial(number, point(number), "infeasible", violation=violation)


def failed(number: int) -> Trial:
    return Trial(number, point(number), "failed", error="made to fail")


def distance(a: Architecture, b: Architecture) -> int:
    """In how many decisions two differ."""
    return sum(a[label] != b[label] for label in a)
