"""Statistics of norms that are kept beside a model, under a key of the path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.weights.norms import Norms


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_measured_statistics_are_the_mean_over_the_batches_of_their_key(kind) -> None:
    norm, key = kind(3, affine=False, track_running_stats=True).double().eval(), ["a"]
    norms = Norms(norm, lambda: key[0])
    before = norm.running_mean.clone()
    rng = torch.Generator().manual_seed(0)
    seen = {
        name: [torch.randn(8, 3, 16, generator=rng, dtype=torch.float64) + far for _ in range(3)]
        for name, far in (("a", 5.0), ("b", -5.0))
    }
    with norms.measuring():
        for name, batches in seen.items():
            key[0] = name
            for batch in batches:
                norm(batch)
    with norms.using():
        for name, batches in seen.items():
            key[0] = name
            mean = torch.stack([batch.mean((0, 2)) for batch in batches]).mean(0)
            out = norm(mean[None, :, None].expand(1, 3, 16))
            torch.testing.assert_close(out, torch.zeros_like(out), atol=1e-12, rtol=0)
    assert torch.equal(norm.running_mean, before)
    assert not norm.training
