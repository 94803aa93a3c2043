from __future__ import annotations

import itertools

from assay.cost import derive
from assay.report.labels import Box, place_names

WHOLE = (0.0, 0.0, 400.0, 300.0)


def overlap(one: Box, other: Box) -> bool:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    return wide > 0 and min(one[3], other[3]) > max(one[1], other[1])


def around(point: tuple[float, float]) -> Box:
    return (point[0] - 4, point[1] - 4, point[0] + 4, point[1] + 4)


def test_a_name_alone_stands_right_of_its_point() -> None:
    (box,) = place_names([(100, 100)], [(40, 12)], taken=[around((100, 100))], within=WHOLE)
    assert box == (107, 94, 147, 106)


def test_names_of_a_crowd_cover_neither_each_other_nor_a_point() -> None:
    points = [(200.0, 150.0 + 3 * i) for i in range(8)]
    points += [tuple(map(float, p)) for p in derive(0, "labels").uniform(20, 280, (8, 2))]  # type: ignore[misc]
    taken = [around(p) for p in points]
    boxes = place_names(points, [(60, 12)] * len(points), taken=taken, within=WHOLE)
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    assert not any(overlap(a, b) for a in boxes for b in taken)


def test_a_name_stays_within() -> None:
    corners = [(0.0, 0.0), (400.0, 0.0), (0.0, 300.0), (400.0, 300.0)]
    for left, bottom, right, top in place_names(corners, [(90, 12)] * 4, taken=[], within=WHOLE):
        assert left >= 0
        assert bottom >= 0
        assert right <= 400
        assert top <= 300


def test_a_name_keeps_away_from_what_is_drawn_and_from_anothers_point() -> None:
    wall = (104.0, 0.0, 106.0, 300.0)
    (box,) = place_names([(100, 100)], [(40, 12)], taken=[wall], within=WHOLE)
    assert not overlap(box, wall)
    beside = place_names([(100, 100), (152, 100)], [(40, 12)] * 2, taken=[], within=WHOLE)
    assert beside[0] != (107, 94, 147, 106)  # would seem to be the name of the other
