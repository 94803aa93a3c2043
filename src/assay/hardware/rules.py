"""Multiply-accumulates of a layer by a closed form, from its settings and the shapes of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeAlias

from torch import Tensor, nn

__all__ = ["macs_of", "rule_of"]

Rule: TypeAlias = Callable[[Any, Mapping[str, Any], Any], int]
"""(layer, its arguments by name, its output) -> multiply-accumulates."""


def _conv(layer: Any, given: Mapping[str, Any], out: Tensor) -> int:
    # out [N, out_channels, *positions]; weight [out_channels, in_channels / groups, *kernel]:
    # each output value sums over its group's input channels and the kernel, dilated or not
    return out.numel() * int(prod(layer.weight.shape[1:]))


def _transposed(layer: Any, given: Mapping[str, Any], out: Tensor) -> int:
    # input [N, in_channels, *positions]; weight [in_channels, out_channels / groups, *kernel]:
    # each input value is spread over its group's output channels and the kernel
    return int(given["input"].numel()) * int(prod(layer.weight.shape[1:]))


def _linear(layer: Any, given: Mapping[str, Any], out: Tensor) -> int:
    # out [..., out_features]; weight [out_features, in_features]
    return out.numel() * int(layer.weight.shape[1])


def _attention(layer: Any, given: Mapping[str, Any], out: Any) -> int:
    # query [N, L, embed], key [N, S, kdim], value [N, S, vdim] (N second if not batch_first, or
    # absent); three projections to [N, *, embed], scores [N, heads, L, S], their sum over S, and
    # the output projection
    query, key = given["query"], given["key"]
    batch, at = (1, 0) if query.dim() == 2 else (query.shape[0 if layer.batch_first else 1], 1)
    along = at if layer.batch_first else 0
    width, target, source = layer.embed_dim, query.shape[along], key.shape[along]
    projections = width * (target * width + source * (layer.kdim + layer.vdim))
    attended = source + (layer.bias_k is not None) + bool(layer.add_zero_attn)
    return int(batch * (projections + 2 * target * attended * width + target * width * width))


def _recurrent(layer: Any, given: Mapping[str, Any], out: Any) -> int:
    # input [T, N, in] (N first or absent, or packed: [steps of all samples, in]); each step of each
    # sample meets every matrix of every layer and direction once
    steps = given["input"].data
    matrices = [w for weights in layer.all_weights for w in weights if w.dim() == 2]
    return int(steps.numel() // steps.shape[-1] * sum(w.numel() for w in matrices))


def _none(layer: Any, given: Mapping[str, Any], out: Any) -> int:
    # norms, learned activations and look-ups: nothing is multiplied and summed up
    return 0


_RULES: Mapping[type[nn.Module], tuple[Rule, tuple[str, ...]]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), (_conv, ("input",))),
    **dict.fromkeys(
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), (_transposed, ("input",))
    ),
    nn.Linear: (_linear, ("input",)),
    nn.MultiheadAttention: (_attention, ("query", "key", "value")),
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU), (_recurrent, ("input",))),
    **dict.fromkeys(
        (
            nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
            nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
            nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, nn.Embedding, nn.EmbeddingBag,
        ),
        (_none, ("input",)),
    ),
}  # fmt: skip
"""Layers that are one call whatever they are made of. Any other is counted as it computes."""


def rule_of(module: nn.Module) -> tuple[Rule, tuple[str, ...]] | None:
    """Return a layer's rule and the names of its positional arguments, or None.

    A subclass has the rule of its torch layer only while it runs torch's own forward.
    """
    kind = type(module)
    for base, rule in _RULES.items():
        if isinstance(module, base):
            own = "forward" in module.__dict__ or "_conv_forward" in module.__dict__
            parts = ("forward", "_conv_forward")
            same = all(getattr(kind, p, None) is getattr(base, p, None) for p in parts)
            return rule if same and not own else None
    return None


def macs_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """Count one call of a layer with a rule.

    One fused multiply-add is 1 MAC. Biases, norms and activations count 0, and so does padding:
    positions that read zeros count like all others, as they do in `torch.utils.flop_counter`.

    Args:
        module: A layer for which `rule_of` is not None.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        out: What it returned.
    Example:
        >>> import torch
        >>> layer, x = nn.Linear(8, 4), torch.zeros(5, 8)
        >>> macs_of(layer, (x,), {}, layer(x))
        160
    """
    found = rule_of(module)
    assert found is not None, f"{type(module).__name__} has no rule"
    rule, names = found
    return rule(module, {**dict(zip(names, args)), **kwargs}, out)
