"""Larger kernels around the old one, and smaller ones from its centre."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, UnsupportedLayer, nearest
from assay.weights.morph.layers import holders, hooked
from assay.weights.morph.rewrite import copied, put

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
        UnsupportedLayer: the layer is no convolution of torch's, its padding is "valid", or its
            weight is changed by a hook or shared with another layer.
    """
    twin, conv = _opened(model, layer, kernel)
    if kernel < max(conv.kernel_size):
        raise InvalidSetting(f"{layer!r} has a kernel of {conv.kernel_size}; use shrink_kernel")
    _resize(layer, conv, kernel)
    return twin


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
        UnsupportedLayer: the layer is no convolution of torch's, its padding is "valid", or its
            weight is changed by a hook or shared with another layer.
    """
    twin, conv = _opened(model, layer, kernel)
    if kernel > min(conv.kernel_size):
        raise InvalidSetting(f"{layer!r} has a kernel of {conv.kernel_size}; use grow_kernel")
    _resize(layer, conv, kernel)
    return twin


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
    twin = copied(model)
    modules = dict(twin.named_modules(remove_duplicate=False))
    known = [path for path, module in modules.items() if type(module) in _CONVOLUTIONS]
    if layer not in modules:
        raise InvalidSetting(f"no layer {layer!r}; {nearest(layer, known)}")
    conv: Any = modules[layer]
    if layer not in known:
        found = type(conv).__name__
        raise UnsupportedLayer(
            f"{layer!r} is a {found}, which has no kernel; {nearest(layer, known)}"
        )
    if hooked(conv):
        raise UnsupportedLayer(f"{layer!r} {hooked(conv)}")
    same = holders(twin)[id(conv.weight)]
    if len(same) > 1:
        raise UnsupportedLayer(
            f"{' and '.join(same)} share the weight of {layer!r}: give each its own"
        )
    if any((kernel - side) % 2 for side in conv.kernel_size) or kernel < 1:
        raise InvalidSetting(
            f"a kernel of {kernel} has not the centre of {conv.kernel_size} of {layer!r}; "
            "change it by an even number"
        )
    return twin, conv


def _resize(layer: str, conv: Any, kernel: int) -> None:
    """Give a convolution another side, in place: it may be called at several places."""
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
    for name in ("kernel_size", "padding", "_reversed_padding_repeated_twice"):
        setattr(conv, name, getattr(new, name))
    put(conv, {"weight": centred(conv.weight.detach(), size).clone()})
