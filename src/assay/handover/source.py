"""A network of torch's own layers as readable source that imports torch alone."""

from __future__ import annotations

import operator
import textwrap
from typing import Any

from torch import fx, nn

from assay.errors import ExportRefused

__all__ = ["write_source"]

_HEAD = '''"""A network found by a search. Needs torch alone.

    from model import load
    net = load()          # trained weights, eval mode
"""

import json
import struct
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

'''
_RESIDUAL = '''
class Residual(nn.Module):
    """Adds a body's output to its input."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)

'''
_TAIL = '''

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def read_safetensors(path):
    """Read a safetensors file: the length of a JSON header, the header, the bytes."""
    data = bytearray(Path(path).read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        raw = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=8 + size + begin)
        state[name] = raw.clone().view(dtype).reshape(shape)
    return state


def load(path=Path(__file__).with_name("weights.safetensors")):
    """Return the network with its trained weights, in eval mode."""
    net = network()
    net.load_state_dict(read_safetensors(path))
    return net.eval()


if __name__ == "__main__":
    net = load()
    print(net)
    print(sum(p.numel() for p in net.parameters()), "parameters")
'''


def write_source(module: nn.Module) -> str:
    """Write a network of Sequentials, torch layers and residual sums as Python source.

    Args:
        module: As `Space.build` makes it of a ready space.
    Returns:
        The text of a file whose `load()` returns the network with the weights beside it.
    Raises:
        ExportRefused: a module that is none of these; names its path.
    """
    body = _expression(module, "")
    uses_residual = "Residual(" in body
    network = 'def network():\n    """Return the network, untrained."""\n    return ' + _indented(body)
    return _HEAD + (_RESIDUAL if uses_residual else "") + "\n" + network + "\n" + _TAIL


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ").lstrip()


def _expression(module: nn.Module, path: str) -> str:
    if type(module) is nn.Sequential:
        return _sequential(module, path)
    if isinstance(module, fx.GraphModule) and _is_residual(module):
        inner = _expression(module.get_submodule("body"), f"{path}.body")
        return f"Residual(\n{textwrap.indent(inner, '    ')},\n)"
    if type(module).__module__.startswith("torch.nn.modules.") and not list(module.children()):
        return f"nn.{type(module).__name__}({_arguments(module)})"
    raise ExportRefused(
        f"{path.lstrip('.') or 'the network'} is a {type(module).__name__}: source is written for "
        "torch's own layers, Sequential and residual sums"
    )


def _sequential(module: nn.Sequential, path: str) -> str:
    children = dict(module.named_children())
    if not children:
        return "nn.Sequential()"
    plain = list(children) == [str(i) for i in range(len(children))]
    lines = []
    for name, child in children.items():
        text = _expression(child, f"{path}.{name}")
        lines.append(f"{text}," if plain else f"({name!r}, {_indented(text)}),")
    inner = textwrap.indent("\n".join(lines), "    ")
    return f"nn.Sequential(\n{inner}\n)" if plain else f"nn.Sequential(OrderedDict([\n{inner}\n]))"


def _is_residual(module: fx.GraphModule) -> bool:
    nodes = list(module.graph.nodes)
    calls = [n for n in nodes if n.op == "call_module" and n.target == "body"]
    sums = [n for n in nodes if n.op == "call_function" and n.target is operator.add]
    return len(nodes) == 4 and len(calls) == len(sums) == 1


def _arguments(layer: nn.Module) -> str:
    """Return a layer's constructor arguments, those at their default left out."""
    names = _SIGNATURES.get(type(layer))
    if names is None:
        text = layer.extra_repr()
        if "=" in text or not text:
            return text
        raise ExportRefused(f"no rule writes the arguments of {type(layer).__name__}({text})")
    given = []
    for name, default in names.items():
        value: Any = getattr(layer, name) if name != "bias" else layer.bias is not None
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if default is _REQUIRED:
            given.append(repr(value))
        elif value != default:
            given.append(f"{name}={value!r}")
    return ", ".join(given)


_REQUIRED = object()
_CONV = {
    "in_channels": _REQUIRED, "out_channels": _REQUIRED, "kernel_size": _REQUIRED, "stride": 1,
    "padding": 0, "dilation": 1, "groups": 1, "bias": True, "padding_mode": "zeros",
}  # fmt: skip
_NORM = {
    "num_features": _REQUIRED, "eps": 1e-5, "momentum": 0.1, "affine": True,
    "track_running_stats": True,
}  # fmt: skip
_SIGNATURES: dict[type[nn.Module], dict[str, Any]] = {
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.Conv3d: _CONV,
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.BatchNorm3d: _NORM,
    nn.Linear: {"in_features": _REQUIRED, "out_features": _REQUIRED, "bias": True},
    nn.AdaptiveAvgPool2d: {"output_size": _REQUIRED},
    nn.Flatten: {"start_dim": 1, "end_dim": -1},
    nn.ReLU: {},
    nn.Identity: {},
    nn.Dropout: {"p": 0.5},
}
