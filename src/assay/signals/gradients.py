"""Gradients of the loss at initialisation: SNIP, gradient norm, GraSP, Fisher, ZiCo.

w are the connections (parameters of two dimensions or more), L is the loss on the batch and
g = dL/dw. What Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", arXiv:2101.08134,
section 3.2, made of pruning criteria is their sum over all connections.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assay.signals.probe import Half, Probe

__all__ = ["fisher", "grad_norm", "grasp", "snip", "zico"]


def snip(probe: Probe) -> float:
    """Return sum |w g|: how much the loss would change, were connections taken out.

    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning Based on Connection Sensitivity",
    arXiv:1810.02340, section 4; differs: summed, and not normalised.

    Args:
        probe: The network and its gradients.
    """
    pairs = zip(probe.connections, _whole(probe))
    return _total([(w.detach() * g).abs() for w, g in pairs])


def grad_norm(probe: Probe) -> float:
    """Return the sum over the weights of layers of the Euclidean norm of g.

    Source: Abdelfattah et al. 2021, arXiv:2101.08134, section 3.2.

    Args:
        probe: The network and its gradients.
    """
    return float(sum(g.double().norm() for g in _whole(probe)))


def grasp(probe: Probe) -> float:
    """Return -sum w * Hg, where H is the Hessian: how much of the gradient pruning would take.

    Source: Wang et al. 2020, "Picking Winning Tickets Before Training by Preserving Gradient Flow",
    arXiv:2002.07376, section 4; differs: no temperature.

    Args:
        probe: The network and the graph of its loss.
    """
    weights = probe.connections
    loss = torch.stack([half.share * half.loss for half in probe.halves]).sum()
    g = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    product = torch.stack([(part * part.detach()).sum() for part in g]).sum()
    hg = torch.autograd.grad(product, weights, retain_graph=True, materialize_grads=True)
    return -_total([w.detach() * part for w, part in zip(weights, hg)])


def fisher(probe: Probe) -> float:
    """Return the sum over channels of 1/2N sum_n (sum over positions of a dL/da)^2.

    a are the outputs `[N, channels, ...]` of all layers with weights.

    Source: Turner et al. 2020, "BlockSwap: Fisher-guided Block Substitution for Network Compression
    on a Budget", arXiv:1906.04113, the Fisher potential; differs: outputs of all layers with
    weights, before activations.

    Args:
        probe: The network and the graph of its loss.
    """
    return sum(_half_fisher(half) for half in probe.halves)


def _half_fisher(half: Half) -> float:
    outputs = [layer.tensor for layer in half.layers]
    grads = torch.autograd.grad(half.loss, outputs, retain_graph=True, materialize_grads=True)
    total = 0.0
    for layer, g in zip(half.layers, grads):
        # The gradient of the half's mean, times its share, is that of the batch's mean.
        product = (layer.tensor.detach() * g * half.share).movedim(layer.axis, 1)
        by_channel = product.flatten(2).sum(2) if product.dim() > 2 else product
        total += _total([by_channel.square()]) * half.share / (2 * len(product))
    return total


def zico(probe: Probe) -> float:
    """Return the sum over layers of log sum_w mean|g| / std|g|, over the two halves of the batch.

    With two halves mean ÷ std is (|g1| + |g2|) / ||g1| - |g2||. Weights whose |g| does not vary
    have no such ratio and are left out, and with them layers that have none other. NaN where a
    gradient is not finite.

    Source: Li et al. 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients",
    arXiv:2301.11300, section 3; differs: the authors' code takes the deviation of g, not of |g|.

    Args:
        probe: The network and its gradients, by half.
    """
    total = 0.0
    for pair in zip(*probe.gradients):
        if not all(bool(g.isfinite().all()) for g in pair):
            return math.nan
        one, two = (g.abs() for g in pair)
        gap = (one - two).abs()
        ratios = ((one + two) / gap).where(gap > 0, 0.0).sum(dtype=torch.float64)
        total += float(ratios.log()) if ratios > 0 else 0.0
    return total


def _whole(probe: Probe) -> list[Tensor]:
    """Return g of the whole batch, by connection."""
    first, second = (half.share for half in probe.halves)
    return [first * one + second * two for one, two in zip(*probe.gradients)]


def _total(tensors: list[Tensor]) -> float:
    return float(sum(t.sum(dtype=torch.float64) for t in tensors))
