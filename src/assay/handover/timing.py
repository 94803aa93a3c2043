"""How long `model.onnx` takes on the target, beside the graph that a search measures."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from assay.handover.formats import Timed, Written, write_onnx
from assay.hardware.device import Device
from assay.hardware.runtimes import Runner, onnx_runner
from assay.train.splits import map_tensors

__all__ = ["can_time", "write_timed_onnx"]

_SLOWER = 1.1  # than the graph that was measured, from which on a fixed batch is tried


def can_time(target: Device) -> bool:
    """Whether a target runs ONNX files as it runs networks; a user's own device may run neither."""
    return target.runtime == "onnxruntime" and type(target).runner is Device.runner


def write_timed_onnx(module: nn.Module, inputs: Any, path: Path, target: Device) -> Written:
    """Write ONNX and time it at the target's batch, beside the graph that a search measures.

    The two are written by different programs. Where the batch is open and the file slower by more
    than a tenth, one with the target's batch takes its place if that gains half of it back.

    Args:
        module: In eval mode, on the CPU.
        inputs: At least as many real inputs `[N, ...]` as the target's batch, or a tuple or dict
            of tensors.
        path: The file.
        target: Where it will run; see `can_time`.
    Raises:
        ExportRefused: as `write_onnx`.
        Exception: of the runtime, which cannot run it on the target.
    """
    example = map_tensors(inputs, lambda t: t[: target.batch])
    written = write_onnx(module, inputs, path)
    if not written.open_batch:
        written = write_onnx(module, example, path, open_batch=False)
    with target.ready():
        runners = [target.runner(module, example), _runner(path, example, target)]
        measured_ms, file_ms = target.medians_ms(runners)
        if written.open_batch and file_ms > _SLOWER * measured_ms:
            quicker = _fixed(module, example, path, target, runners)
            if quicker is not None:
                return quicker
    return replace(written, timed=Timed(target.batch, file_ms, measured_ms))


def _fixed(
    module: nn.Module, example: Any, path: Path, target: Device, runners: list[Runner]
) -> Written | None:
    """Put a file with a fixed batch in the place of one that is slower; None if it is not."""
    other = path.with_suffix(".fixed")
    # Exporter and runtime share no error below Exception; then the file stays as it is.
    with contextlib.suppress(Exception):
        written = write_onnx(module, example, other, open_batch=False)
        runners = [*runners, _runner(other, example, target)]
        measured_ms, open_ms, fixed_ms = target.medians_ms(runners)
        slow = open_ms > _SLOWER * measured_ms  # still
        if slow and fixed_ms < (measured_ms + open_ms) / 2:
            other.replace(path)
            return replace(written, timed=Timed(target.batch, fixed_ms, measured_ms, open_ms))
    other.unlink(missing_ok=True)
    return None


def _runner(path: Path, example: Any, target: Device) -> Runner:
    return onnx_runner(path, example, threads=target.threads, accelerator=target.accelerator)
