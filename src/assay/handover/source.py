"""A network of torch's own layers as readable source that imports torch alone."""

from __future__ import annotations

import keyword
import operator
import runpy
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from assay.errors import ExportRefused
from assay.handover.layers import Made, read_layers
from assay.handover.parts import Part, find_parts, shape_of, write_layer

__all__ = ["load_source", "write_source"]

_HEAD = '''\
"""A trained network as source; it needs torch alone.

    from model import load
    net = load()  # the weights of weights.safetensors, in eval mode
"""

import json
{imports}from pathlib import Path

import torch
from torch import nn
'''

_TAIL = '''\
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool}


def read_safetensors(path):
    """Read name -> tensor: 8 bytes give the length of a JSON header, the tensors follow it."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    values = torch.frombuffer(data, dtype=torch.uint8)[start:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        value = values[begin:end].clone().view(DTYPES[entry["dtype"]])
        tensors[name] = value.reshape(entry["shape"])
    return tensors


def load(path=Path(__file__).with_name("weights.safetensors")):
    """Return the network with its trained weights, in eval mode."""
    net = network()
    net.load_state_dict(read_safetensors(path))
    return net.eval()


if __name__ == "__main__":
    net = load()
    print(net)
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters")
'''

_INFIX: Mapping[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
}


def write_source(module: nn.Module) -> str:
    """Write a network of torch's layers, Sequentials and fx graphs as Python source.

    What recurs in it becomes a function, each kind of graph a class.

    Args:
        module: As `Space.build` makes it of a ready space.
    Returns:
        The text of a file whose `load()` returns the network, given the weights beside it.
    Raises:
        ExportRefused: a module that is none of these, or weights that are used twice.
    """
    _refuse_shared(module)
    made = read_layers(module)
    writer = _Writer(find_parts(made))
    body = textwrap.indent(writer.expression(made), "    ").lstrip()
    network = f'def network():\n    """Return the network with new weights."""\n    return {body}'
    functions = [part.source() for part in writer.parts.values()]
    imports = "from collections import OrderedDict\n" if "OrderedDict" in body else ""
    head = _HEAD.format(imports=imports)
    pieces = [head, *writer.classes.values(), *functions, network, _TAIL]
    return "\n\n\n".join(piece.strip("\n") for piece in pieces) + "\n"


def _refuse_shared(module: nn.Module) -> None:
    """Refuse weights that are used twice, of which source would make two."""
    places: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        first = places.setdefault(id(tensor), name)
        if first != name:
            raise ExportRefused(
                "no source for a network that uses the same weights in two places, "
                f"{first} and {name}"
            )


def load_source(path: Path) -> nn.Module:
    """Run a file that `write_source` wrote, with the weights beside it; return its network.

    Args:
        path: The file. It is executed: call this on files written in this process only.
    """
    network: nn.Module = runpy.run_path(str(path))["load"]()
    return network


class _Writer:
    def __init__(self, parts: Mapping[tuple[object, ...], Part]) -> None:
        self.parts = parts
        self.classes: dict[str, str] = {}  # name -> source
        self._names: dict[str, str] = {}  # body of a class -> its name

    def expression(self, made: Made) -> str:
        """Write what makes a module, over several lines where it has children."""
        part = self.parts.get(shape_of(made) or ())
        if part is not None:
            return part.call(made)
        if made.kind == "Sequential":
            return self._sequential(made)
        if made.kind == "GraphModule":
            lines = [f"{n}={self.expression(c)}," for n, c in made.children.items()]
            if len(lines) == 1:
                lines = [f"{self.expression(c)}," for c in made.children.values()]
            return _call(self._class_of(made), lines)
        return write_layer(made)

    def _sequential(self, made: Made) -> str:
        names = list(made.children)
        written = {name: self.expression(child) for name, child in made.children.items()}
        if names == [str(i) for i in range(len(names))]:
            return _call("nn.Sequential", [f"{text}," for text in written.values()])
        if all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            lines = [f"{name}={text}," for name, text in written.items()]
            return _call("nn.Sequential", [_call("OrderedDict", lines)])
        pairs = "\n".join(f"{name!r}: {text}," for name, text in written.items())
        ordered = "OrderedDict({\n" + textwrap.indent(pairs, "    ") + "\n})"
        return _call("nn.Sequential", [ordered])

    def _class_of(self, made: Made) -> str:
        assert made.graph is not None
        body = _class_body(list(made.children), made.graph)
        if body not in self._names:
            plain = "return x + self.body(x)" in body
            number = len(self._names) + 1
            name = "Residual" if plain and "Residual" not in self.classes else f"Graph{number}"
            self._names[body] = name
            self.classes[name] = f"class {name}(nn.Module):\n{body}"
        return self._names[body]


def _call(function: str, lines: list[str]) -> str:
    """Write a call: on one line if its arguments are few and short, else an argument a line."""
    text = " ".join(lines).removesuffix(",")
    if len(lines) <= 2 and "\n" not in text and len(function + text) < 70:
        return f"{function}({text})"
    return f"{function}(\n{textwrap.indent(chr(10).join(lines), '    ')}\n)"


# --- graphs ---------------------------------------------------------------------------------------


def _class_body(children: list[str], graph: fx.Graph) -> str:
    lines: list[str] = []
    inputs: list[str] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "output":
            lines.append(f"return {_written(node.args[0])}")
        elif len(node.users) > 1:
            lines.append(f"{node.name} = {_computed(node)}")
    made = ["super().__init__()", *(f"self.{name} = {name}" for name in children)]
    body = [
        f"def __init__({', '.join(['self', *children])}):", *(f"    {line}" for line in made), "",
        f"def forward({', '.join(['self', *inputs])}):", *(f"    {line}" for line in lines),
    ]  # fmt: skip
    return textwrap.indent("\n".join(body), "    ")


def _computed(node: fx.Node) -> str:
    """Write what a node computes; a result that is used once is written where it is used."""
    if node.op == "call_module":
        return f"self.{node.target}({_listed(node)})"
    if node.op == "call_method":
        receiver, *others = node.args
        return f"{_operand(receiver)}.{node.target}({', '.join(map(_written, others))})"
    if node.op == "call_function" and not node.kwargs and len(node.args) == 2:
        one, other = map(_operand, node.args)
        if node.target in _INFIX:
            return f"{one} {_INFIX[node.target]} {other}"
        if node.target is operator.getitem:
            return f"{one}[{other}]"
    name = getattr(node.target, "__name__", "")
    if node.op == "call_function" and getattr(torch, name, None) is node.target:
        return f"torch.{name}({_listed(node)})"
    raise ExportRefused(f"no source for {node.op} {node.target} in a graph")


def _listed(node: fx.Node) -> str:
    given = [_written(a) for a in node.args]
    return ", ".join([*given, *(f"{k}={_written(v)}" for k, v in node.kwargs.items())])


def _operand(value: Any) -> str:
    """Write what stands beside a sign or a dot: a sum or product in brackets."""
    text = _written(value)
    nested = isinstance(value, fx.Node) and text != value.name and value.target in _INFIX
    return f"({text})" if nested else text


def _written(value: Any) -> str:
    if isinstance(value, fx.Node):
        if value.op == "placeholder" or len(value.users) > 1:
            return value.name
        return _computed(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(f'{_written(v)}, ' for v in value)})"
    return repr(value)
