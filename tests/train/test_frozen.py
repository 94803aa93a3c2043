from __future__ import annotations

from torch import nn

from assay.train.frozen import frozen_norms, frozen_parts


def test_a_part_is_frozen_where_it_has_parameters_and_none_takes_a_gradient() -> None:
    half = nn.Linear(2, 2)
    half.weight.requires_grad_(False)
    backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).requires_grad_(False)
    model = nn.Sequential(backbone, half, nn.ReLU(), nn.Linear(2, 2))
    assert list(frozen_parts(model)) == [backbone, backbone[0]]
    assert list(frozen_parts(backbone)) == [backbone, backbone[0]]
    assert list(frozen_parts(nn.ReLU())) == list(frozen_parts(nn.Linear(2, 2))) == []


def test_a_norm_without_parameters_is_frozen_with_what_it_stands_in() -> None:
    def norms() -> tuple[nn.Module, nn.Module]:
        return nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False)

    backbone = nn.Sequential(nn.Linear(2, 2), *norms()).requires_grad_(False)
    alone = nn.InstanceNorm1d(2, affine=True, track_running_stats=True).requires_grad_(False)
    model = nn.Sequential(backbone, alone, *norms())
    assert frozen_norms(model) == [backbone[1], backbone[2], alone]
    assert frozen_norms(nn.Sequential(*norms())) == []
