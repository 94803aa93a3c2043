"""Files that other programs load: ONNX and torch.export; each is checked before it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from assay.errors import ExportRefused
from assay.hardware.count import tensors_in
from assay.hardware.runtimes import check_onnx, export_onnx, onnx_runner, quiet_exporter
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = [
    "Timed", "Written", "accepted", "largest_difference", "outputs_of", "write_onnx", "write_pt2",
]  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """How long a file takes, measured in turns with the graph that a search measures.

    Attributes:
        batch: Samples of a run.
        file_ms: Median milliseconds of a run of the file.
        measured_ms: Of the graph.
        open_ms: Of the file with an open batch that this one replaced; None where it did not.
    """

    batch: int
    file_ms: float
    measured_ms: float
    open_ms: float | None = None


@dataclass(frozen=True)
class Written:
    """A file that was written and checked.

    Attributes:
        max_difference: Largest absolute difference from torch on real inputs, before the file was
            written and after it was loaded.
        open_batch: Whether it takes any number of samples.
        timed: How long it takes on the target, where that is known.
    """

    max_difference: float
    open_batch: bool
    timed: Timed | None = None


def write_onnx(module: nn.Module, inputs: Any, path: Path, *, open_batch: bool = True) -> Written:
    """Write ONNX and check it on ONNX Runtime: with an open batch where the network allows one.

    Args:
        module: In eval mode, on the CPU.
        inputs: Real inputs `[N, ...]`, or a tuple or dict of tensors.
        path: The file.
        open_batch: Whether to try; the batch is the inputs' else.
    Raises:
        ExportRefused: the exporter's reason, or outputs that differ from torch's.
    """
    if open_batch and _runs_on_one(module, inputs):
        # Exporter and runtime share no error below Exception; then the batch stays the example's.
        with contextlib.suppress(Exception):
            return _write_onnx(module, inputs, path, open_batch=True)
    return _write_onnx(module, inputs, path, open_batch=False)


def _write_onnx(module: nn.Module, inputs: Any, path: Path, *, open_batch: bool) -> Written:
    expected = outputs_of(module, inputs)
    model = export_onnx(module, inputs, dynamic_batch=open_batch)
    _forget_origin(model.graph)
    arrays: Any = onnx_runner(model, inputs, threads=1)()
    differences = [largest_difference(expected, [torch.from_numpy(a) for a in arrays])]
    path.write_bytes(model.SerializeToString())
    differences.append(check_onnx(path, module, inputs))
    if open_batch:
        differences.append(check_onnx(path, module, _first(inputs)))
    return Written(accepted(differences, expected), open_batch)


def write_pt2(module: nn.Module, inputs: Any, path: Path) -> Written:
    """Write what torch.export makes of a network; torch alone loads it.

    Args:
        module: In eval mode, on the CPU.
        inputs: Real inputs `[N, ...]`, or a tuple or dict of tensors.
        path: The file.
    Raises:
        ExportRefused: outputs that differ from torch's.
    """
    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else {}
    shapes = _open_shapes(kwargs or args) if _runs_on_one(module, inputs) else None
    expected = outputs_of(module, inputs)
    with quiet_exporter(), torch.no_grad():
        program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        for node in program.graph.nodes:  # traces name folders of this machine
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    open_batch = all(isinstance(t.shape[0], torch.SymInt) for t in _example_inputs(program))
    differences = [
        largest_difference(expected, outputs_of(network, inputs))
        for network in (program.module(), loaded)
    ]
    if open_batch:
        one = _first(inputs)
        differences.append(largest_difference(outputs_of(module, one), outputs_of(loaded, one)))
    return Written(accepted(differences, expected), open_batch)


def largest_difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest absolute difference of two lists of tensors `[...]` of equal shapes.

    Raises:
        ExportRefused: they differ in number or shape.
    """
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ExportRefused(f"outputs of shapes {shapes[1]}, where torch gives {shapes[0]}")
    gaps = [(e.double() - f.double()).abs().max() for e, f in zip(expected, found) if e.numel()]
    return max(map(float, gaps), default=0.0)


def _forget_origin(graph: onnx.GraphProto) -> None:
    """Drop the exporter's notes: they name folders of this machine and outweigh small networks."""
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer):  # fmt: skip
        del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _forget_origin(attribute.g)


def accepted(differences: list[float], expected: list[Tensor], *, tolerance: float = 1e-3) -> float:
    """Return the largest difference, unless it says that something else is computed.

    Args:
        differences: Largest absolute differences from what is expected.
        expected: Outputs `[...]` of the network.
        tolerance: Of the largest output, or of 1 where that is larger.
    Raises:
        ExportRefused: a difference is not within the tolerance.
    """
    scale = max([1.0, *(float(t.abs().max()) for t in expected if t.numel())])
    for difference in differences:
        if not difference <= tolerance * scale:  # a NaN is never within
            raise ExportRefused(f"its output differs from torch's by {difference:.3g}")
    return max(differences)


def outputs_of(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return a network's output tensors `[N, ...]` in order, without gradients.

    Args:
        network: In eval mode.
        inputs: A tensor `[N, ...]`, or a tuple or dict of tensors.
    """
    with torch.no_grad():
        return list(tensors_in(call_model(network, inputs)))


def _runs_on_one(module: nn.Module, inputs: Any) -> bool:
    """Whether the network takes one sample as well as the example's number of them."""
    try:
        outputs_of(module, _first(inputs))
    except Exception:  # a forward may raise anything
        return False
    return True


def _first(inputs: Any) -> Any:
    return map_tensors(inputs, lambda t: t[:1])


def _open_shapes(inputs: Any) -> Any:
    """Leave the first dimension of every input open, as far as the network allows."""
    if isinstance(inputs, Tensor):
        return {0: torch.export.Dim.AUTO}
    if isinstance(inputs, Mapping):
        return {name: _open_shapes(value) for name, value in inputs.items()}
    return tuple(_open_shapes(value) for value in inputs)


def _example_inputs(program: torch.export.ExportedProgram) -> list[Any]:
    names = set(program.graph_signature.user_inputs)
    return [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
