from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.weights.paths import Fair, Sandwich, Sized, Uniform
from assay.zoo.cell import cell
from tests.space.spaces import Chain, Tangle


def chain(options: list[int]) -> Space:
    return Space(nn.Sequential(*[
        OneOf({f"o{j}": nn.Linear(2, 2) for j in range(m)}) for m in options
    ]))  # fmt: skip


def test_uniform_draws_every_option_of_every_choice_equally() -> None:
    space, rng = chain([3, 3]), np.random.default_rng(0)
    n = 9000
    counts = Counter(Uniform().passes(space, 0, rng=rng)[0] for _ in range(n))
    chi2 = sum((counts[a] - n / 9) ** 2 / (n / 9) for a in space.all())
    assert chi2 < 26.1  # 0.999 quantile with 8 degrees of freedom
    assert len(Uniform(num=3).passes(space, 0, rng=rng)) == 3


def test_strict_fairness_activates_each_option_once_a_step() -> None:
    space = chain([4, 4, 4])
    for step in range(20):
        passes = Fair().passes(space, step, rng=derive(0, step))
        assert len(passes) == 4
        for label in space.choices:
            assert sorted(str(p[label]) for p in passes) == ["o0", "o1", "o2", "o3"]


def test_strict_fairness_pairs_options_at_random() -> None:
    space = chain([3, 3])
    n = 3000
    pairs = Counter(
        (p["0"], p["1"]) for s in range(n) for p in Fair().passes(space, s, rng=derive(1, s))
    )
    chi2 = sum((c - n / 3) ** 2 / (n / 3) for c in pairs.values())
    assert len(pairs) == 9
    assert chi2 < 26.1


@pytest.mark.parametrize("model", [Chain, Tangle])
def test_siblings_differ_by_at_most_one(model: type[nn.Module]) -> None:
    space = Space(model)
    most = max(len(c.options) for c in space.choices.values())
    for step in range(50):
        passes = Fair().passes(space, step, rng=derive(2, step))
        assert len(passes) == most
        assert all(isinstance(p, Architecture) and space.contains(p) for p in passes)
        for label, choice in space.choices.items():
            counts = Counter(p[label] for p in passes if label in p)
            spread = [counts[o] for o in choice.options]
            assert max(spread) - min(spread) <= 1


def test_nested_choices_are_counted_while_their_parent_is_active() -> None:
    def inner() -> OneOf:
        return OneOf(p=nn.Linear(2, 2), q=nn.Linear(2, 2))

    space = Space(nn.Sequential(OneOf(a=inner(), b=nn.ReLU()), chain([4]).model))
    for step in range(20):
        passes = Fair().passes(space, step, rng=derive(3, step))
        assert Counter(p["0"] for p in passes) == {"a": 2, "b": 2}
        assert Counter(p["0.a"] for p in passes if "0.a" in p) == {"p": 1, "q": 1}


def test_the_sandwich_has_both_extremes() -> None:
    space = Space(Depth(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)))
    passes = Sandwich(num=2).passes(space, 0, rng=np.random.default_rng(0))
    assert [p["Depth"] for p in passes[:2]] == [3, 1]
    assert len(passes) == 4


def test_no_path_at_all_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"paths\.num=0"):
        Uniform(num=0).passes(chain([2]), 0, rng=np.random.default_rng(0))
    with pytest.raises(InvalidSetting, match=r"paths\.num=0"):
        Sized(num=0).passes(chain([2]), 0, rng=np.random.default_rng(0))


def chances(space: Space, label: str, n: int = 4000) -> dict[object, float]:
    rng = np.random.default_rng(0)
    counts = Counter(Sized().passes(space, 0, rng=rng)[0][label] for _ in range(n))
    return {option: counts[option] / n for option in space.choices[label].options}


def test_options_are_drawn_by_their_rank_in_parameters() -> None:
    two = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    space = Space(nn.Sequential(OneOf(two=two, none=nn.Identity(), one=nn.Linear(2, 2))))
    found = chances(space, "0")
    for option, expected in {"none": 1 / 6, "one": 2 / 6, "two": 3 / 6}.items():
        assert found[option] == pytest.approx(expected, abs=0.03)


def test_options_with_equally_many_parameters_share_their_ranks() -> None:
    space = Space(nn.Sequential(OneOf(a=nn.ReLU(), b=nn.Identity(), c=nn.Linear(2, 2))))
    found = chances(space, "0")
    for option, expected in {"a": 0.25, "b": 0.25, "c": 0.5}.items():
        assert found[option] == pytest.approx(expected, abs=0.03)


def test_larger_sizes_and_depths_are_drawn_more_often() -> None:
    width = Width(2, 4, 6, label="w")
    stack = Depth(nn.Linear(2, 2), nn.Linear(2, 2), label="d")
    space = Space(nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2), stack))
    found = chances(space, "w")
    for option, expected in {2: 1 / 6, 4: 2 / 6, 6: 3 / 6}.items():
        assert found[option] == pytest.approx(expected, abs=0.03)
    assert chances(space, "d")[2] == pytest.approx(2 / 3, abs=0.03)


def test_sized_paths_have_no_part_that_nothing_reads() -> None:
    space, rng = cell(channels=4, cells=1), np.random.default_rng(0)
    paths = Sized(num=50).passes(space, 0, rng=rng)
    assert all(space.canonical(path) == path for path in paths)
