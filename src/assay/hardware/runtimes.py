"""Runtimes: what takes a network and one input, and runs it as it will be served."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from torch import nn

from assay.errors import ExportRefused, InvalidSetting
from assay.hardware.count import as_call, tensors_in
from assay.hardware.onnx_graph import OPSET, NoRule, write_graph
from assay.train.modes import evaluating
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = [
    "SESSION", "Runner", "export_onnx", "graph_of", "onnx_runner", "quiet_exporter", "torch_runner",
]  # fmt: skip

SESSION = "all optimisations, sequential, no spinning"
"""How ONNX Runtime runs a graph, beside the thread count."""

Runner: TypeAlias = Callable[[], object]
"""Runs a network once on inputs that lie ready, and returns when its outputs are there."""


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
    """Export a network in eval mode by torch's exporter; prints and warns nothing.

    Args:
        module: On the CPU; its train/eval modes are restored.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors.
        dynamic_batch: Leave the first dimension of every input open.
    Raises:
        ExportRefused: with the exporter's reason.
    """
    args, kwargs = as_call(map_tensors(inputs, torch.Tensor.clone))  # a forward may write into them
    shapes: Any = None
    if dynamic_batch:
        shapes = map_tensors(inputs if not isinstance(inputs, torch.Tensor) else (inputs,), _open)
    try:
        with quiet_exporter(), evaluating(module), torch.no_grad():
            program = torch.onnx.export(
                module, args, kwargs=kwargs, dynamo=True, opset_version=OPSET,
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


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0] if lines else 'no reason given'}"[:300]


def graph_of(module: nn.Module, inputs: Any) -> onnx.ModelProto:
    """Return a network's ONNX graph: written node by node, or by the exporter where need be.

    Args:
        module: On any device; left as it is.
        inputs: Example `[N, ...]`, or a tuple or dict of tensors.
    Raises:
        ExportRefused: neither can write it; with the exporter's reason.
    """
    if any(t.device.type != "cpu" for t in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    inputs = map_tensors(inputs, lambda t: t.detach().cpu())
    try:
        return write_graph(module, inputs)
    except NoRule:
        return export_onnx(module, inputs)


def onnx_runner(
    model: onnx.ModelProto | Path, inputs: Any, *, threads: int, accelerator: str = "cpu"
) -> Runner:
    """Return a function that runs a graph once on ONNX Runtime, and returns its outputs.

    Args:
        model: The graph, or its file.
        inputs: A tensor, or a tuple or dict of tensors, in the graph's order.
        threads: Of one operation; operations run one after another and threads do not spin.
        accelerator: "cpu", or "cuda": then inputs and outputs stay on the GPU.
    Raises:
        InvalidSetting: this ONNX Runtime has no such accelerator.
    """
    session = _session(model, threads, accelerator)
    arrays = [t.detach().cpu().numpy() for t in tensors_in(inputs)]
    feed = {given.name: array for given, array in zip(session.get_inputs(), arrays, strict=True)}
    outputs = [output.name for output in session.get_outputs()]
    if accelerator == "cuda":
        return _bound(session, feed, outputs)
    return lambda: session.run(outputs, feed)


def _bound(session: Any, feed: dict[str, Any], outputs: list[str]) -> Runner:
    import onnxruntime

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda"))
    for name in outputs:
        binding.bind_output(name, "cuda")

    def run() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.get_outputs()

    return run


def _session(model: onnx.ModelProto | Path, threads: int, accelerator: str) -> Any:
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[accelerator]
    there = onnxruntime.get_available_providers()
    if provider not in there:  # it would fall back to another in silence
        raise InvalidSetting(
            f"accelerator={accelerator!r}, but this ONNX Runtime has {', '.join(there)} only; "
            "install onnxruntime-gpu in its place, or take 'cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=[provider])


def torch_runner(module: nn.Module, inputs: Any, *, accelerator: str = "cpu") -> Runner:
    """Return a function that runs a network once in torch eager in inference mode.

    Args:
        module: On any device; left as it is, a copy runs where need be.
        inputs: A tensor, or a tuple or dict of tensors.
        accelerator: "cpu" or "cuda"; a run on CUDA returns before it has ended.
    Raises:
        InvalidSetting: torch sees no CUDA device.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InvalidSetting("accelerator='cuda', but torch sees no CUDA device; take 'cpu'")
    states = (*module.parameters(), *module.buffers())
    if any(m.training for m in module.modules()) or any(
        t.device.type != accelerator for t in states
    ):
        module = copy.deepcopy(module).eval().to(accelerator)
    moved = map_tensors(inputs, lambda t: t.detach().to(accelerator, copy=True))

    def run() -> Any:
        with torch.inference_mode():
            return call_model(module, moved)

    return run
