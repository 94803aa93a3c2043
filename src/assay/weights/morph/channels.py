"""Channels as groups: what must keep one width, and in which order a tensor holds it.

The outputs of a convolution or linear layer are a group. Where tensors are added or multiplied
their groups are one (union-find). The channel dimension of a tensor is a list of runs: one after a
convolution, several after a concatenation, each channel a block of positions after a flatten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

__all__ = ["PLAIN", "Axis", "Group", "Picks", "Run"]


@dataclass(eq=False)
class Group:
    """Channels that are widened together or not at all.

    Attributes:
        size: How many there are.
        parts: They lie in so many equal parts that must stay equal, for grouped convolutions.
        fixed: Why their number cannot change; empty if it can.
        averaged: Why copies of them would change the function, though their number can change.
    """

    size: int
    parts: int = 1
    fixed: list[str] = field(default_factory=list)
    averaged: list[str] = field(default_factory=list)
    _into: Group | None = None

    @property
    def root(self) -> Group:
        """The one that speaks for all groups joined with this one."""
        group = self
        while group._into is not None:
            group = group._into
        return group

    def join(self, other: Group) -> None:
        """Make two groups of one size one."""
        mine, its = self.root, other.root
        if mine is its:
            return
        its._into = mine
        _add(mine.fixed, its.fixed)
        _add(mine.averaged, its.averaged)
        mine.divide(its.parts)

    def fix(self, reason: str) -> None:
        """Note why their number cannot change."""
        _add(self.root.fixed, [reason])

    def average(self, reason: str) -> None:
        """Note why copies of them would change the function."""
        _add(self.root.averaged, [reason])

    @property
    def obstacles(self) -> list[str]:
        """Why they cannot be widened without changing the function; empty if they can."""
        return self.root.fixed + self.root.averaged

    def divide(self, parts: int) -> None:
        """Keep equal parts: every channel stays in its part, and all parts grow alike."""
        root = self.root
        root.parts = math.lcm(root.parts, parts)


def _add(known: list[str], reasons: Sequence[str]) -> None:
    """Add what is not known yet: a model is read in both of its modes."""
    known += [reason for reason in reasons if reason not in known]


@dataclass(frozen=True)
class Run:
    """A stretch of a channel dimension.

    Attributes:
        group: Whose channels it holds, in their order.
        times: Positions of each channel.
        spread: Name of the flatten that multiplied them by an area not known yet; "" for none.
    """

    group: Group
    times: int = 1
    spread: str = ""


@dataclass(frozen=True)
class Axis:
    """The channel dimension of a tensor.

    Attributes:
        dim: Counted from the end: -3 after a 2-D convolution, -1 after a linear layer; 0 of a
            number of channels.
        runs: What lies along it.
    """

    dim: int
    runs: tuple[Run, ...]

    @property
    def length(self) -> int:
        """How many positions it has; flattened areas count as one."""
        return sum(run.group.size * run.times for run in self.runs)

    def at(self, length: int) -> Axis | None:
        """Return the axis with flattened areas worked out; None if the length does not fit.

        Areas of several flattens may differ, so only one can be worked out.
        """
        names = {run.spread for run in self.runs} - {""}
        if not names:
            return self if self.length == length else None
        open_length = sum(run.group.size * run.times for run in self.runs if run.spread)
        area, rest = divmod(length - self.length + open_length, open_length)
        if len(names) > 1 or rest or area < 1:
            return None
        runs = [replace(r, times=r.times * area, spread="") if r.spread else r for r in self.runs]
        return Axis(self.dim, tuple(runs))

    def tie(self, other: Axis) -> bool:
        """Make the groups of two tensors that meet element by element one; False if they cannot."""
        pairs = list(zip(self.runs, other.runs))
        alike = all(a.group.size == b.group.size and a.times == b.times for a, b in pairs)
        if len(self.runs) != len(other.runs) or self.dim != other.dim or not alike:
            return False
        for mine, its in pairs:
            mine.group.join(its.group)
        return True

    def fix(self, reason: str) -> None:
        """Fix all groups along it."""
        for run in self.runs:
            run.group.fix(reason)


PLAIN = Axis(0, ())
"""Of numbers, shapes and single values: nothing to widen, and nothing that hinders."""


@dataclass(frozen=True)
class Picks:
    """Which old position each new one of a dimension is taken from.

    Attributes:
        source: Old positions, int64 `[new]`.
        share: One over the number of new positions that share the old one, float64 `[new]`.
    """

    source: Tensor
    share: Tensor

    @classmethod
    def along(cls, axis: Axis, maps: Sequence[Tensor]) -> Picks:
        """Lay out the maps of channels as a map of positions.

        Args:
            axis: Of the old tensor, its areas worked out.
            maps: For each run the old channel of each new one, int64 `[new channels]`.
        """
        sources, shares, start = [], [], 0
        for run, old in zip(axis.runs, maps):
            block = torch.arange(run.times)
            sources.append((old[:, None] * run.times + block).flatten() + start)
            count = torch.bincount(old, minlength=run.group.size)
            shares.append((1.0 / count[old].double()).repeat_interleave(run.times))
            start += run.group.size * run.times
        return cls(torch.cat(sources), torch.cat(shares))

    @property
    def copies(self) -> Tensor:
        """Whether each new position repeats an earlier one, bool `[new]`."""
        order = torch.sort(self.source, stable=True).indices
        again = torch.zeros(len(order), dtype=torch.bool)
        again[order[1:]] = self.source[order[1:]] == self.source[order[:-1]]
        return again
