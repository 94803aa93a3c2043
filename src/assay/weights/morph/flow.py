"""Which channels reach which layer: one abstract run over the graph of a model.

In place of numbers, each tensor is its `Axis`; a layer that makes channels opens a group, and what
meets is tied. An operation without a rule fixes the groups that reach it, with its name as the
reason, so that nothing is widened on a guess.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from assay.errors import InvalidSetting, UnsupportedLayer, nearest
from assay.weights.morph.channels import PLAIN, Axis, Run
from assay.weights.morph.layers import LAYERS, SECOND, Layer
from assay.weights.morph.operations import MODULES, OPERATIONS

__all__ = ["Flow", "Reader", "trace"]


@dataclass(frozen=True)
class Flow:
    """What `trace` finds.

    Attributes:
        model: What was traced.
        layers: Module path -> layer, in the order of their calls.
        outputs: Module path -> the channels that each of its calls gives; None for unknown ones.
    """

    model: nn.Module
    layers: Mapping[str, Layer]
    outputs: Mapping[str, list[Axis | None]]

    def run(self, path: str) -> Run:
        """Return the channels that a layer makes.

        Raises:
            InvalidSetting: no layer of this name, or its channels come from several layers.
        """
        layer = self.layers.get(path)
        if layer is None or layer.makes is None:
            known = [p for p, la in self.layers.items() if la.makes is not None]
            raise InvalidSetting(f"no layer {path!r} with channels; {nearest(path, known)}")
        if len(layer.makes.runs) != 1:
            raise InvalidSetting(
                f"the channels of {path!r} come from several layers; name one of those"
            )
        return layer.makes.runs[0]

    def widenable(self) -> list[str]:
        """Return the layers whose number of channels can grow without changing the function."""
        return [
            path
            for path, layer in self.layers.items()
            if layer.makes is not None
            and len(layer.makes.runs) == 1
            and not layer.makes.runs[0].group.root.fixed
        ]


def trace(model: nn.Module) -> Flow:
    """Find the channel groups of a model.

    Args:
        model: Traceable by torch.fx: no control flow that depends on a tensor. Tensors are laid out
            `[N, channels, ...]`; where a linear layer made them, also `[N, rows, channels]`. Of
            what never looks at its rows, a batch norm is taken to see `[N, channels]`.
    Raises:
        UnsupportedLayer: torch.fx cannot trace it.
    """
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # a user's forward can raise anything on symbolic tensors
        raise UnsupportedLayer(
            f"{type(model).__name__} cannot be traced by torch.fx ({error}); morphs need a forward "
            "without control flow that depends on a tensor"
        ) from error
    reader = Reader(model)
    for node in graph.nodes:
        reader.values[node] = reader.read(node)
    reader.fix_shared_tensors()
    reader.fix_norms_of_rows()
    return Flow(model, reader.layers, reader.outputs)


class Reader:
    """Reads a graph node by node.

    Args:
        model: Whose graph it is.
    Attributes:
        layers: As of `Flow`.
        outputs: As of `Flow`.
        values: Node -> its channels; None where no layer here made them, as the model's input.
        has_rows: Whether an operation treats tensors as `[N, rows, channels]`, or seems to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {}
        self.outputs: dict[str, list[Axis | None]] = {}
        self.values: dict[fx.Node, Axis | None] = {}
        self.has_rows = False

    def read(self, node: fx.Node) -> Axis | None:
        """Return the channels of a node whose inputs have been read."""
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            tensor = operator.attrgetter(str(node.target))(self.model)
            return PLAIN if getattr(tensor, "numel", lambda: 1)() == 1 else None
        if node.op == "output":
            return self.fix(node, "the model's output has them")
        if node.op == "call_module":
            axis = self._call(node)
            self.outputs.setdefault(str(node.target), []).append(axis)
            return axis
        rule = OPERATIONS.get(node.target)
        return self.fix(node) if rule is None else rule(self, node)

    def _call(self, node: fx.Node) -> Axis | None:
        module, path = self.module(node), str(node.target)
        if path in self.layers:
            return self._call_again(node, self.layers[path])
        rule = MODULES.get(type(module))
        if rule is not None:
            return rule(self, node)
        read = LAYERS.get(type(module))
        if read is None:
            return self.fix(node)
        self.layers[path] = read(self, node, module)
        return self.layers[path].makes

    def _call_again(self, node: fx.Node, layer: Layer) -> Axis | None:
        """A layer that is called twice reads and makes the same channels both times."""
        (axis,) = self.axes(node)
        if axis is None or layer.reads is None:
            same = axis is layer.reads
        else:
            again = axis.at(layer.reads.length)
            same = again is not None and again.tie(layer.reads)
        if not same:
            for known in filter(None, (axis, layer.reads, layer.makes)):
                known.fix(f"{layer.path} is called on different channels")
        return layer.makes

    def fix_shared_tensors(self) -> None:
        """Fix the channels of layers that share a tensor: each would want it in its own size."""
        owner: dict[int, Layer] = {}
        for layer in self.layers.values():
            for tensor in layer.module.parameters(recurse=False):
                other = owner.setdefault(id(tensor), layer)
                for one in (layer, other) if other is not layer else ():
                    for axis in filter(None, (one.reads, one.makes)):
                        axis.fix(f"{other.path} and {layer.path} share a tensor")

    def fix_norms_of_rows(self) -> None:
        """Fix channels after rows where a layer takes dimension 1: it would take the rows."""
        for layer in self.layers.values() if self.has_rows else ():
            axis = layer.makes if isinstance(layer.module, SECOND) else None
            if axis is not None and axis.dim == -1:
                axis.fix(f"{layer.path} takes dimension 1, which may be rows")

    # --- for the rules ------------------------------------------------------------------------

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.model.get_submodule(str(node.target))

    def axes(self, node: fx.Node) -> list[Axis | None]:
        """Return the channels of all tensors that reach a node."""
        return [self.values[i] for i in node.all_input_nodes]

    def name(self, node: fx.Node) -> str:
        """Return what a message calls a node."""
        if node.op == "call_module":
            return f"{node.target} ({type(self.module(node)).__name__})"
        return str(getattr(node.target, "__name__", node.target))

    def fix(self, node: fx.Node, reason: str = "") -> Axis | None:
        """Fix whatever reaches a node; what becomes of its channels is not known: None."""
        for axis in self.axes(node):
            if axis is not None:
                axis.fix(reason or f"{self.name(node)} has no rule")
        return None

    def incoming(self, node: fx.Node, length: int, dim: int | None = None) -> Axis | None:
        """Return the channels a layer reads, or None, and fix them, where they do not fit.

        Args:
            node: The call.
            length: Positions that the layer reads.
            dim: Where it reads them, counted from the end; None for anywhere.
        """
        (axis,) = self.axes(node)
        found = axis.at(length) if axis is not None and dim in (None, axis.dim) else None
        if found is None:
            self.fix(node, f"{self.name(node)} reads them in a layout that cannot be followed")
        return found
