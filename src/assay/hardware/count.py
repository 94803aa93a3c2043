"""MACs, parameters and bytes of one forward pass.

A forward is recorded as the calls of its layers: modules with a rule, and modules without
children. A rule is a closed form; what multiplies elsewhere is counted as torch carries it out, by
torch's own formulas. What has no formula is listed by name: nothing is counted as 0 in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from assay.hardware.rules import macs_of, rule_of
from assay.hardware.settings import settings_of
from assay.train.modes import evaluating

__all__ = [
    "Call", "Counts", "Recording", "as_call", "count", "is_layer", "record", "record_call",
    "state_bytes", "sums", "tensors_in", "unfused_attention", "watched",
]  # fmt: skip

Shape: TypeAlias = tuple[int, ...]

# Operations that multiply and sum up, but that torch's own counter has no formula for, at least in
# place.
_MORE = frozenset({
    "addmm", "baddbmm", "mv", "addmv", "dot", "vdot", "addr", "addbmm", "_trilinear",
    "_cdist_forward", "_transformer_encoder_layer_fwd", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "mkldnn_rnn_layer", "_cudnn_rnn",
})  # fmt: skip
_TORCHS = ("aten::", "prim::", "prims::", "profiler::")  # what others' operations do is not known


@dataclass(frozen=True)
class Call:
    """One call of a layer. Equal calls compute the same on the same shapes.

    Attributes:
        kind: Class of the layer.
        settings: What tells it from others of its class, see `settings_of`.
        in_shapes: Of all input tensors; one that is given twice counts once.
        out_shapes: Of all output tensors.
        macs: Multiply-accumulates; None where no rule or formula says.
        moved: Bytes of its inputs, outputs and weights.
        in_bytes: Bytes of its inputs; one that is given twice counts once.
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
        uncounted: What multiplies, as far as is known, and is not in `macs`: layers by path,
            operations outside layers by name and place.
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
        loose_macs: Multiply-accumulates outside layers.
        uncounted: As in `Counts`.
        output: What the forward returned.
    """

    calls: tuple[Call, ...]
    loose_macs: int
    uncounted: tuple[str, ...]
    output: Any


def sums(calls: Iterable[Call], loose_macs: int = 0, uncounted: tuple[str, ...] = ()) -> Counts:
    """Add up calls and what is outside layers, without parameters and bytes of a network."""
    calls = tuple(calls)
    return Counts(
        macs=loose_macs + sum(c.macs or 0 for c in calls),
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
    added = sums(recording.calls, recording.loose_macs, recording.uncounted)
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
    for name, part in module.named_modules():
        tape.names[id(part)] = name or type(part).__name__
        hooks.append(part.register_forward_pre_hook(tape.enter, prepend=True))
        hooks.append(part.register_forward_hook(tape.leave, with_kwargs=True))
    try:
        with evaluating(module), watched(tape):
            output = module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    uncounted = tuple(dict.fromkeys(tape.uncounted))
    return Recording(tuple(tape.calls), tape.loose_macs, uncounted, output)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is recorded as one call: it has a rule, or no children."""
    return not module._modules or rule_of(module) is not None


class _Tape:
    """Takes down the calls of layers, and what multiplies outside layers with a rule."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.calls: list[Call] = []
        self.loose_macs = 0
        self.uncounted: list[str] = []
        self._running: list[nn.Module] = []
        self._layer: nn.Module | None = None
        self._computed = False
        self._macs: int | None = 0  # of the layer so far; None once something has no formula

    def enter(self, module: nn.Module, _args: Any) -> None:
        self._running.append(module)
        if self._layer is None and is_layer(module):
            self._layer, self._computed, self._macs = module, False, 0

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._running.pop()
        if self._layer is not module or module in self._running:
            return
        self._layer = None
        if not self._computed:
            return
        ruled = rule_of(module) is not None
        macs = macs_of(module, args, kwargs, output) if ruled else self._macs
        path = self.names[id(module)]
        if macs is None:
            self.uncounted.append(path)
        self.calls.append(_call(module, path, [args, kwargs], output, macs))

    def op(self, name: str, macs: int | None) -> None:
        self._computed = True
        if self._layer is not None:
            self._macs = None if macs is None or self._macs is None else self._macs + macs
        elif macs is not None:
            self.loose_macs += macs
        else:
            place = self.names[id(self._running[-1])] if self._running else "the model"
            self.uncounted.append(f"{name} in {place}")


class _Listener(Protocol):
    def op(self, name: str, macs: int | None) -> None:
        """Take down an operation that torch has carried out, and its multiply-accumulates.

        They are None where it may multiply and there is no formula.
        """


@contextmanager
def watched(listener: _Listener) -> Iterator[None]:
    """Within: no gradients, attention in parts, and a listener is told of every operation."""
    with (
        torch.inference_mode(False), torch.no_grad(), unfused_attention(),
        sdpa_kernel(SDPBackend.MATH), _Watch(listener),
    ):  # fmt: skip
        yield


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells a listener each operation that torch carries out."""

    def __init__(self, listener: _Listener) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._listener = listener

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry an operation out, and tell of it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        self._listener.op(packet.__name__, _products(packet, args, kwargs, out))
        return out


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Within: transformer layers call their parts, where torch would fuse them in eval mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _products(packet: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """Return an operation's multiply-accumulates; None where it may multiply, by no formula."""
    if packet in flop_registry:  # which counts additions, too
        return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
    name = packet.__name__.removesuffix("_")
    known = packet._qualified_op_name.startswith(_TORCHS)
    return 0 if known and name not in _MORE and "attention" not in name else None


def _call(module: nn.Module, path: str, given: Any, output: Any, macs: int | None) -> Call:
    before = list({id(t): t for t in tensors_in(given)}.values())
    after = tensors_in(output)
    in_bytes, out_bytes = sum(map(_bytes, before)), sum(map(_bytes, after))
    return Call(
        kind=type(module).__name__,
        settings=settings_of(module),
        in_shapes=tuple(tuple(t.shape) for t in before),
        out_shapes=tuple(tuple(t.shape) for t in after),
        macs=macs,
        moved=in_bytes + out_bytes + state_bytes(module),
        in_bytes=in_bytes,
        out_bytes=out_bytes,
        path=path,
    )


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
