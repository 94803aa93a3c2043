"""How images lie in memory: with their channels innermost, where that is faster and safe."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from assay.errors import InvalidSetting

__all__ = ["channels_last", "is_of_views", "prefers", "settled"]


def channels_last(tensor: Tensor) -> Tensor:
    """Return images `[N, C, H, W]` with their channels innermost in memory, others as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def settled(wanted: bool | Literal["auto"], module: nn.Module, device: str) -> bool:
    """Return whether a network is to have channels innermost, by a recipe's `channels_last`.

    Args:
        wanted: As the recipe says.
        module: The network.
        device: Torch device.
    Raises:
        InvalidSetting: wanted of a network that cannot.
    """
    if wanted is True and _has_volumes(module):
        raise InvalidSetting(
            "recipe.channels_last=True, but the network holds a tensor of five dimensions, for "
            "which there is no such format; use channels_last='auto'"
        )
    return prefers(module, device) if wanted == "auto" else wanted


def prefers(module: nn.Module, device: str) -> bool:
    """Whether a network computes faster with channels innermost.

    On a CPU too: backwards of depthwise convolutions took half the time, of dense ones 0.96, and
    of the small ones of `cell` with half a batch 0.77 with the forward.

    Args:
        module: The network.
        device: Torch device.
    """
    images = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    if not images or _has_volumes(module):
        return False
    return not (device == "cpu" and any(map(_overruns, images)))


def _has_volumes(module: nn.Module) -> bool:
    """Whether a network holds a tensor for which torch has no such format, and fails."""
    return any(t.ndim == 5 for t in itertools.chain(module.parameters(), module.buffers()))


def _overruns(conv: nn.Conv2d) -> bool:
    """Whether oneDNN may write past its workspace in the backward, and corrupt memory.

    Strided 1x1 convolutions of less than a block of channels, which are 8 or 16 by the processor
    (github.com/uxlfoundation/oneDNN/issues/6035, seen with torch 2.13). Of an open size the
    smallest option counts, and one worked out of others is taken to be small.
    """
    fewest = conv.in_channels if type(conv.in_channels) is int else 0
    fewest = min(getattr(conv.in_channels, "options", [fewest])) // int(conv.groups)
    return max(map(int, conv.kernel_size)) == 1 and max(conv.stride) > 1 and fewest < 16


def is_of_views(error: RuntimeError) -> bool:
    """Whether a forward failed because it flattens by `view`, which asks for the usual layout."""
    return "view size is not compatible" in str(error)
