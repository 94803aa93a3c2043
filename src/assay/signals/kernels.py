"""How differently a network sees the samples of a batch: NASWOT, Jacobian covariance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from assay.errors import InvalidSetting, NotFinite
from assay.signals.probe import Half, Probe

__all__ = ["jacob_cov", "naswot", "spectrum"]

_K = 1e-5


def spectrum(matrix: Tensor) -> Tensor:
    """Return the eigenvalues `[n]` of a symmetric matrix `[n, n]`; NaN where it is not finite."""
    if not bool(matrix.isfinite().all()):
        return matrix.new_full(matrix.shape[:1], torch.nan)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def jacob_cov(probe: Probe) -> float:
    """Return -sum [log(v + k) + 1 / (v + k)], k = 1e-5, over the eigenvalues v of a correlation.

    It is the correlation, between samples, of the gradients of the summed outputs by the inputs.

    Source: Mellor et al. 2020, "Neural Architecture Search without Training",
    arXiv:2006.04647v1, section 3.

    Args:
        probe: The network and its outputs.
    Raises:
        InvalidSetting: the network reads no floats.
    """
    v = spectrum(_correlation(torch.cat([_jacobian(half) for half in probe.halves]))) + _K
    return -float((v.log() + 1 / v).sum())


def _jacobian(half: Half) -> Tensor:
    """Return the gradient of the summed outputs by each sample's inputs, `[n, inputs]`."""
    if not half.inputs:
        raise InvalidSetting(
            "the network reads integers, such as words, which have no gradient; leave the signal "
            "'jacob_cov' out"
        )
    total = torch.stack([output.sum() for output in half.outputs]).sum()
    grads = torch.autograd.grad(total, half.inputs, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten(1) for g in grads], 1).double()


def _correlation(rows: Tensor) -> Tensor:
    """Return the correlation `[n, n]` of the rows of `[n, d]`; NaN where one does not vary."""
    centred = rows - rows.mean(1, keepdim=True)
    unit: Tensor = centred / centred.norm(dim=1, keepdim=True)
    return unit @ unit.T


def naswot(probe: Probe) -> float:
    """Return log |det K|, where K counts on how many ReLUs two samples agree to be on or off.

    All ReLUs between input and output count, called as modules or as functions. K is singular
    where two samples agree on every ReLU, or there are fewer ReLUs than samples less one.

    Source: Mellor et al. 2021, "Neural Architecture Search without Training", arXiv:2006.04647,
    section 3.

    Args:
        probe: The network and the graph of its outputs.
    Raises:
        InvalidSetting: the network has no ReLU.
        NotFinite: K is singular.
    """
    first, second = (list(_on(half)) for half in probe.halves)
    if not first:
        raise InvalidSetting("the network has no ReLU to read codes from; leave 'naswot' out")
    pairs = zip(first, second, strict=True)
    v = spectrum(torch.stack([_agreement(torch.cat(pair)) for pair in pairs]).sum(0))
    # The counts are exact, so an eigenvalue within rounding of 0 is 0.
    if v.min() <= len(v) * torch.finfo(v.dtype).eps * v.max():
        raise NotFinite(
            f"'naswot' is the logarithm of 0: {len(v)} samples do not differ enough in what their "
            "ReLUs do; take a smaller batch, or leave the signal out"
        )
    return float(v.log().sum())


def _agreement(on: Tensor) -> Tensor:
    """Return on how many units samples agree, `[N, N]`, of what is on, `[N, units]` of 0 and 1."""
    # X X' + (1 - X)(1 - X)' with one product in place of two.
    both, num = on @ on.T, on.sum(1)
    return (2 * both - num - num[:, None]).double() + on.shape[1]


def _on(half: Half) -> Iterator[Tensor]:
    """Yield for each ReLU which units are on, `[n, units]`, from the graph behind the outputs.

    Every ReLU leaves its result there, or its input, for the backward pass.
    """
    ahead: list[Any] = [output.grad_fn for output in half.outputs]
    seen: set[Any] = set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [behind for behind, _ in node.next_functions]
        if node.name() == "ReluBackward0":
            yield (node._saved_result > 0).flatten(1).float()
        elif node.name() == "HardtanhBackward0" and node._saved_min_val == 0:  # ReLU6
            yield (node._saved_self > 0).flatten(1).float()
