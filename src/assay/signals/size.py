"""Size: parameters, multiply-accumulates, and the longest chain of layers with weights.

They tell how much a network can hold or how long it takes, nothing of what it computes: the
baselines that every other signal must beat.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from assay.errors import InvalidSetting
from assay.signals.probe import Probe
from assay.train.splits import leaves

__all__ = ["depth", "macs", "params"]

# Operations that multiply and sum up, but that torch's own counter has no formula for.
_RECURRENT = frozenset({"mkldnn_rnn_layer", "_cudnn_rnn"})
_WITHOUT_FORMULA = frozenset({
    "mv", "addmv", "dot", "vdot", "addr", "addbmm", "_trilinear", "_cdist_forward",
    "_transformer_encoder_layer_fwd", "_native_multi_head_attention", "lstm", "gru", "rnn_tanh",
    "rnn_relu",
})  # fmt: skip


def params(probe: Probe) -> float:
    """Return the number of parameters, trained or frozen, shared ones once.

    Args:
        probe: The network.
    """
    return float(sum(p.numel() for p in probe.network.parameters()))


def macs(probe: Probe) -> float:
    """Return the multiply-accumulates of one sample; AZ-NAS's complexity.

    Source: Lee & Ham 2024, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
    arXiv:2403.19232, section 3.

    Args:
        probe: The network and two samples.
    Raises:
        InvalidSetting: an operation that multiplies has no formula.
    """
    trace = probe.once(_trace)
    if trace.uncounted:
        raise InvalidSetting(
            f"the MACs of {', '.join(sorted(trace.uncounted))} have no formula; leave the signal "
            "'macs' out"
        )
    return trace.multiplied / 4  # of two samples, additions told apart


def depth(probe: Probe) -> float:
    """Return the most layers with weights on a way from input to output, as it was executed.

    A layer counts where the input's values meet weights in a product: linear, convolutional, a step
    of a recurrent one; not norms, embeddings, or products of two values as in attention.

    Args:
        probe: The network and two samples.
    """
    return float(probe.once(_trace).depth)


def _trace(probe: Probe) -> _Trace:
    inputs = probe.pair  # of one alone, a batch norm could have no statistics
    trace = _Trace([t for t in leaves(inputs) if isinstance(t, Tensor)])
    with sdpa_kernel(SDPBackend.MATH), trace:  # attention is taken apart, so that it is counted
        output = probe.call(inputs)
    trace.end([t for t in leaves(output) if isinstance(t, Tensor)])
    return trace


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows values from the input through every operation that torch carries out.

    Attributes:
        multiplied: Multiplications and additions: two for each multiply-accumulate.
        uncounted: Operations that multiply and have no formula.
        depth: See `depth`; once the output is known.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiplied = 0
        self.uncounted: set[str] = set()
        self.depth = 0
        # By address of the memory, which views share: layers with weights on the way to it.
        self._depths = {_address(t): 0 for t in inputs}
        self._kept = [*inputs]  # so that no address comes twice

    def end(self, outputs: list[Tensor]) -> None:
        """Read the depth off the outputs `[2, ...]`; 0 where none depends on the input."""
        self.depth = max((self._depths.get(_address(t), 0) for t in outputs), default=0)
        self._kept.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation, and take down what it multiplies and how deep it lies."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet, given = func.overloadpacket, _tensors([args, kwargs])
        name = packet.__name__
        if packet in flop_registry:
            self.multiplied += flop_registry[packet](*args, **kwargs, out_val=out)
        elif name in _RECURRENT:
            self.multiplied += 2 * _recurrent_macs(args[0], _tensors(args[1:5]))
        elif name in _WITHOUT_FORMULA:
            self.uncounted.add(name)
        known = [self._depths[a] for a in map(_address, given) if a in self._depths]
        if known and not name.endswith("_like") and not name.startswith("new_"):
            product = packet in flop_registry or name in _RECURRENT | _WITHOUT_FORMULA
            self._follow(_tensors([out]), max(known) + (product and len(known) < len(given)))
        return out

    def _follow(self, outs: list[Tensor], depth: int) -> None:
        for out in outs:
            self._depths[_address(out)] = max(depth, self._depths.get(_address(out), 0))
            self._kept.append(out)


def _recurrent_macs(steps: Tensor, weights: list[Tensor]) -> int:
    """Return the MACs of steps `[..., in]`: each meets every matrix among the weights once."""
    matrices = [w.numel() for w in weights if w.dim() == 2]
    return steps.numel() // steps.shape[-1] * sum(matrices)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in leaves(value) if isinstance(t, Tensor)]
