"""Of several limits the one that is furthest exceeded is told of, by the same draws each time."""

from __future__ import annotations

import numpy as np
import pytest

from assay.cost import derive
from assay.strategies.learned.tightest import Tightest


def test_the_limit_that_is_furthest_exceeded_is_told_with_its_mean_over_the_same_draws():
    more = [0.0]

    def measure(quantity, point) -> float:
        return point * {"macs": 10.0, "params": 1.0}[quantity]

    def draw(rng: np.random.Generator) -> float:
        return more[0] + float(rng.random())

    told = Tightest(measure, {"params": 1.0, "macs": 5.0}, draw, seed=3)
    rng = derive(3, "expected")
    mean = sum(10.0 * float(rng.random()) for _ in range(16)) / 16
    expected = {"quantity": "macs", "expected": pytest.approx(mean), "target": 5.0}
    assert told.figures() == expected
    assert told.figures() == expected
    more[0] = 2.0
    assert told.figures() == {**expected, "expected": pytest.approx(mean + 20.0)}
