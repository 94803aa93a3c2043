"""MACs, parameters and bytes of one forward pass, by closed forms for each layer.

A forward is recorded as the calls of its layers: modules with a rule, and modules without
children. Whatever multiplies elsewhere is noticed as torch carries it out, and listed by name:
nothing is counted as 0 in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from assay.hardware.rules import macs_of, rule_of

__all__ = [
    "Call", "Counts", "Recording", "Watch", "as_call", "count", "is_layer", "multiplies", "record",
    "record_call", "state_bytes", "sums", "tensors_in", "unfused_attention",
]  # fmt: skip

Shape: TypeAlias = tuple[int, ...]

# Operations that multiply and sum up, but that torch's own counter has no formula for.
_MORE = frozenset({
    "mv", "addmv", "dot", "vdot", "addr", "addbmm", "_trilinear", "_cdist_forward",
    "_transformer_encoder_layer_fwd", "lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer",
    "_cudnn_rnn", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell",
})  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of a layer. Equal calls compute the same on the same shapes.

    Attributes:
        kind: Class of the layer.
        settings: What its repr tells in parentheses; for a class outside torch its attributes too.
        in_shapes: Of all input tensors.
        out_shapes: Of all output tensors.
        macs: Multiply-accumulates; None where no rule says.
        moved: Bytes of its inputs, outputs and weights.
        in_bytes: Bytes of its inputs.
        out_bytes: Bytes of its outputs.
        path: Module path; it takes no part in comparisons.
    """

    kind: str
    settings: str
    in_shapes: tuple[Shape, ...]
    out_shapes: tuple[Shape, ...]
    macs: int | None
    moved: int
    in_bytes: int
    out_bytes: int
    path: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.kind}({self.settings})"


@dataclass(frozen=True)
class Counts:
    """What one forward pass takes.

    Attributes:
        macs: Multiply-accumulates of the whole batch.
        params: Parameters, shared ones once, trained or frozen, called or not.
        weight_bytes: Bytes of parameters and of all buffers, shared ones once.
        bytes_moved: Sum over the calls of layers of their inputs, outputs and weights, in bytes.
        peak_bytes: Largest inputs and outputs of a single call, in bytes.
        activation_bytes: Sum over the calls of their outputs, in bytes.
        uncounted: What multiplies and is not in `macs`: modules by path, operations outside
            modules by name and place.
    """

    macs: int = 0
    params: int = 0
    weight_bytes: int = 0
    bytes_moved: int = 0
    peak_bytes: int = 0
    activation_bytes: int = 0
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What one forward pass did.

    Attributes:
        calls: Of its layers, in order; those that compute nothing (identity, dropout in eval
            mode) are left out.
        uncounted: As in `Counts`.
        output: What the forward returned.
    """

    calls: tuple[Call, ...]
    uncounted: tuple[str, ...]
    output: Any


def sums(calls: Iterable[Call], uncounted: tuple[str, ...] = ()) -> Counts:
    """Add calls up, without parameters and bytes of a network."""
    calls = tuple(calls)
    return Counts(
        macs=sum(c.macs or 0 for c in calls),
        bytes_moved=sum(c.moved for c in calls),
        peak_bytes=max((c.in_bytes + c.out_bytes for c in calls), default=0),
        activation_bytes=sum(c.out_bytes for c in calls),
        uncounted=uncounted,
    )


def count(module: nn.Module, inputs: Any) -> Counts:
    """Count one forward pass in eval mode.

    One fused multiply-add is 1 MAC; norms, activations, pooling and biases count 0. The MACs are
    half of what `torch.utils.flop_counter` gives wherever nothing is left in `uncounted`.

    Args:
        module: Any module; its train/eval modes are restored.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors, on the module's device.
    Returns:
        Counts for the whole batch.
    Example:
        >>> count(nn.Linear(8, 4), torch.zeros(5, 8)).macs
        160
    """
    recording = record(module, inputs)
    params = sum(p.numel() for p in module.parameters())
    added = sums(recording.calls, recording.uncounted)
    return replace(added, params=params, weight_bytes=state_bytes(module))


def record(module: nn.Module, inputs: Any) -> Recording:
    """Run one forward in eval mode, without gradients, and record the calls of its layers.

    Args:
        module: Any module; its train/eval modes are restored.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors, on the module's device.
    """
    return record_call(module, *as_call(inputs))


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs (a tensor, or a tuple or dict of tensors) as arguments of a call."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def record_call(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recording:
    """Record a call with any arguments; see `record`."""
    tape = _Tape()
    hooks = []
    modes = [(m, m.training) for m in module.modules()]
    for name, part in module.named_modules():
        tape.names[id(part)] = name or type(part).__name__
        hooks.append(part.register_forward_pre_hook(tape.enter, prepend=True))
        hooks.append(part.register_forward_hook(tape.leave, with_kwargs=True))
    try:
        module.eval()
        with torch.inference_mode(False), torch.no_grad(), unfused_attention(), Watch(tape):
            output = module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes:
            part.training = training
    return Recording(tuple(tape.calls), tuple(dict.fromkeys(tape.uncounted)), output)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is recorded as one call: it has a rule, or no children."""
    return not module._modules or rule_of(module) is not None


