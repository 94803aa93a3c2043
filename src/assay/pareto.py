"""Which of several vectors of objectives beat which; every value is to be maximised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["crowding_distance", "dominates", "front", "non_dominated_sort"]

_Matrix = np.ndarray[Any, np.dtype[np.float64]]


def _matrix(points: Sequence[Sequence[float]]) -> _Matrix:
    width = len(points[0]) if len(points) else 0
    return np.asarray(points, dtype=np.float64).reshape(len(points), width)


def dominates(
    points: Sequence[Sequence[float]], violations: Sequence[float] | None = None
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return `[N, N]`: whether point i beats point j.

    One point beats another if it is nowhere worse and somewhere better. A point within the
    constraints beats every one outside; of two outside, the one that violates less wins.

    Source: Deb, Pratap, Agarwal, Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
    Algorithm: NSGA-II", IEEE TEC 6(2), section VI, definition 1 (constrained domination).

    Args:
        points: `[N, M]`, to be maximised; of an infeasible point the values do not matter.
        violations: `[N]`, 0 where all constraints hold; None for all 0.
    Example:
        >>> dominates([(1, 1), (1, 0)]).tolist()
        [[False, True], [False, False]]
    """
    values = _matrix(points)
    outside = np.zeros(len(values)) if violations is None else np.asarray(violations, np.float64)
    no_worse = (values[:, None, :] >= values[None, :, :]).all(-1)
    better = (values[:, None, :] > values[None, :, :]).any(-1)
    within = outside == 0
    both = within[:, None] & within[None, :]
    less = outside[:, None] < outside[None, :]
    result: np.ndarray[Any, np.dtype[np.bool_]] = np.where(both, no_worse & better, less)
    return result


def non_dominated_sort(
    points: Sequence[Sequence[float]], violations: Sequence[float] | None = None
) -> list[list[int]]:
    """Sort points into fronts: the first is beaten by none, each next by none but those before.

    Takes memory and time in N squared: for populations, not for whole histories (see `front`).

    Source: Deb et al. 2002, section III-A (fast non-dominated sort), with the constrained
    domination of section VI.

    Args:
        points: `[N, M]`; see `dominates`.
        violations: `[N]`; see `dominates`.
    Returns:
        Indices, front by front, ascending within one.
    Example:
        >>> non_dominated_sort([(1, 1), (2, 0), (0, 0)])
        [[0, 1], [2]]
    """
    if not len(points):
        return []
    beats = dominates(points, violations)
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

    Of points with equal values the first has their distance, and its copies have 0: a population
    that fills up with copies of its ends spreads no further.

    Source: Deb et al. 2002, section III-B; differs: copies, as above (as in Fortin and Parizeau
    2013, "Revisiting the NSGA-II Crowding-Distance Computation", whose distances are those of the
    distinct points, too), and an objective in which all points are equal counts nothing.

    Args:
        points: `[N, M]` of one front.
    Returns:
        `[N]`, in the order of the points.
    Example:
        >>> crowding_distance([(0, 4), (1, 3), (4, 0), (4, 0)])
        [inf, 2.0, inf, 0.0]
    """
    values, first = np.unique(_matrix(points), axis=0, return_index=True)
    apart = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        if spread == 0:
            continue
        apart[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
        apart[order[[0, -1]]] = np.inf
    distance = np.zeros(len(points))
    distance[first] = apart
    return [float(d) for d in distance]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other beats, ascending.

    Of points with equal values all are kept. Takes N log N to sort, and for each point one look at
    the front so far.

    Args:
        points: `[N, M]`, to be maximised.
    Example:
        >>> front([(1, 1), (0, 1), (2, 0), (1, 1)])
        [0, 2, 3]
    """
    if not len(points):
        return []
    values = _matrix(points)
    # Whatever beats a point comes before it in descending lexicographic order.
    order = np.lexsort(values.T[::-1])[::-1]
    kept = np.empty_like(values)
    found: list[int] = []
    for i in order:
        best = kept[: len(found)]
        no_worse = (best >= values[i]).all(1)
        if not (no_worse & (best > values[i]).any(1)).any():
            kept[len(found)] = values[i]
            found.append(int(i))
    return sorted(found)
