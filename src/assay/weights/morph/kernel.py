"""Larger kernels around the old one, and smaller ones from its centre."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, UnsupportedLayer, nearest

__all__ = ["centred", "grow_kernel", "shrink_kernel"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def grow_kernel(model: nn.Module, layer: str, kernel: int) -> nn.Module:
    """Return a copy of a model with a larger kernel, zero around the old one: the same function.

    The padding grows along, so that each position sees what it saw.

    Source: Wei et al. 2016, "Network Morphism", arXiv:1603.01670, on kernel size morphing; differs:
    zeros only.

    Args:
        model: Left as it is.
        layer: Module path of a convolution.
        kernel: Its side after; odd if the sides are odd now, and at least as large.
    Raises:
        InvalidSetting: no such layer, or a side that has not the same centre or is smaller.
        UnsupportedLayer: the layer is no convolution of torch's, or its padding is a word.
    """
    twin, conv = _opened(model, layer, kernel)
    if kernel < max(conv.kernel_size):
        raise InvalidSetting(f"{layer!r} has a kernel of {conv.kernel_size}; use shrink_kernel")
    return _replaced(twin, layer, conv, kernel)


def shrink_kernel(model: nn.Module, layer: str, kernel: int) -> nn.Module:
    """Return a copy of a model with the centre of a kernel; the function changes.

    Source: Cai et al. 2020, "Once-for-All", arXiv:1908.09791, section 3; differs: no learned
    transformation of the centre.

    Args:
        model: Left as it is.
        layer: Module path of a convolution.
        kernel: Its side after; odd if the sides are odd now, and at most as large.
    Raises:
        InvalidSetting: no such layer, a side that has not the same centre or is larger, or less
            padding than falls away.
        UnsupportedLayer: the layer is no convolution of torch's, or its padding is a word.
    """
    twin, conv = _opened(model, layer, kernel)
    if kernel > min(conv.kernel_size):
        raise InvalidSetting(f"{layer!r} has a kernel of {conv.kernel_size}; use grow_kernel")
    return _replaced(twin, layer, conv, kernel)


def centred(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return a kernel's centre, or the kernel with zeros around it.

    Args:
        weight: `[out, in, *kernel]`.
        size: The sides after; each differs by an even number.
    """
    for dim, side in enumerate(size, start=2):
        edge = (side - weight.shape[dim]) // 2
        if edge < 0:
            weight = weight.narrow(dim, -edge, side)
        else:
            weight = F.pad(weight, [0, 0] * (weight.ndim - 1 - dim) + [edge, edge])
    return weight


def _opened(model: nn.Module, layer: str, kernel: int) -> tuple[nn.Module, Any]:
    known = {path: m for path, m in model.named_modules() if type(m) in _CONVOLUTIONS}
    twin = copy.deepcopy(model)
    if layer not in dict(model.named_modules()):
        raise InvalidSetting(f"no layer {layer!r}; {nearest(layer, known)}")
    if layer not in known:
        found = type(model.get_submodule(layer)).__name__
        raise UnsupportedLayer(f"{layer!r} is a {found}; kernels are of {nearest(layer, known)}")
    conv: Any = twin.get_submodule(layer)
    if any((kernel - side) % 2 for side in conv.kernel_size) or kernel < 1:
        raise InvalidSetting(
            f"a kernel of {kernel} has not the centre of {conv.kernel_size} of {layer!r}; "
            "change it by an even number"
        )
    return twin, conv


def _replaced(twin: nn.Module, layer: str, conv: Any, kernel: int) -> nn.Module:
    """Put a convolution of another side in the place of one, with its other settings."""
    size = (kernel,) * len(conv.kernel_size)
    padding = conv.padding
    if not isinstance(padding, str):
        edges = [d * (kernel - k) // 2 for d, k in zip(conv.dilation, conv.kernel_size)]
        padding = tuple(p + e for p, e in zip(padding, edges))
        if min(padding) < 0:
            raise InvalidSetting(
                f"{layer!r} has a padding of {conv.padding}, from which a kernel of {kernel} would "
                f"take {-min(edges)}; crop its input instead"
            )
    elif padding == "valid":
        raise UnsupportedLayer(f"{layer!r} has padding='valid': give it a number")
    new = type(conv)(
        conv.in_channels, conv.out_channels, size, stride=conv.stride, padding=padding,
        dilation=conv.dilation, groups=conv.groups, bias=conv.bias is not None,
        padding_mode=conv.padding_mode, device="meta",
    )  # fmt: skip
    weight = centred(conv.weight.detach(), size).clone()
    new.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    new.bias = conv.bias
    twin.set_submodule(layer, new.train(conv.training))
    return twin
