"""Which channels reach which layer: one abstract run over the graph of a model.

In place of numbers, each tensor is its `Axis`; a layer that makes channels opens a group, and what
meets is tied. An operation without a rule fixes the groups that reach it, with its name as the
reason, so that nothing is widened on a guess.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from assay.errors import InvalidSetting, UnsupportedLayer, nearest
from assay.weights.morph.channels import PLAIN, Axis, Run
from assay.weights.morph.graphs import graphs, unmarked
from assay.weights.morph.layers import LAYERS, SECOND, Layer, holders, hooked
from assay.weights.morph.operations import MODULES, OPERATIONS, keeps_samples, meet

__all__ = ["OUTPUT", "Flow", "Reader", "trace"]

OUTPUT = "the model's output has them"
"""Why the channels that a model returns stay as many."""


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
            UnsupportedLayer: a module without a rule.
        """
        layer = self.layers.get(path)
        if layer is None or layer.makes is None:
            known = [p for p, la in self.layers.items() if la.makes is not None]
            module = dict(self.model.named_modules()).get(path)
            if path and module is not None:
                raise UnsupportedLayer(_unruled(path, module, known))
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
            and not layer.makes.runs[0].group.obstacles
        ]


def _unruled(path: str, module: nn.Module, known: Sequence[str]) -> str:
    """Say why no channels are known of a module that is there."""
    if type(module) in LAYERS and hooked(module):
        return f"{path!r} {hooked(module)}"
    return f"{path!r} is a {type(module).__name__}, whose channels cannot be followed; " + nearest(
        path, known
    )


def trace(model: nn.Module) -> Flow:
    """Find the channel groups of a model.

    Args:
        model: Traceable by torch.fx: no control flow that depends on a tensor. Tensors are laid out
            `[N, channels, ...]`; where a linear layer made them, also `[N, rows, channels]`. Of
            what never looks at its rows, a batch norm is taken to see `[N, channels]`.
    Raises:
        UnsupportedLayer: torch.fx cannot trace it.
    """
    reader = Reader(model)
    with unmarked(model):
        for graph in graphs(model):
            reader.read_all(graph)
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
        samples: Node -> the first node that has the same samples along dimension 0; None of a
            number.
        has_rows: Whether an operation treats tensors as `[N, rows, channels]`, or seems to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {}
        self.outputs: dict[str, list[Axis | None]] = {}
        self.values: dict[fx.Node, Axis | None] = {}
        self.samples: dict[fx.Node, fx.Node | None] = {}
        self.has_rows = False
        self._taken: list[tuple[Tensor, str]] = []  # by the forward itself, and what takes it

    def read_all(self, graph: fx.Graph) -> None:
        """Read one of the graphs of the model; its layers are those of the others."""
        known, self.outputs = self.outputs, {}
        for node in graph.nodes:
            self.values[node] = self.read(node)
            self.samples[node] = self._samples(node)
        for path, calls in known.items():  # of a mode in which it is called more often
            if len(calls) > len(self.outputs.get(path, ())):
                self.outputs[path] = calls

    def read(self, node: fx.Node) -> Axis | None:
        """Return the channels of a node whose inputs have been read."""
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            tensor = operator.attrgetter(str(node.target))(self.model)
            self._taken += [(tensor, self.name(user)) for user in node.users if _reads(user)]
            return PLAIN if getattr(tensor, "numel", lambda: 1)() == 1 else None
        if node.op == "output":
            return self.fix(node, OUTPUT)
        if node.op == "call_module":
            axis = self._call(node)
            self.outputs.setdefault(str(node.target), []).append(axis)
            return axis
        rule = OPERATIONS.get(node.target)
        return self.fix(node) if rule is None else rule(self, node)

    def _samples(self, node: fx.Node) -> fx.Node | None:
        axis = self.values[node]
        if node.op == "get_attr" or (axis is not None and axis.dim == 0):
            return None
        found = {self.samples[i] for i in node.all_input_nodes} - {None}
        module = self.module(node) if node.op == "call_module" else None
        known = axis is not None or str(node.target) in self.layers
        kept = known or keeps_samples(node, module)
        return found.pop() if kept and len(found) == 1 else node

    def _call(self, node: fx.Node) -> Axis | None:
        module, path = self.module(node), str(node.target)
        if path in self.layers:
            return self._call_again(node, self.layers[path])
        rule = MODULES.get(type(module))
        if rule is not None:
            return rule(self, node)
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return meet(self, node)
        read = LAYERS.get(type(module))
        if read is None:
            return self.fix(node)
        if hooked(module):
            return self.fix(node, f"{path} {hooked(module)}")
        self.layers[path] = read(self, node, module)
        return self.layers[path].makes

    def _call_again(self, node: fx.Node, layer: Layer) -> Axis | None:
        """A layer that is called twice, or in both modes, reads the same channels each time."""
        (axis,) = self.axes(node)
        if axis is None or layer.reads is None:
            same = axis is layer.reads
        else:
            again = axis.at(layer.reads.length)
            same = again is not None and again.tie(layer.reads)
        if not same:
            for known in filter(None, (axis, layer.reads)):
                known.fix(f"{layer.path} is called on different channels")
        return layer.makes

    def fix_shared_tensors(self) -> None:
        """Fix the channels of layers whose tensors another module has too, or the forward reads:
        each would want them in its own size.
        """
        held = holders(self.model)
        for layer in self.layers.values():
            tensors = (*layer.module.parameters(recurse=False), *layer.module.buffers())
            for tensor in tensors:
                paths = held[id(tensor)]
                reasons = [
                    f"{name} reads {layer.path} too" for t, name in self._taken if t is tensor
                ]
                if len(paths) > 1:
                    reasons.append(f"{' and '.join(paths)} share a tensor")
                for axis in filter(None, (layer.reads, layer.makes)):
                    for reason in reasons:
                        axis.fix(reason)

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
                axis.fix(reason or self._no_rule(node))
        return None

    def _no_rule(self, node: fx.Node) -> str:
        call = node.op == "call_module"
        known = type(self.module(node)) in MODULES if call else node.target in OPERATIONS
        return f"{self.name(node)} has no rule{' for these arguments' if known else ''}"

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


def _reads(node: fx.Node) -> bool:
    """Whether a node that is given a tensor makes use of more than its type and place."""
    return not (node.target is getattr and node.args[1] in ("dtype", "device"))
