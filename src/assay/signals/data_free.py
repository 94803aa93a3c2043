"""What needs no data: SynFlow, Zen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from assay.errors import InvalidSetting
from assay.signals.blocks import feature_maps, listening, parts
from assay.signals.probe import Probe
from assay.train.splits import leaves, map_tensors

__all__ = ["synflow", "zen"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
_SAMPLES, _REPEATS, _STEP = 16, 4, 0.01


def synflow(probe: Probe) -> float:
    """Return sum |w dR/dw|, where R is the sum of outputs for ones, w replaced by |w|.

    In float64, norms bypassed and biases at 0. Through layers that are linear on positive values,
    ReLUs among them, each layer's part of the sum is R itself: SynFlow is R times their number.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
    synaptic flow", arXiv:2006.05467, section 6; differs: at 0 are biases too.

    Args:
        probe: The network and the shapes of its inputs.
    Raises:
        InvalidSetting: the network reads integers, or has no weights.
    """
    state = probe.state(lambda w: w.abs().requires_grad_())
    weights = [t for t in state.values() if t.requires_grad]
    if not weights:
        raise InvalidSetting("the network has no weights to flow through; leave 'synflow' out")
    with _without_norms(probe.network):
        output = probe.call(probe.floats(1, torch.ones), state)
    flow = torch.stack([t.sum() for t in leaves(output) if isinstance(t, Tensor)]).sum()
    grads = torch.autograd.grad(flow, weights, materialize_grads=True)
    return float(sum((w.detach() * g).abs().sum() for w, g in zip(weights, grads)))


@contextmanager
def _without_norms(network: nn.Module) -> Iterator[None]:
    """Within: norms return their input."""
    with ExitStack() as stack:
        for norm in network.modules():
            if isinstance(norm, _NORMS):
                before = norm.__dict__.get("forward")
                norm.__dict__["forward"] = _first
                stack.callback(_put_back, norm, before)
        yield


def _first(*args: Any, **kwargs: Any) -> Any:
    """Return the first argument of a call, by position or by keyword: what a norm normalises."""
    return next(iter((*args, *kwargs.values())))


def _put_back(norm: nn.Module, before: Any) -> None:
    del norm.__dict__["forward"]
    if before is not None:
        norm.__dict__["forward"] = before


def zen(probe: Probe) -> float:
    """Return log E||f(x) - f(x + 0.01 e)|| + sum of log s, all weights, x and e drawn from N(0, 1).

    f is the last feature map (`assay.signals.blocks`), before pooling; s^2 is the mean over the
    channels of a batch norm of the variance of what it normalises: what batch norms take out of
    the differences is put back.

    Source: Lin et al. 2021, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition",
    arXiv:2102.01063, algorithm 1; differs: residual links stay, which cannot be told in any module;
    x and x + 0.01 e share one batch's statistics.

    Args:
        probe: The network and the shapes of its inputs.
    Raises:
        InvalidSetting: the network reads integers, or has no feature map.
    """
    generator = probe.generator("zen")
    with torch.no_grad():
        return sum(_zen(probe, generator) for _ in range(_REPEATS)) / _REPEATS


def _zen(probe: Probe, generator: torch.Generator) -> float:
    def normal(shape: Any) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    state = probe.state(lambda w: normal(w.shape).to(w.device))
    x, e = probe.floats(_SAMPLES, normal), probe.floats(_SAMPLES, normal)
    noises = leaves(e)
    both = map_tensors(x, lambda t: torch.cat([t, t + _STEP * next(noises)]))
    with listening(parts(probe.network)) as told, _spreads(probe.network) as spreads:
        probe.call(both, state)
    maps = feature_maps(told)
    if not maps:
        raise InvalidSetting("the network has no feature map before its output; leave 'zen' out")
    one, other = maps[-1].tensor.flatten(1).chunk(2)
    return float((one - other).norm(dim=1).mean().log() + torch.stack(spreads).log().sum())


@contextmanager
def _spreads(network: nn.Module) -> Iterator[list[Tensor]]:
    """Within: the deviation of what each batch norm normalises is taken down, after a 1."""
    spreads = [torch.ones((), dtype=torch.float64)]

    def take_down(_: nn.Module, args: Any, kwargs: Any) -> None:
        x = _first(*args, **kwargs).transpose(0, 1).flatten(1)
        spreads.append(x.var(1, correction=0).mean().sqrt().cpu())

    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(take_down, with_kwargs=True) for norm in norms]
    try:
        yield spreads
    finally:
        for hook in hooks:
            hook.remove()
