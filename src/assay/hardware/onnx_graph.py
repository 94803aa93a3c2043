"""ONNX graphs written node by node from the operations that torch carries out.

torch's exporter takes seconds for a network; to measure hundreds of graphs takes a writer that
knows the usual operations and takes milliseconds. Whatever it does not know, the exporter serves.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from assay.hardware.count import as_call, tensors_in, unfused_attention
from assay.hardware.onnx_nodes import RULES, Nodes, NoRule
from assay.hardware.values import mapped
from assay.train.modes import evaluating

__all__ = ["OPSET", "NoRule", "write_graph"]

OPSET = 18
"""Version of the ONNX operators that are written."""


def write_graph(module: nn.Module, inputs: Any) -> onnx.ModelProto:
    """Write a network as ONNX in eval mode, with static shapes.

    The network runs once, and what torch computes is written down. So a branch that it takes by
    its inputs' values is written as taken.

    Args:
        module: On the CPU; its train/eval modes are restored.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors.
    Raises:
        NoRule: an operation without a rule; the message names it.
    """
    args, kwargs = as_call(mapped(inputs, Tensor.clone))  # a layer in place may write into them
    given = tensors_in([args, kwargs])
    names = _input_names(args, kwargs)
    if len(names) != len(given):
        raise NoRule("inputs that are nested or no tensors")
    nodes = Nodes()
    for tensor, name in zip(given, names):
        nodes.bind(tensor, name)
    values = [_value(name, tensor) for tensor, name in zip(given, names)]
    with (
        evaluating(module), torch.inference_mode(False), torch.no_grad(), unfused_attention(),
        _Scribe(nodes),
    ):  # fmt: skip
        result = module(*args, **kwargs)
    outputs = [
        _value(nodes.emit("Identity", nodes.name(tensor)), tensor) for tensor in tensors_in(result)
    ]
    graph = helper.make_graph(nodes.nodes, "network", values, outputs, nodes.initialisers)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _input_names(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    return [*(f"input_{i}" for i in range(len(args))), *kwargs]


def _value(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    if tensor.dtype == torch.bfloat16:
        raise NoRule("a value in bfloat16")
    kind = helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    return helper.make_tensor_value_info(name, kind, list(tensor.shape))


class _Scribe(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes a node for every operation that the inputs reach."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._nodes = nodes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry an operation out and write it down."""
        nodes, kwargs = self._nodes, kwargs or {}
        reached = any(nodes.computed(t) for t in tensors_in([args, kwargs]))
        if reached or torch.Tag.nondeterministic_seeded in func.tags or func._schema.is_mutable:
            return self._write(func, args, kwargs)
        return func(*args, **kwargs)  # of weights and constants only: kept as a value if used

    def _write(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        nodes, schema = self._nodes, func._schema
        kind = schema.name.removeprefix("aten::")
        in_place = schema.is_mutable
        rule = RULES.get(kind.removesuffix("_") if in_place else kind)
        if rule is None or (in_place and not kind.endswith("_")):
            raise NoRule(f"no rule for {kind}")
        arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        arguments |= {a.name: value for a, value in zip(schema.arguments, args)} | kwargs
        if in_place and not nodes.computed(arguments["self"]):
            raise NoRule(f"{kind} on what the inputs do not reach")
        result = func(*args, **kwargs)
        first, *others = result if isinstance(result, tuple) else (result,)
        # In place the result is the argument itself, which must be read under its old name.
        name = rule(nodes, {**arguments, "result": first})
        nodes.bind(first, name)
        for other in others:
            nodes.refuse(other, f"the second result of {kind}")
        if in_place:
            nodes.overwritten(first)
        return result
