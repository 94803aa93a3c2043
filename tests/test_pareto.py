"""Hand-made tables with ties and duplicates, and laws over drawn points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.pareto import crowding_distance, dominates, front, non_dominated_sort

INF = math.inf
# Few values, so that ties and duplicates are the rule.
COORDINATE = st.integers(-2, 2).map(float)


@st.composite
def populations(draw, infeasible=True):
    """Points of one width, with violations of which about half are 0."""
    width = draw(st.integers(1, 4))
    points = draw(st.lists(st.tuples(*[COORDINATE] * width), max_size=24))
    outside = st.sampled_from([0.0, 0.0, 0.5, 1.0]) if infeasible else st.just(0.0)
    return points, [draw(outside) for _ in points]


def beats(p, q, over_p=0.0, over_q=0.0):
    """Say it again as the paper does, one pair at a time."""
    if over_p == 0 and over_q == 0:
        return all(a >= b for a, b in zip(p, q)) and any(a > b for a, b in zip(p, q))
    return over_p < over_q


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "fronts"),
    [
        ([], []),
        ([(1, 1)], [[0]]),
        ([(1, 1), (1, 1), (1, 1)], [[0, 1, 2]]),
        ([(2, 0), (1, 1), (0, 2)], [[0, 1, 2]]),
        ([(0, 0), (1, 1), (2, 2)], [[2], [1], [0]]),
        ([(1, 1), (1, 0), (0, 1), (1, 1), (0, 0)], [[0, 3], [1, 2], [4]]),  # ties and a duplicate
        ([(2, 1), (2, 0), (1, 2), (1, 1), (0, 2)], [[0, 2], [1, 3, 4]]),
        ([(3,), (1,), (3,), (2,)], [[0, 2], [3], [1]]),
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)], [[0, 1, 2], [3]]),
        ([(-0.0, 1), (0.0, 1)], [[0, 1]]),
    ],
)
def test_fronts_of_a_table(points, fronts):
    assert non_dominated_sort(points) == fronts
    assert front(points) == (fronts[0] if fronts else [])


def test_limits_come_before_objectives():
    points = [(0, 0), (9, 9), (5, 5), (1, 1), (9, 9)]
    assert non_dominated_sort(points, [0.0, 0.2, 0.1, 0.0, 0.2]) == [[3], [0], [2], [1, 4]]


def test_among_the_infeasible_values_do_not_matter():
    assert non_dominated_sort([(0, 0), (5, 5), (9, 0)], [0.3, 0.3, 0.1]) == [[2], [0, 1]]


@pytest.mark.parametrize(
    ("points", "distances"),
    [
        ([], []),
        ([(7, 7)], [0.0]),
        ([(0, 1), (1, 0)], [INF, INF]),
        ([(5, 5), (5, 5), (5, 5)], [0.0, 0.0, 0.0]),
        ([(0, 4), (1, 3), (4, 0)], [INF, 2.0, INF]),
        # neighbours in each objective, as a share of its range, added up
        ([(0, 10), (2, 6), (3, 5), (10, 0)], [INF, 0.3 + 0.5, 0.8 + 0.6, INF]),
        # a copy adds nothing, in the middle or at an end
        ([(0, 4), (2, 2), (2, 2), (4, 0)], [INF, 2.0, 0.0, INF]),
        ([(0, 4), (0, 4), (2, 2), (4, 0)], [INF, 0.0, 2.0, INF]),
        # an objective that is equal everywhere tells nothing
        ([(0, 1), (1, 1), (3, 1)], [INF, 1.0, INF]),
    ],
)
def test_distances_of_a_table(points, distances):
    assert crowding_distance(points) == pytest.approx(distances)


# --- laws -----------------------------------------------------------------------------------------


@given(populations())
def test_domination_is_the_papers(population):
    points, over = population
    told = dominates(points, over)
    for i, p in enumerate(points):
        for j, q in enumerate(points):
            assert told[i, j] == beats(p, q, over[i], over[j])


@given(populations())
def test_domination_is_a_strict_order(population):
    told = dominates(*population).astype(int)
    assert not told.diagonal().any()
    assert not (told & told.T).any()
    assert not ((told @ told > 0) & (told == 0)).any()  # transitive


@given(populations())
def test_each_front_is_beaten_only_by_those_before(population):
    points, over = population
    fronts = non_dominated_sort(points, over)
    assert sorted(i for f in fronts for i in f) == list(range(len(points)))
    assert all(f == sorted(f) and f for f in fronts)
    for rank, members in enumerate(fronts):
        for i in members:
            by = [j for j in range(len(points)) if beats(points[j], points[i], over[j], over[i])]
            ranks = {r for r, f in enumerate(fronts) for j in by if j in f}
            assert all(r < rank for r in ranks)
            assert rank == 0 or rank - 1 in ranks


@given(populations(infeasible=False))
def test_the_front_is_the_first_of_the_fronts(population):
    points, _ = population
    assert front(points) == (non_dominated_sort(points) or [[]])[0]


@given(populations(infeasible=False), st.randoms(use_true_random=False))
def test_order_does_not_matter_where_nothing_ties(population, shuffle):
    points = list(dict.fromkeys(population[0]))
    order = list(range(len(points)))
    shuffle.shuffle(order)
    moved = [points[i] for i in order]
    assert {moved[i] for i in front(moved)} == {points[i] for i in front(points)}


@given(populations(infeasible=False), st.randoms(use_true_random=False))
def test_order_does_not_matter_to_crowding_and_copies_add_nothing(population, shuffle):
    points = list(dict.fromkeys(population[0]))
    told = dict(zip(points, crowding_distance(points)))
    shuffle.shuffle(points)
    assert crowding_distance(points) == [told[p] for p in points]
    assert crowding_distance(points * 2) == [*(told[p] for p in points), *[0.0] * len(points)]


@given(populations(infeasible=False))
def test_scale_and_place_do_not_matter_to_crowding(population):
    points, _ = population
    near = crowding_distance(points)
    far = crowding_distance([tuple(8 * v + 3 for v in p) for p in points])
    assert far == pytest.approx(near)


def test_the_front_of_a_long_history_is_found_at_once():
    values = np.random.default_rng(0).normal(size=(20_000, 2))
    found = front(values.tolist())
    best = -INF
    for i in sorted(range(len(values)), key=lambda i: -values[i, 0]):  # no two are equal
        if values[i, 1] > best:
            best = values[i, 1]
            assert i in found
            found.remove(i)
    assert found == []
