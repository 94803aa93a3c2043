"""Runtimes: what takes a network and one input, and runs it as it will be served."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from assay.errors import ExportRefused
from assay.hardware.count import tensors_in
from assay.hardware.onnx_graph import OPSET, NoRule, write_graph
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = ["check_onnx", "export_onnx", "onnx_runner", "quiet_exporter", "torch_runner"]

Runner = Callable[[], object]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within: torch's exporters print, warn and log nothing."""
    logger = logging.getLogger("torch")
    level, previous = logger.level, logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
        logger.setLevel(level)


def export_onnx(module: nn.Module, inputs: Any, *, dynamic_batch: bool = False) -> onnx.ModelProto:
    """Export a network by torch's exporter.

    Args:
        module: On the CPU; put into eval mode.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors.
        dynamic_batch: Leave the first dimension of every input open.
    Raises:
        ExportRefused: with the exporter's reason.
    """
    args, kwargs = _split(inputs)
    shapes: Any = None
    if dynamic_batch:
        shapes = map_tensors(inputs if not isinstance(inputs, torch.Tensor) else (inputs,), _open)
    try:
        with quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(), args, kwargs=kwargs, dynamo=True, opset_version=OPSET,
                dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter's errors share no type below Exception
        raise ExportRefused(
            f"torch's exporter refuses {type(module).__name__}: {_reason(error)}"
        ) from error
    assert program is not None
    return program.model_proto


def _open(tensor: torch.Tensor) -> Any:
    return {0: torch.export.Dim("batch")}


def _split(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0] if lines else 'no reason given'}"[:300]


def graph_of(module: nn.Module, inputs: Any) -> onnx.ModelProto:
    """Return a network's ONNX graph: written node by node, or by the exporter where need be."""
    try:
        return write_graph(module, inputs)
    except NoRule:
        return export_onnx(module, inputs)


def onnx_runner(
    model: onnx.ModelProto, inputs: Any, *, threads: int, accelerator: str = "cpu"
) -> Runner:
    """Return a function that runs a graph once on ONNX Runtime; inputs are ready beforehand.

    Args:
        model: The graph.
        inputs: A tensor, or a tuple or dict of tensors, in the graph's order.
        threads: Of one operation; operations run one after another and threads do not spin.
        accelerator: "cpu" or "cuda".
    """
    session = _session(model, threads, accelerator)
    arrays = [t.detach().cpu().numpy() for t in tensors_in(inputs)]
    feed = {given.name: array for given, array in zip(session.get_inputs(), arrays)}
    outputs = [output.name for output in session.get_outputs()]
    return lambda: session.run(outputs, feed)


def _session(model: onnx.ModelProto | Path, threads: int, accelerator: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if accelerator == "cuda" else "CPUExecutionProvider"
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=[provider])


def torch_runner(module: nn.Module, inputs: Any, *, accelerator: str = "cpu") -> Runner:
    """Return a function that runs a network once in torch eager, without gradients."""
    moved = map_tensors(inputs, lambda t: t.to(accelerator))
    network = module.eval().to(accelerator)

    def run() -> None:
        with torch.inference_mode():
            call_model(network, moved)

    return run


def check_onnx(path: Path, module: nn.Module, inputs: Any) -> float:
    """Load an ONNX file and return its largest absolute difference from torch on some inputs.

    Args:
        path: The file.
        module: The same network, on the CPU, in eval mode.
        inputs: Real inputs `[N, ...]`, or a tuple or dict of tensors.
    """
    session = _session(path, 1, "cpu")
    arrays = [t.detach().cpu().numpy() for t in tensors_in(inputs)]
    found = session.run(None, {g.name: a for g, a in zip(session.get_inputs(), arrays)})
    with torch.no_grad():
        expected = tensors_in(call_model(module.eval(), inputs))
    return max(float(np.abs(e.numpy() - f).max()) for e, f in zip(expected, found, strict=True))
