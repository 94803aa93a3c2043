"""ONNX graphs written node by node from what torch.export records of a network.

torch's exporter takes seconds for a network; to measure hundreds of small graphs takes a writer
that knows the usual operations. Whatever it does not know, the exporter serves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from assay.errors import ExportRefused

__all__ = ["OPSET", "NoRule", "write_graph"]

OPSET = 18
"""Version of the ONNX operators that are written."""


class NoRule(ExportRefused):
    """An operation that this writer does not know; the exporter may."""


def write_graph(module: nn.Module, inputs: Any) -> onnx.ModelProto:
    """Write a network as ONNX in eval mode, with static shapes.

    Args:
        module: On the CPU.
        inputs: Example: a tensor, or a tuple of tensors.
    Raises:
        NoRule: an operation without a rule; the message names it.
    """
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    if isinstance(inputs, dict):
        raise NoRule("inputs given by keyword")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.export itself
        program = torch.export.export(module.eval(), args, strict=False)
    return _Writer(program).write()


class _Writer:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._program = program
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._names: dict[str, str] = {}

    def write(self) -> onnx.ModelProto:
        signature = self._program.graph_signature
        held = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        state = {**self._program.state_dict, **self._program.constants}
        inputs, outputs = [], []
        for node in self._program.graph.nodes:
            if node.op == "placeholder" and node.name in held:
                self._hold(node.name, state[held[node.name]])
            elif node.op == "placeholder":
                inputs.append(_value(node.name, node.meta["val"]))
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                for out in node.args[0]:
                    name = self.name(out)
                    self._nodes.append(helper.make_node("Identity", [name], [f"{out.name}_out"]))
                    outputs.append(_value(f"{out.name}_out", out.meta["val"]))
        graph = helper.make_graph(
            self._nodes, "network", inputs, outputs, list(self._weights.values())
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )

    def _call(self, node: torch.fx.Node) -> None:
        rule = _RULES.get(str(node.target))
        if rule is None:
            raise NoRule(f"no ONNX rule for {node.target}; the exporter serves it")
        rule(self, node)

    def name(self, value: Any) -> str:
        """Return the name of a node's output, or of a constant made for a number."""
        if isinstance(value, torch.fx.Node):
            return self._names.get(value.name, value.name)
        array = np.asarray(value, dtype=np.float32)
        return self.constant(array)

    def constant(self, array: Any) -> str:
        """Keep an array as an initialiser and return its name."""
        name = f"constant_{len(self._weights)}"
        self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def _hold(self, name: str, tensor: torch.Tensor) -> None:
        self._weights[name] = numpy_helper.from_array(tensor.detach().cpu().numpy(), name)

    def emit(self, kind: str, node: torch.fx.Node, inputs: list[str], **attributes: Any) -> None:
        """Add a node whose output has the fx node's name."""
        self._nodes.append(helper.make_node(kind, inputs, [node.name], **attributes))

    def alias(self, node: torch.fx.Node, value: Any) -> None:
        """Let a node's output be another's, for what does nothing in eval mode."""
        self._names[node.name] = self.name(value)


def _value(name: str, fake: Any) -> onnx.ValueInfoProto:
    kinds = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64,
             torch.float64: TensorProto.DOUBLE, torch.uint8: TensorProto.UINT8}  # fmt: skip
    if not hasattr(fake, "dtype") or fake.dtype not in kinds:
        raise NoRule(f"a value of type {getattr(fake, 'dtype', type(fake))}")
    return helper.make_tensor_value_info(name, kinds[fake.dtype], list(fake.shape))


def _arguments(node: torch.fx.Node, *defaults: Any) -> list[Any]:
    """Return positional arguments, filled up with defaults."""
    if node.kwargs:
        raise NoRule(f"{node.target} with keywords {sorted(node.kwargs)}")
    return [*node.args, *defaults[len(node.args) :]]


_Rule = Callable[[_Writer, torch.fx.Node], None]


def _unary(kind: str, **attributes: Any) -> _Rule:
    def rule(w: _Writer, node: torch.fx.Node) -> None:
        w.emit(kind, node, [w.name(node.args[0])], **attributes)

    return rule


def _binary(kind: str) -> _Rule:
    def rule(w: _Writer, node: torch.fx.Node) -> None:
        a, b = _arguments(node, None, None)
        w.emit(kind, node, [w.name(a), w.name(b)])

    return rule


def _conv(w: _Writer, node: torch.fx.Node) -> None:
    n = len(node.args[1].meta["val"].shape) - 2  # type: ignore[union-attr]
    x, weight, bias, stride, padding, dilation, groups = _arguments(
        node, None, None, None, [1] * n, [0] * n, [1] * n, 1
    )
    inputs = [w.name(x), w.name(weight)] + ([w.name(bias)] if bias is not None else [])
    w.emit(
        "Conv", node, inputs, kernel_shape=list(node.args[1].meta["val"].shape[2:]),  # type: ignore[union-attr]
        strides=_spread(stride, n), pads=_spread(padding, n) * 2,
        dilations=_spread(dilation, n), group=groups,
    )  # fmt: skip


