"""ONNX nodes for torch's operations: one rule for each, by the operation's name.

A rule gets the nodes written so far and the arguments of one call by name, and returns the names
of its results. Only eval mode is written, and only static shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from assay.errors import ExportRefused

__all__ = ["RULES", "NoRule", "Nodes"]


class NoRule(ExportRefused):
    """An operation that this writer does not know; the exporter may."""


class Nodes:
    """Nodes and initialisers written so far, and which tensor bears which name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._names: dict[int, str] = {}
        self._held: dict[int, Tensor] = {}  # a tensor's id is its own only while it lives
        self._computed: set[int] = set()
        self._refused: dict[int, str] = {}

    def computed(self, tensor: Tensor) -> bool:
        """Whether a tensor `[...]` depends on the network's inputs."""
        return id(tensor) in self._computed

    def bind(self, tensor: Tensor, name: str) -> None:
        """Let a tensor `[...]` that depends on the inputs have a name."""
        self._names[id(tensor)] = name
        self._held[id(tensor)] = tensor
        self._computed.add(id(tensor))

    def refuse(self, tensor: Tensor, reason: str) -> None:
        """Let a tensor `[...]` that depends on the inputs have no name."""
        self._refused[id(tensor)] = reason
        self._held[id(tensor)] = tensor
        self._computed.add(id(tensor))

    def overwritten(self, tensor: Tensor) -> None:
        """Refuse from now on the other tensors that lie in the memory of this one, `[...]`."""
        memory = tensor.untyped_storage().data_ptr()
        for other in list(self._held.values()):
            if other is not tensor and other.untyped_storage().data_ptr() == memory:
                self.refuse(other, "a view of a tensor that was overwritten in place")

    def name(self, tensor: Tensor) -> str:
        """Return the name of a tensor `[...]`; one that the inputs do not reach is kept as it is.

        Raises:
            NoRule: no node gives its value.
        """
        if id(tensor) in self._refused:
            raise NoRule(self._refused[id(tensor)])
        if id(tensor) not in self._names:
            self._names[id(tensor)] = self.constant(tensor.detach())
            self._held[id(tensor)] = tensor
        return self._names[id(tensor)]

    def constant(self, value: Tensor | np.ndarray | Sequence[int]) -> str:
        """Keep a value as an initialiser and return its name; plain ints are int64."""
        if isinstance(value, Tensor):
            if value.dtype == torch.bfloat16:
                raise NoRule("a weight in bfloat16")
            value = value.contiguous().cpu().numpy()
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.int64)
        name = f"constant_{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float, like: Tensor) -> str:
        """Keep a number as an initialiser of a tensor's type and return its name."""
        return self.constant(torch.tensor(value, dtype=like.dtype))

    def emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one result and return the result's name."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


Arguments = Mapping[str, Any]
Rule = Callable[[Nodes, Arguments], str]


def _unary(kind: str, **attributes: Any) -> Rule:
    return lambda nodes, a: nodes.emit(kind, nodes.name(a["self"]), **attributes)


def _binary(kind: str) -> Rule:
    def rule(nodes: Nodes, a: Arguments) -> str:
        left, right = a["self"], a["other"]
        if a.get("alpha", 1) != 1 or a.get("rounding_mode") is not None:
            raise NoRule(f"{kind} with a factor or a rounding mode")
        if isinstance(right, Tensor) and right.dtype != left.dtype:
            if right.dim() or nodes.computed(right):
                raise NoRule(f"{kind} of {left.dtype} and {right.dtype}")
            right = right.item()
        if not left.is_floating_point():
            raise NoRule(f"{kind} of {left.dtype}")
        other = nodes.name(right) if isinstance(right, Tensor) else nodes.number(right, left)
        return nodes.emit(kind, nodes.name(left), other)

    return rule


def _convolution(nodes: Nodes, a: Arguments) -> str:
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if a["transposed"] or nodes.computed(weight):
        raise NoRule("a transposed convolution, or one with computed weights")
    n = weight.dim() - 2
    inputs = [nodes.name(t) for t in (x, weight, bias) if t is not None]
    return nodes.emit(
        "Conv", *inputs, kernel_shape=list(weight.shape[2:]), strides=_spread(a["stride"], n),
        pads=_spread(a["padding"], n) * 2, dilations=_spread(a["dilation"], n),
        group=int(a["groups"]),
    )  # fmt: skip


