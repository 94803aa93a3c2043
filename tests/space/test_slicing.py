from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.errors import InvalidSpace, LostLink, UnsupportedLayer
from assay.space.check import check_paths
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.slicing import take
from assay.space.space import Space


def test_a_layer_without_a_rule_is_refused_by_path() -> None:
    w = Width(4, 8)
    net = nn.Sequential(nn.Linear(4, w), nn.Sequential(nn.Bilinear(w, w, 2)))
    with pytest.raises(UnsupportedLayer, match=r"1\.0: Bilinear"):
        Space(net)


def test_a_layer_with_tensors_of_its_own_is_refused() -> None:
    class Scaled(nn.Linear):
        def __init__(self, i: int, o: int) -> None:
            super().__init__(i, o)
            self.scale = nn.Parameter(torch.ones(o))

    with pytest.raises(UnsupportedLayer, match="adds the tensors scale"):
        Space(nn.Sequential(Scaled(4, Width(4, 8))))


def test_groups_that_do_not_divide_are_refused() -> None:
    w = Width(6, 8)
    with pytest.raises(InvalidSpace, match="num_channels=6 does not divide into 4 groups"):
        Space(nn.Sequential(nn.Conv2d(4, w, 1), nn.GroupNorm(4, w)))


def test_a_lost_link_names_the_module() -> None:
    class Lost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(4, 8)
            self.first = nn.Linear(3, w)
            self.second = nn.Linear(int(w), 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    space = Space(Lost)
    with pytest.raises(LostLink, match=r"^second: .*Width or Kernel itself"):
        check_paths(space, torch.zeros(1, 3), [space.smallest()])


def test_a_forward_with_a_hidden_dependence_is_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Linear(3, 3), b=nn.Linear(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.op(x) * (2.0 if isinstance(self.op, OneOf) else 1.0)

    space = Space(Hidden)
    with pytest.raises(InvalidSpace, match="differ by"):
        check_paths(space, torch.ones(1, 3), [space.largest()])


def test_take_gives_views_where_it_can() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    part = take(whole, ((slice(0, 2),), (slice(1, 4),)))
    assert part.data_ptr() == whole[0, 1:].data_ptr()
    assert torch.equal(part, whole[:2, 1:4])
    gaps = take(whole, ((slice(0, 4),), (slice(0, 1), slice(4, 6))))
    assert torch.equal(gaps, whole[:, [0, 4, 5]])