def _spread(value: Any, n: int) -> list[int]:
    return (
        [int(v) for v in value] * (n // len(value))
        if isinstance(value, list | tuple)
        else [value] * n
    )


def _batch_norm(w: _Writer, node: torch.fx.Node) -> None:
    x, weight, bias, mean, var, training, _momentum, eps, _ = _arguments(node)
    if training or mean is None:
        raise NoRule("batch norm by the batch's own statistics")
    channels = int(mean.meta["val"].shape[0])
    scale = w.name(weight) if weight is not None else w.constant(np.ones(channels, np.float32))
    shift = w.name(bias) if bias is not None else w.constant(np.zeros(channels, np.float32))
    inputs = [w.name(x), scale, shift, w.name(mean), w.name(var)]
    w.emit("BatchNormalization", node, inputs, epsilon=float(eps))


def _linear(w: _Writer, node: torch.fx.Node) -> None:
    x, weight, bias = _arguments(node, None, None, None)
    if len(x.meta["val"].shape) == 2:
        inputs = [w.name(x), w.name(weight)] + ([w.name(bias)] if bias is not None else [])
        w.emit("Gemm", node, inputs, transB=1)
        return
    raise NoRule("a linear layer on more than two dimensions")


def _mean(w: _Writer, node: torch.fx.Node) -> None:
    x, axes, keep = _arguments(node, None, None, False)
    axes_name = w.constant(np.asarray(axes, np.int64))
    w.emit("ReduceMean", node, [w.name(x), axes_name], keepdims=int(bool(keep)))


def _reshape(w: _Writer, node: torch.fx.Node) -> None:
    shape = w.constant(np.asarray(node.meta["val"].shape, np.int64))
    w.emit("Reshape", node, [w.name(node.args[0]), shape])


def _adaptive_pool(w: _Writer, node: torch.fx.Node) -> None:
    if any(size != 1 for size in node.args[1]):  # type: ignore[union-attr]
        raise NoRule("adaptive pooling to more than one position")
    w.emit("GlobalAveragePool", node, [w.name(node.args[0])])


def _max_pool(w: _Writer, node: torch.fx.Node) -> None:
    x, kernel, stride, padding, dilation, ceil = _arguments(node, None, None, [], 0, 1, False)
    w.emit(
        "MaxPool", node, [w.name(x)], kernel_shape=_spread(kernel, 2),
        strides=_spread(stride or kernel, 2), pads=_spread(padding, 2) * 2,
        dilations=_spread(dilation, 2), ceil_mode=int(ceil),
    )  # fmt: skip


def _avg_pool(w: _Writer, node: torch.fx.Node) -> None:
    x, kernel, stride, padding, ceil, inside = _arguments(node, None, None, [], 0, False, True)
    w.emit(
        "AveragePool", node, [w.name(x)], kernel_shape=_spread(kernel, 2),
        strides=_spread(stride or kernel, 2), pads=_spread(padding, 2) * 2, ceil_mode=int(ceil),
        count_include_pad=int(inside),
    )  # fmt: skip


def _cat(w: _Writer, node: torch.fx.Node) -> None:
    parts, axis = _arguments(node, None, 0)
    w.emit("Concat", node, [w.name(p) for p in parts], axis=int(axis))


def _permute(w: _Writer, node: torch.fx.Node) -> None:
    x, axes = _arguments(node)
    w.emit("Transpose", node, [w.name(x)], perm=[int(i) for i in axes])


def _clip(w: _Writer, node: torch.fx.Node) -> None:
    x, low, high = _arguments(node, None, -1.0, 1.0)
    w.emit("Clip", node, [w.name(x), w.name(float(low)), w.name(float(high))])


def _layer_norm(w: _Writer, node: torch.fx.Node) -> None:
    x, shape, weight, bias, eps = _arguments(node, None, None, None, None, 1e-5)[:5]
    if weight is None:
        raise NoRule("a layer norm without weights")
    inputs = [w.name(x), w.name(weight)] + ([w.name(bias)] if bias is not None else [])
    w.emit("LayerNormalization", node, inputs, axis=-len(shape), epsilon=float(eps))


def _same(w: _Writer, node: torch.fx.Node) -> None:
    w.alias(node, node.args[0])


def _silu(w: _Writer, node: torch.fx.Node) -> None:
    x, inner = w.name(node.args[0]), f"{node.name}_sigmoid"
    w._nodes.append(helper.make_node("Sigmoid", [x], [inner]))
    w.emit("Mul", node, [x, inner])


_RULES: Mapping[str, _Rule] = {
    "aten.conv1d.default": _conv,
    "aten.conv2d.default": _conv,
    "aten.conv3d.default": _conv,
    "aten.batch_norm.default": _batch_norm,
    "aten.linear.default": _linear,
    "aten.relu.default": _unary("Relu"),
    "aten.relu_.default": _unary("Relu"),
    "aten.sigmoid.default": _unary("Sigmoid"),
    "aten.tanh.default": _unary("Tanh"),
    "aten.hardswish.default": _unary("HardSwish"),
    "aten.hardswish_.default": _unary("HardSwish"),
    "aten.hardsigmoid.default": _unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.silu.default": _silu,
    "aten.silu_.default": _silu,
    "aten.hardtanh.default": _clip,
    "aten.hardtanh_.default": _clip,
    "aten.relu6.default": lambda w, n: w.emit(
        "Clip", n, [w.name(n.args[0]), w.name(0.0), w.name(6.0)]
    ),
    "aten.add.Tensor": _binary("Add"),
    "aten.add_.Tensor": _binary("Add"),
    "aten.sub.Tensor": _binary("Sub"),
    "aten.mul.Tensor": _binary("Mul"),
    "aten.matmul.default": _binary("MatMul"),
    "aten.mean.dim": _mean,
    "aten.flatten.using_ints": _reshape,
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.max_pool2d.default": _max_pool,
    "aten.avg_pool2d.default": _avg_pool,
    "aten.cat.default": _cat,
    "aten.permute.default": _permute,
    "aten.dropout.default": _same,
    "aten.contiguous.default": _same,
    "aten.layer_norm.default": _layer_norm,
}
