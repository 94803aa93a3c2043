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
from assay.hardware.count import as_call, tensors_in
from assay.hardware.runtimes import export_onnx, onnx_runner, quiet_exporter
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = [
    "Timed", "Written", "largest_difference", "outputs_of", "write_onnx", "write_pt2",
]  # fmt: skip


_LARGEST = torch.finfo(torch.float64).max


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
    differences = [largest_difference(expected, _onnx_outputs(model, inputs))]
    path.write_bytes(model.SerializeToString())
    differences.append(largest_difference(expected, _onnx_outputs(path, inputs)))
    if open_batch:
        one = _first(inputs)
        differences.append(largest_difference(outputs_of(module, one), _onnx_outputs(path, one)))
    return Written(max(differences), open_batch)


def _onnx_outputs(model: onnx.ModelProto | Path, inputs: Any) -> list[Tensor]:
    arrays: Any = onnx_runner(model, inputs, threads=1)()
    return [torch.as_tensor(array) for array in arrays]


def write_pt2(module: nn.Module, inputs: Any, path: Path) -> Written:
    """Write what torch.export makes of a network; torch alone loads it.

    Args:
        module: In eval mode, on the CPU.
        inputs: Real inputs `[N, ...]`, or a tuple or dict of tensors.
        path: The file.
    Raises:
        ExportRefused: outputs that differ from torch's.
    """
    args, kwargs = as_call(map_tensors(inputs, Tensor.clone))  # a forward may write into them
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
    return Written(max(differences), open_batch)


def largest_difference(
    expected: list[Tensor], found: list[Tensor], *, tolerance: float = 1e-3
) -> float:
    """Return the largest absolute difference, unless one says that something else is computed.

    Each element is held by itself, since a few may be huge, such as the logits of classes that are
    masked. Equal ones, infinite ones included, do not differ; a NaN differs from everything.

    Args:
        expected: Outputs `[...]` of the network.
        found: Those of what was made of it.
        tolerance: As a share of the element, of its output's lower quartile, or of 1, whichever is
            largest: rounding is as large in an element that happens to be near 0.
    Raises:
        ExportRefused: they differ in number or shape, or by more; or there is nothing to compare.
    """
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ExportRefused(f"outputs of shapes {shapes[1]}, where torch gives {shapes[0]}")
    if not expected:
        raise ExportRefused(
            "the network's output holds no tensor that can be compared; return tensors, or tuples, "
            "lists or dicts of them"
        )
    pairs = [(e.double(), f.double()) for e, f in zip(expected, found) if e.numel()]
    return max((_difference(e, f, tolerance) for e, f in pairs), default=0.0)


def _difference(expected: Tensor, found: Tensor, tolerance: float) -> float:
    sizes = expected.abs()
    usual = sizes.flatten().sort().values[sizes.numel() // 4].clamp(min=1.0, max=_LARGEST)
    gaps = torch.where(expected == found, 0.0, (expected - found).abs())
    beyond = ~(gaps <= tolerance * sizes.clamp(max=_LARGEST).maximum(usual))  # a NaN is beyond
    if bool(beyond.any()):
        raise ExportRefused(f"its output differs from torch's by {float(gaps[beyond].max()):.3g}")
    return float(gaps.max())


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


def outputs_of(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return a network's output tensors `[N, ...]` in order, without gradients.

    Args:
        network: In eval mode.
        inputs: A tensor `[N, ...]`, or a tuple or dict of tensors; a forward that writes into them
            gets copies.
    """
    with torch.no_grad():
        return list(tensors_in(call_model(network, map_tensors(inputs, Tensor.clone))))


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