class _Tape:
    """Takes down the calls of layers, and what multiplies outside layers with a rule."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.calls: list[Call] = []
        self.uncounted: list[str] = []
        self._running: list[nn.Module] = []
        self._layer: nn.Module | None = None
        self._computed = self._multiplied = False

    def enter(self, module: nn.Module, _args: Any) -> None:
        self._running.append(module)
        if self._layer is None and is_layer(module):
            self._layer, self._computed, self._multiplied = module, False, False

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._running.pop()
        if self._layer is not module or module in self._running:
            return
        self._layer = None
        if not self._computed:
            return
        ruled = rule_of(module) is not None
        macs = macs_of(module, args, kwargs, output) if ruled else None
        if not ruled and not self._multiplied and not any(True for _ in module.parameters()):
            macs = 0  # watched: nothing in it multiplied
        path = self.names[id(module)]
        if macs is None:
            self.uncounted.append(path)
        self.calls.append(_call(module, path, [args, kwargs], output, macs))

    def op(self, packet: Any) -> None:
        """Take down that torch carries out an operation."""
        self._computed = True
        if not multiplies(packet):
            return
        self._multiplied = True
        if self._layer is None:
            place = self.names[id(self._running[-1])] if self._running else "the model"
            self.uncounted.append(f"{packet.__name__} in {place}")


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells an object with a method `op` each operation that torch carries out."""

    def __init__(self, listener: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._listener = listener

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass an operation on."""
        self._listener.op(func.overloadpacket)
        return func(*args, **(kwargs or {}))


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Within: transformer layers call their parts, where torch would fuse them in eval mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def multiplies(packet: Any) -> bool:
    """Whether an operation of torch multiplies and sums up."""
    name = packet.__name__
    return packet in flop_registry or name in _MORE or "attention" in name


def _call(module: nn.Module, path: str, given: Any, output: Any, macs: int | None) -> Call:
    before, after = tensors_in(given), tensors_in(output)
    in_bytes, out_bytes = sum(map(_bytes, before)), sum(map(_bytes, after))
    return Call(
        kind=type(module).__name__,
        settings=_settings(module),
        in_shapes=tuple(tuple(t.shape) for t in before),
        out_shapes=tuple(tuple(t.shape) for t in after),
        macs=macs,
        moved=in_bytes + out_bytes + state_bytes(module),
        in_bytes=in_bytes,
        out_bytes=out_bytes,
        path=path,
    )


def _settings(module: nn.Module) -> str:
    """Return what tells a layer from others of its class."""
    told = " ".join(module.extra_repr().split())
    if type(module).__module__.startswith("torch.nn."):
        return told
    mine = {
        name: _told(value)
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name not in ("training", "forward")
    }
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    return f"{told}; {type(module).__module__} {mine} {shapes}"


def _told(value: Any) -> str:
    """Return what an attribute is, without the address at which it lies."""
    text = getattr(value, "__qualname__", None) or repr(value)
    return type(value).__qualname__ if " at 0x" in text else " ".join(text.split())


def state_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers, each tensor once."""
    return sum(map(_bytes, [*module.parameters(), *module.buffers()]))


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors, `[...]` of any shape, in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return (
        [t for item in value for t in tensors_in(item)] if isinstance(value, tuple | list) else []
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
