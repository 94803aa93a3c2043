"""What the feature maps of a network hold and pass on: expressivity, progressivity, trainability.

A feature map f_l, l = 1 ... B, is what a part of the network hands on (`assay.signals.blocks`); the
output itself is none. With `macs`, its complexity, these are the four proxies of AZ-NAS.

Source: Lee & Ham 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
arXiv:2403.19232, section 3; differs: the network's own initial weights and the task's own samples
in place of Kaiming's and Gaussian ones, and residual links stay in all spaces.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import InvalidSetting
from assay.signals.blocks import FeatureMap
from assay.signals.kernels import spectrum
from assay.signals.probe import Half, Probe

__all__ = ["expressivity", "progressivity", "trainability"]

_CONSTANT = 1e-12


def expressivity(probe: Probe) -> float:
    """Return the sum over feature maps of the entropy of their principal components' shares.

    Args:
        probe: The network and its feature maps.
    Raises:
        InvalidSetting: the network has no feature map.
    """
    return sum(_entropies(probe, "expressivity", 1))


def progressivity(probe: Probe) -> float:
    """Return the smallest rise of that entropy from one feature map to the next.

    Args:
        probe: The network and its feature maps.
    Raises:
        InvalidSetting: the network has fewer than two feature maps.
    """
    found = _entropies(probe, "progressivity", 2)
    return min(after - before for before, after in itertools.pairwise(found))


def _entropies(probe: Probe, name: str, fewest: int) -> list[float]:
    _check(probe, name, fewest)
    return probe.once(_all_entropies)


def _all_entropies(probe: Probe) -> list[float]:
    pairs = zip(*(half.maps for half in probe.halves), strict=True)
    return [_entropy(torch.cat([_rows(one), _rows(two)])) for one, two in pairs]


def _rows(fmap: FeatureMap) -> Tensor:
    """Return a map as `[N * positions, channels]`."""
    return fmap.tensor.detach().movedim(fmap.axis, -1).flatten(0, -2).double()


def _entropy(rows: Tensor) -> float:
    """Return the entropy of the spectrum of the covariance of rows `[n, channels]`.

    0 where they do not vary: a single point has no spread to share out.
    """
    centred = rows - rows.mean(0)
    if centred.square().sum() <= _CONSTANT * rows.square().sum():
        return 0.0
    # The smaller of the two products has the same spectrum but for zeros.
    wide = rows.shape[1] > rows.shape[0]
    variances = spectrum(centred @ centred.T if wide else centred.T @ centred).clamp(min=0)
    return float(torch.special.entr(variances / variances.sum()).sum())


def trainability(probe: Probe) -> float:
    """Return the mean over parts of 2 - s - 1/s, where s is the part's largest singular value.

    It is that of A_l, the estimate of the Jacobian of f_l by f_(l-1): the mean over samples and
    positions of g v', where v is random signs at f_l and g what they become at f_(l-1). Where f_l
    has fewer positions, neighbours in f_(l-1) are taken for channels.

    Args:
        probe: The network, its feature maps and their graph.
    Raises:
        InvalidSetting: the network has fewer than two feature maps.
    """
    _check(probe, "trainability", 2)
    generator = probe.generator("trainability")
    found = []
    for i in range(1, len(probe.halves[0].maps)):
        pairs = [_pulled_back(half, i, generator) for half in probe.halves]
        before, after = (torch.cat(rows) for rows in zip(*pairs))
        largest = torch.linalg.matrix_norm(before.T @ after / len(after), 2).item()
        found.append(2 - largest - 1 / largest if largest else -math.inf)
    return sum(found) / len(found)


def _pulled_back(half: Half, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return gradients at map i - 1 and the signs at map i, `[N * positions, channels]` of each."""
    into, out = half.maps[i - 1], half.maps[i]
    coins = torch.randint(2, out.tensor.shape, generator=generator)
    signs = (2 * coins - 1).to(out.tensor)
    g = torch.zeros_like(into.tensor)
    if out.tensor.requires_grad and into.tensor.requires_grad:
        (g,) = torch.autograd.grad(
            out.tensor, into.tensor, signs, retain_graph=True, materialize_grads=True
        )
    before, after = g.movedim(into.axis, 1), signs.movedim(out.axis, 1)
    dims = max(before.dim(), after.dim())
    before, after = (t.reshape(*t.shape, *[1] * (dims - t.dim())) for t in (before, after))
    common = [min(pair) for pair in zip(before.shape[2:], after.shape[2:])]
    return _folded(before, common), _folded(after, common)


def _folded(tensor: Tensor, positions: list[int]) -> Tensor:
    """Return `[N, channels, ...]` as `[N * positions, channels']`, neighbours made channels.

    An axis that is no multiple of its positions is filled up with zeros.
    """
    for axis, num in enumerate(positions, start=2):
        stride = -(-tensor.shape[axis] // num)
        missing = stride * num - tensor.shape[axis]
        tensor = F.pad(tensor, [0, 0] * (tensor.dim() - 1 - axis) + [0, missing])
        shape = (*tensor.shape[:axis], num, stride, *tensor.shape[axis + 1 :])
        tensor = tensor.reshape(shape).movedim(axis + 1, 1).flatten(1, 2)
    return tensor.movedim(1, -1).flatten(0, -2).double()


def _check(probe: Probe, name: str, fewest: int) -> None:
    found = len(probe.halves[0].maps)
    if found < fewest:
        raise InvalidSetting(
            f"the signal {name!r} needs {fewest} feature maps or more, and the network has {found} "
            "(parts with weights before its last); leave the signal out"
        )