def _spread(value: Sequence[int], n: int) -> list[int]:
    return [int(v) for v in value] * (n // len(value))


def _batch_norm(nodes: Nodes, a: Arguments) -> str:
    mean, var = a["running_mean"], a["running_var"]
    if a.get("training") or mean is None:
        raise NoRule("batch norm by the batch's own statistics")
    scale = a["weight"] if a["weight"] is not None else torch.ones_like(var)
    shift = a["bias"] if a["bias"] is not None else torch.zeros_like(mean)
    inputs = [nodes.name(t) for t in (a["input"], scale, shift, mean, var)]
    return nodes.emit("BatchNormalization", *inputs, epsilon=float(a["eps"]))


def _layer_norm(nodes: Nodes, a: Arguments) -> str:
    shape = a["normalized_shape"]
    scale = a["weight"] if a["weight"] is not None else torch.ones(shape, dtype=a["input"].dtype)
    inputs = [nodes.name(t) for t in (a["input"], scale, a["bias"]) if t is not None]
    return nodes.emit("LayerNormalization", *inputs, axis=-len(shape), epsilon=float(a["eps"]))


def _addmm(nodes: Nodes, a: Arguments) -> str:
    bias, x, weight = a["self"], a["mat1"], a["mat2"]
    inputs = [nodes.name(x), *_second(nodes, weight), nodes.name(bias)]
    scales = {"alpha": float(a["alpha"]), "beta": float(a["beta"])}
    return nodes.emit("Gemm", *inputs, transB=int(not nodes.computed(weight)), **scales)


def _mm(nodes: Nodes, a: Arguments) -> str:
    x, weight = a["self"], a["mat2"]
    inputs = [nodes.name(x), *_second(nodes, weight)]
    return nodes.emit("Gemm", *inputs, transB=int(not nodes.computed(weight)))


def _second(nodes: Nodes, weight: Tensor) -> list[str]:
    """Name the second factor, `[in, out]`; weights as torch holds them, `[out, in]`."""
    return [nodes.name(weight) if nodes.computed(weight) else nodes.constant(weight.detach().t())]


def _matmul(nodes: Nodes, a: Arguments) -> str:
    return nodes.emit("MatMul", nodes.name(a["self"]), nodes.name(a["mat2"]))


def _reduced(kind: str) -> Rule:
    def rule(nodes: Nodes, a: Arguments) -> str:
        x = a["self"]
        if a.get("dtype") not in (None, x.dtype) or not x.is_floating_point():
            raise NoRule(f"{kind} with a change of type")
        axes = a.get("dim")
        axes = [axes] if isinstance(axes, int) else list(axes or range(x.dim()))
        inputs = (nodes.name(x), nodes.constant(axes))
        return nodes.emit(kind, *inputs, keepdims=int(a.get("keepdim", False)))

    return rule


def _global_average(nodes: Nodes, a: Arguments) -> str:
    x = a["self"]
    if any(size != 1 for size in a["output_size"]):
        raise NoRule("adaptive pooling to more than one position")
    axes = nodes.constant([x.dim() - 2, x.dim() - 1])
    return nodes.emit("ReduceMean", nodes.name(x), axes, keepdims=1)


def _max_pool(nodes: Nodes, a: Arguments) -> str:
    kernel = _spread(a["kernel_size"], 2)
    return nodes.emit(
        "MaxPool", nodes.name(a["self"]), kernel_shape=kernel,
        strides=_spread(a["stride"] or kernel, 2), pads=_spread(a["padding"], 2) * 2,
        dilations=_spread(a["dilation"], 2), ceil_mode=int(a["ceil_mode"]),
    )  # fmt: skip


def _avg_pool(nodes: Nodes, a: Arguments) -> str:
    kernel = _spread(a["kernel_size"], 2)
    if a["divisor_override"] is not None:
        raise NoRule("average pooling with a divisor of its own")
    return nodes.emit(
        "AveragePool", nodes.name(a["self"]), kernel_shape=kernel,
        strides=_spread(a["stride"] or kernel, 2), pads=_spread(a["padding"], 2) * 2,
        ceil_mode=int(a["ceil_mode"]), count_include_pad=int(a["count_include_pad"]),
    )  # fmt: skip


def _pad(nodes: Nodes, a: Arguments) -> str:
    x, pad = a["self"], [int(n) for n in a["pad"]]  # of the last dimension first; below 0 to crop
    unpadded = [0] * (x.dim() - len(pad) // 2)
    before, after = (unpadded + pad[side::2][::-1] for side in (0, 1))
    value = nodes.number(a["value"], x)
    return nodes.emit("Pad", nodes.name(x), nodes.constant([*before, *after]), value)


def _clip(nodes: Nodes, a: Arguments) -> str:
    x = a["self"]
    low, high = (a["min_val"], a["max_val"]) if "min_val" in a else (a["min"], a["max"])
    bounds = ["" if v is None else nodes.number(v, x) for v in (low, high)]
    return nodes.emit("Clip", nodes.name(x), *bounds)


def _times_gate(kind: str, **attributes: Any) -> Rule:
    def rule(nodes: Nodes, a: Arguments) -> str:
        x = nodes.name(a["self"])
        return nodes.emit("Mul", x, nodes.emit(kind, x, **attributes))

    return rule


def _gelu(nodes: Nodes, a: Arguments) -> str:
    x = a["self"]
    if a["approximate"] != "none":
        raise NoRule("an approximated GELU")
    scaled = nodes.emit("Div", nodes.name(x), nodes.number(math.sqrt(2.0), x))
    share = nodes.emit("Add", nodes.emit("Erf", scaled), nodes.number(1.0, x))
    return nodes.emit("Mul", nodes.number(0.5, x), nodes.emit("Mul", nodes.name(x), share))


def _sloped(kind: str, argument: str) -> Rule:
    def rule(nodes: Nodes, a: Arguments) -> str:
        if a.get("scale", 1) != 1 or a.get("input_scale", 1) != 1:
            raise NoRule(f"{kind} with a scale")
        return nodes.emit(kind, nodes.name(a["self"]), alpha=float(a[argument]))

    return rule


def _softmax(kind: str) -> Rule:
    return lambda nodes, a: nodes.emit(kind, nodes.name(a["self"]), axis=int(a["dim"]))


def _cat(nodes: Nodes, a: Arguments) -> str:
    return nodes.emit("Concat", *map(nodes.name, a["tensors"]), axis=int(a["dim"]))


def _permute(nodes: Nodes, a: Arguments) -> str:
    rank = a["self"].dim()
    order = [int(axis) % rank for axis in a["dims"]]
    return nodes.emit("Transpose", nodes.name(a["self"]), perm=order)


def _transpose(nodes: Nodes, a: Arguments) -> str:
    x = a["self"]
    order = list(range(x.dim()))
    one, other = (int(a.get(name, i)) % x.dim() for i, name in enumerate(("dim0", "dim1")))
    order[one], order[other] = order[other], order[one]
    return nodes.emit("Transpose", nodes.name(x), perm=order)


def _select(nodes: Nodes, a: Arguments) -> str:
    index = nodes.constant(torch.tensor(int(a["index"])))
    return nodes.emit("Gather", nodes.name(a["self"]), index, axis=int(a["dim"]))


def _slice(nodes: Nodes, a: Arguments) -> str:
    x, axis = a["self"], int(a["dim"])
    start = 0 if a["start"] is None else int(a["start"])
    end = x.shape[axis] if a["end"] is None else min(int(a["end"]), x.shape[axis])
    cut = [nodes.constant([v]) for v in (start, end, axis, int(a["step"]))]
    return nodes.emit("Slice", nodes.name(x), *cut)


def _same(nodes: Nodes, a: Arguments) -> str:
    return nodes.name(a["self"])


def _expand(nodes: Nodes, a: Arguments) -> str:
    return nodes.emit("Expand", nodes.name(a["self"]), nodes.constant(list(a["result"].shape)))


def _zeros(nodes: Nodes, a: Arguments) -> str:
    result = a["result"]
    return nodes.emit("Expand", nodes.number(0, result), nodes.constant(list(result.shape)))


def _reshape(nodes: Nodes, a: Arguments) -> str:
    x, shape = a["self"], list(a["result"].shape)
    return nodes.emit("Reshape", nodes.name(x), nodes.constant(shape))


RULES: Mapping[str, Rule] = {
    "_adaptive_avg_pool2d": _global_average,
    "_log_softmax": _softmax("LogSoftmax"),
    "_softmax": _softmax("Softmax"),
    "_unsafe_view": _reshape,
    "add": _binary("Add"),
    "addmm": _addmm,
    "alias": _same,
    "avg_pool2d": _avg_pool,
    "bmm": _matmul,
    "cat": _cat,
    "clamp": _clip,
    "clone": _same,
    "constant_pad_nd": _pad,
    "convolution": _convolution,
    "detach": _same,
    "div": _binary("Div"),
    "elu": _sloped("Elu", "alpha"),
    "exp": _unary("Exp"),
    "expand": _expand,
    "gelu": _gelu,
    "hardsigmoid": _unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _unary("HardSwish"),
    "hardtanh": _clip,
    "leaky_relu": _sloped("LeakyRelu", "negative_slope"),
    "max_pool2d_with_indices": _max_pool,
    "mean": _reduced("ReduceMean"),
    "mm": _mm,
    "mul": _binary("Mul"),
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "permute": _permute,
    "relu": _unary("Relu"),
    "select": _select,
    "sigmoid": _unary("Sigmoid"),
    "slice": _slice,
    "silu": _times_gate("Sigmoid"),
    "sub": _binary("Sub"),
    "sum": _reduced("ReduceSum"),
    "t": _transpose,
    "tanh": _unary("Tanh"),
    "transpose": _transpose,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "view": _reshape,
    "zeros_like": _zeros,
}
"""Name of an operation of torch, without its overload and the underscore of one in place."""
