"""The number format that a device computes in, and what 16 bits of range ask for."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from assay.errors import InvalidSetting
from assay.train.recipe import Recipe

__all__ = ["LossScale", "autocast", "in_full", "working_dtype"]

_WIDE = 64
_GROWTH_STEPS = 2000
_SMALLEST_SCALE = 2.0**-14


def working_dtype(recipe: Recipe, module: nn.Module, device: str) -> torch.dtype | None:
    """Return the 16-bit type that products are computed in, or None for float32.

    On CUDA "auto" is bfloat16 where the hardware has it, else float16. On a CPU it is bfloat16
    where there are AMX tiles, at least half of the network's weights are in convolutions and
    linear layers of 64 or more inputs (a group) and outputs, and no convolution is depthwise.
    Narrower ones fill no tile, and pay for the conversions alone; the backward of a depthwise one
    takes several times as long as in float32 (1.2 to 14 times, kernels of 3 to 7). That is a rule
    of thumb, settled without a clock so that a resumed run cannot decide otherwise.

    Args:
        recipe: Its `precision`.
        module: The network.
        device: Torch device.
    Raises:
        InvalidSetting: "fp16" on a CPU.
    """
    on_cuda = device.startswith("cuda")
    if recipe.precision == "fp16" and not on_cuda:
        raise InvalidSetting("recipe.precision='fp16' needs CUDA; use 'bf16' or 'fp32' on the CPU")
    if recipe.precision != "auto":
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]
    if on_cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    tiles = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if tiles and _fills_tiles(module) else None


def _fills_tiles(module: nn.Module) -> bool:
    wide = total = 0
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            weight = layer.weight
            if weight.shape[1] == 1 and getattr(layer, "groups", 1) > 1:
                return False
            total += weight.numel()
            if weight.shape[0] >= _WIDE and weight.shape[1] >= _WIDE:
                wide += weight.numel()
    return 2 * wide >= total > 0


def autocast(dtype: torch.dtype | None, device: str) -> AbstractContextManager[Any]:
    """Return the context, to be entered again and again, in which products have that type."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


def in_full(output: Any) -> Any:
    """Return what a network gave, of any structure, with tensors of 16-bit floats as float32.

    Losses are computed on it outside `autocast`: some refuse 16 bits, others lose what matters.
    """
    return tree_map(_wide, output)


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if is_dataclass(value) and not isinstance(value, type):  # torch does not look into these
        value = copy.copy(value)
        for field in fields(value):
            object.__setattr__(value, field.name, in_full(getattr(value, field.name)))
    return value


class LossScale:
    """Keeps float16 gradients in range: the loss is scaled up before it is differentiated.

    Halved whenever a gradient overflows (the update is then left out), doubled after 2,000 updates
    without. It asks nothing of the optimiser, and waits for the device once a step.

    Source: Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, section 3.2.

    Args:
        value: To begin with.
    """

    def __init__(self, value: float = 65536.0) -> None:
        self.value = value
        self._since = 0

    def unscale(self, gradients: Sequence[Tensor]) -> bool:
        """Scale gradients `[...]` back in place; return whether they are finite and to be used."""
        if gradients:
            torch._foreach_mul_(list(gradients), 1.0 / self.value)
        if bool(torch.isfinite(nn.utils.get_total_norm(gradients))):
            self._since += 1
            if self._since == _GROWTH_STEPS:
                self.value, self._since = self.value * 2.0, 0
            return True
        self.value, self._since = self.value / 2.0, 0
        return False

    @property
    def exhausted(self) -> bool:
        """Whether gradients overflow at so small a scale that the scale is not what they are of."""
        return self.value < _SMALLEST_SCALE

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and the updates since it changed."""
        return {"value": self.value, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.value, self._since = float(state["value"]), int(state["since"])
