"""MACs, parameters and bytes of one forward pass, by closed forms for each layer.

One fused multiply-add is 1 MAC. Norms, activations and pooling count 0. What multiplies but has no
rule is listed by name and never counted as 0 in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from assay.train.task import call_model

__all__ = ["Counts", "count", "tensors_in"]


@dataclass(frozen=True)
class Counts:
    """What one forward pass takes.

    Attributes:
        macs: Multiply-accumulates of the whole batch.
        params: Parameters, shared ones once.
        weight_bytes: Bytes of parameters and buffers.
        bytes_moved: Bytes of every layer's inputs, outputs and weights.
        peak_bytes: Largest inputs and outputs of a single layer, in bytes.
        uncounted: Modules and functions that multiply and have no rule.
    """

    macs: int = 0
    params: int = 0
    weight_bytes: int = 0
    bytes_moved: int = 0
    peak_bytes: int = 0
    uncounted: tuple[str, ...] = ()

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.macs + other.macs,
            self.params + other.params,
            self.weight_bytes + other.weight_bytes,
            self.bytes_moved + other.bytes_moved,
            max(self.peak_bytes, other.peak_bytes),
            tuple(dict.fromkeys([*self.uncounted, *other.uncounted])),
        )


def _conv(layer: Any, x: Tensor, y: Tensor) -> int:
    # y [N, out, *positions]; each value sums over in / groups channels and the kernel
    return int(y.numel() * (layer.in_channels // layer.groups) * prod(layer.kernel_size))


def _transposed(layer: Any, x: Tensor, y: Tensor) -> int:
    # x [N, in, *positions]; each value is spread over out / groups channels and the kernel
    return int(x.numel() * (layer.out_channels // layer.groups) * prod(layer.kernel_size))


def _linear(layer: Any, x: Tensor, y: Tensor) -> int:
    # y [..., out]; each value sums over in features
    return y.numel() * int(layer.in_features)


RULES: Mapping[type[nn.Module], Callable[[Any, Tensor, Tensor], int]] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.Linear: _linear,
}


def _rule(module: nn.Module) -> Callable[[Any, Tensor, Tensor], int] | None:
    """Return the rule of a layer, if it runs torch's own forward."""
    for kind, rule in RULES.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule
    return None


def count(module: nn.Module, inputs: Any) -> Counts:
    """Count one forward pass.

    Args:
        module: Any module; its mode is restored.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors, on the module's device.
    Returns:
        Counts for the whole batch.
    Example:
        >>> count(nn.Linear(8, 4), torch.zeros(5, 8)).macs
        160
    """
    tally = _Tally()
    names = {id(m): name or type(module).__name__ for name, m in module.named_modules()}
    leaves = [m for m in module.modules() if not list(m.children())]
    hooks = [m.register_forward_pre_hook(tally.enter) for m in leaves]
    hooks += [m.register_forward_hook(tally.leave) for m in leaves]
    mode = module.training
    try:
        module.eval()
        tally.names = names
        with torch.no_grad(), _Watch(tally):
            call_model(module, inputs)
    finally:
        module.train(mode)
        for hook in hooks:
            hook.remove()
    state = [*module.parameters(), *module.buffers()]
    return Counts(
        macs=tally.macs,
        params=sum(p.numel() for p in module.parameters()),
        weight_bytes=sum(_bytes(t) for t in state),
        bytes_moved=tally.moved + sum(_bytes(t) for t in state),
        peak_bytes=tally.peak,
        uncounted=tuple(dict.fromkeys(tally.uncounted)),
    )


class _Tally:
    """Adds up what the leaf layers of a forward do."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.inside: list[nn.Module] = []
        self.macs = self.moved = self.peak = 0
        self.uncounted: list[str] = []

    def enter(self, module: nn.Module, _args: Any) -> None:
        self.inside.append(module)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.inside.pop()
        rule = _rule(module)
        if rule is not None:
            self.macs += rule(module, args[0], output)
        here = sum(map(_bytes, [*tensors_in(args), *tensors_in(output)]))
        self.moved += here
        self.peak = max(self.peak, here)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the operations that multiply outside a layer with a rule."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in flop_registry:
            inside = self._tally.inside
            if not inside or _rule(inside[-1]) is None:
                where = self._tally.names.get(id(inside[-1]), "") if inside else "between modules"
                self._tally.uncounted.append(f"{func.overloadpacket} ({where})")
        return func(*args, **(kwargs or {}))


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors, of any shape `[...]`, in nested tuples, lists and dicts."""
    found: list[Tensor] = []
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            found += tensors_in(item)
    return found


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
