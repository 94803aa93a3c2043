"""Where the names of points go: beside them, and over nothing that is drawn already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from assay.report.marks import Floats

__all__ = ["Box", "place_names"]

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

_REACH = (7.0, 14.0, 24.0, 35.0, 48.0, 64.0, 84.0)  # how far from its point a name may begin
_DIRECTIONS = 16
_NEARNESS = 0.25  # area that may be covered to be nearer by one
_ALOOF, _STRANGER = 13.0, 6.0  # a name within so much of another's point seems to be that one's


def place_names(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    taken: Sequence[Box],
    within: Box,
) -> list[Box]:
    """Place a name for each point, one after another, each where it covers least.

    A place costs the area it covers, its nearness to another's point, and a little for the
    distance from its own.

    Args:
        points: Of the figure, all in one unit.
        sizes: Width and height of each name.
        taken: What is drawn already, the points included.
        within: Where names may be; one that is wider is moved to its left edge.
    Returns:
        A box for each name, in the order of the points.
    """
    placed: list[Box] = []
    for i, (point, size) in enumerate(zip(points, sizes)):
        strangers = [*points[:i], *points[i + 1 :]]
        covered = np.array([*taken, *placed], float).reshape(-1, 4)
        costs = {
            box: _area(box, covered)
            + _NEARNESS * _distance(point, box)
            + _STRANGER * sum(max(0.0, _ALOOF - _distance(other, box)) for other in strangers)
            for box in _places(point, size, within)
        }
        placed.append(min(costs, key=costs.__getitem__))
    return placed


def _places(point: tuple[float, float], size: tuple[float, float], within: Box) -> Iterator[Box]:
    """Yield boxes around a point, near ones first, moved inside where they would stick out."""
    (x, y), (width, height) = point, size
    left, bottom, right, top = within
    for reach in _REACH:
        for turn in np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS:
            across, up = np.cos(turn), np.sin(turn)
            stretch = max(abs(across), abs(up))  # from a circle to a square
            x0 = x + (reach + width / 2) * across / stretch - width / 2
            y0 = y + (reach + height / 2) * up / stretch - height / 2
            x0 = float(max(left, min(x0, right - width)))
            y0 = float(max(bottom, min(y0, top - height)))
            yield (x0, y0, x0 + width, y0 + height)


def _area(box: Box, covered: Floats) -> float:
    """Return the area of a box that others cover."""
    wide = np.minimum(covered[:, 2], box[2]) - np.maximum(covered[:, 0], box[0])
    high = np.minimum(covered[:, 3], box[3]) - np.maximum(covered[:, 1], box[1])
    return float((np.maximum(wide, 0) * np.maximum(high, 0)).sum())


def _distance(point: tuple[float, float], box: Box) -> float:
    """Return how far a box is from a point; 0 inside."""
    across = max(box[0] - point[0], 0.0, point[0] - box[2])
    up = max(box[1] - point[1], 0.0, point[1] - box[3])
    return float(np.hypot(across, up))
