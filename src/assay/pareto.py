"""Which of several vectors of objectives beat which; every value is to be maximised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["crowding_distance", "front", "non_dominated_sort"]

_Matrix = np.ndarray[Any, np.dtype[np.float64]]


def _matrix(points: Sequence[Sequence[float]]) -> _Matrix:
    return np.asarray(points, dtype=np.float64).reshape(len(points), -1)


def _dominates(values: _Matrix, violations: _Matrix) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return `[N, N]`: whether i beats j, constraints first."""
    no_worse = (values[:, None, :] >= values[None, :, :]).all(-1)
    better = (values[:, None, :] > values[None, :, :]).any(-1)
    feasible = violations == 0
    both = feasible[:, None] & feasible[None, :]
    less = violations[:, None] < violations[None, :]
    result: np.ndarray[Any, np.dtype[np.bool_]] = np.where(both, no_worse & better, less)
    return result


def non_dominated_sort(
    points: Sequence[Sequence[float]], violations: Sequence[float] | None = None
) -> list[list[int]]:
    """Sort points into fronts: the first is beaten by none, each next by none but those before.

    A point within the constraints beats every one outside; of two outside, the one that violates
    less.

    Source: Deb, Pratap, Agarwal, Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
    Algorithm: NSGA-II", IEEE TEC 6(2), sections III-A and VI (constrained domination).

    Args:
        points: `[N, M]`, to be maximised; of an infeasible point the values do not matter.
        violations: `[N]`, 0 where all constraints hold.
    Returns:
        Indices, front by front, ascending within one.
    Example:
        >>> non_dominated_sort([(1, 1), (2, 0), (0, 0)])
        [[0, 1], [2]]
    """
    if not len(points):
        return []
    outside = np.zeros(len(points)) if violations is None else np.asarray(violations, float)
    beats = _dominates(_matrix(points), outside)
    beaten_by = beats.sum(0)
    left = np.ones(len(points), dtype=bool)
    fronts: list[list[int]] = []
    while left.any():
        now = np.flatnonzero(left & (beaten_by == 0))
        fronts.append([int(i) for i in now])
        left[now] = False
        beaten_by = beaten_by - beats[now].sum(0)
    return fronts


def crowding_distance(points: Sequence[Sequence[float]]) -> list[float]:
    """Return how far apart each point's neighbours on a front are; infinite at its ends.

    Source: Deb et al. 2002, section III-B. Duplicates of an end share its infinity, so that a
    front of equal points keeps no order by chance.

    Args:
        points: `[N, M]` of one front.
    """
    values = _matrix(points)
    distance = np.zeros(len(values))
    for column in values.T:
        low, high = column.min(), column.max()
        if high == low:
            continue
        order = np.argsort(column, kind="stable")
        gaps = (column[order[2:]] - column[order[:-2]]) / (high - low)
        distance[order[1:-1]] += gaps
        distance[(column == low) | (column == high)] = np.inf
    return [float(d) for d in distance]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other beats, ascending.

    Of points with equal values all are kept. Runs in O(N log N) for two objectives.

    Args:
        points: `[N, M]`, to be maximised.
    """
    if not len(points):
        return []
    values = _matrix(points)
    if values.shape[1] == 2:
        return _front_of_two(values)
    return [i for i in range(len(values)) if not _beaten(values, i)]


def _beaten(values: _Matrix, i: int) -> bool:
    no_worse = (values >= values[i]).all(1)
    return bool((no_worse & (values > values[i]).any(1)).any())


def _front_of_two(values: _Matrix) -> list[int]:
    order = np.lexsort((-values[:, 1], -values[:, 0]))
    kept, best, at = [], -np.inf, np.nan
    for i in order:
        first, second = values[i]
        if second > best or (second == best and first == at):
            kept.append(int(i))
            best, at = second, first
    return sorted(kept)
