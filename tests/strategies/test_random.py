from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch import nn

from assay.contracts import History
from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.random import Random

N = 4000


def nested() -> Space:
    """Four architectures: three below one of two options."""
    inner = OneOf({f"o{i}": nn.Linear(2, 2) for i in range(3)})
    return Space(nn.Sequential(OneOf(a=inner, b=nn.ReLU())))


@pytest.mark.parametrize(
    ("over", "shares"), [("architectures", [1 / 4] * 4), ("decisions", [1 / 6] * 3 + [1 / 2])]
)
def test_draws_are_as_frequent_as_they_should_be(over, shares):
    space = nested()
    asked = Random(over).ask(History(space), N, rng=np.random.default_rng(0))
    counts = Counter(p.architecture for p in asked)
    points = sorted(space.all(), key=lambda a: -len(a))
    chi2 = sum((counts[a] - N * s) ** 2 / (N * s) for a, s in zip(points, shares))
    assert chi2 < 16.3  # 0.999 quantile with 3 degrees of freedom
    assert {(p.fidelity, p.parent) for p in asked} == {(1.0, None)}


def test_over_neither_is_refused():
    with pytest.raises(InvalidSetting, match="sample over 'options'"):
        Random("options").ask(History(nested()), 1, rng=np.random.default_rng(0))
