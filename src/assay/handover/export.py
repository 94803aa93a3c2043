"""The winner as files: ONNX, torch.export, safetensors, architecture, card, readable source."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from assay.architecture import Architecture
from assay.errors import ExportRefused
from assay.handover.card import write_card
from assay.handover.source import write_source
from assay.hardware.count import tensors_in
from assay.hardware.runtimes import check_onnx, export_onnx, quiet_exporter
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = ["HandOver", "hand_over"]

_TOLERANCE = 1e-3


@dataclass
class HandOver:
    """What was written.

    Attributes:
        files: Names of the files, in the folder.
        onnx_max_difference: Largest absolute difference of the ONNX file's output from torch's on
            real inputs, after loading it from disk; None without an ONNX file.
        pt2_max_difference: The same of the torch.export file.
        refused: File -> the exporter's reason, for what could not be written.
    """

    files: list[str] = field(default_factory=list)
    onnx_max_difference: float | None = None
    pt2_max_difference: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def hand_over(
    module: nn.Module,
    inputs: Any,
    out: Path,
    *,
    architecture: Architecture,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
    source: bool = False,
) -> HandOver:
    """Write a trained network to a folder, whole or not at all.

    Args:
        module: A plain network on the CPU; put into eval mode.
        inputs: Real inputs `[N, ...]` with N >= 2, or a tuple or dict of tensors, to check with.
        out: The folder; one that is there is replaced.
        architecture: What the network is.
        metrics: Its figures, with units in the names.
        settings: What the search was told, for the card.
        source: Also write `model.py`, for a network of torch's own layers.
    Returns:
        What was written, and what was refused and why.
    """
    module.eval()
    part = out.with_name(out.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    done = HandOver()
    state = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
    save_file(state, part / "weights.safetensors")
    (part / "architecture.json").write_text(architecture.to_json() + "\n")
    _write_onnx(module, inputs, part / "model.onnx", done)
    _write_pt2(module, inputs, part / "model.pt2", done)
    if source:
        try:
            (part / "model.py").write_text(write_source(module))
        except ExportRefused as error:
            done.refused["model.py"] = str(error)
    done.files = sorted([p.name for p in part.iterdir()] + ["card.md"])
    write_card(part / "card.md", architecture, metrics, settings, done)
    if out.exists():
        shutil.rmtree(out)
    part.replace(out)
    return done


def _write_onnx(module: nn.Module, inputs: Any, path: Path, done: HandOver) -> None:
    """Export with an open batch where the exporter can, else at the example's."""
    try:
        try:
            model = export_onnx(module, inputs, dynamic_batch=True)
        except ExportRefused:
            model = export_onnx(module, inputs)
    except ExportRefused as error:
        done.refused[path.name] = str(error)
        return
    path.write_bytes(model.SerializeToString())
    done.onnx_max_difference = check_onnx(path, module, inputs)
    if not done.onnx_max_difference <= _TOLERANCE:
        path.unlink()
        done.refused[path.name] = (
            f"its output differs from torch's by {done.onnx_max_difference:.3g}"
        )


def _write_pt2(module: nn.Module, inputs: Any, path: Path, done: HandOver) -> None:
    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else {}
    batch = torch.export.Dim("batch")
    shapes: Any = map_tensors(kwargs or args, lambda t: {0: batch})
    with quiet_exporter(), torch.no_grad():
        try:
            try:
                program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
            except Exception:  # a network that fixes its batch; exported at the example's instead
                program = torch.export.export(module, args, kwargs)
            torch.export.save(program, path)
            loaded = torch.export.load(path).module()
        except Exception as error:  # the exporter's errors share no type below Exception
            path.unlink(missing_ok=True)
            done.refused[path.name] = f"torch.export refuses it: {error}"[:300]
            return
        found, expected = loaded(*args, **kwargs), call_model(module, inputs)
    pairs = zip(tensors_in(found), tensors_in(expected), strict=True)
    done.pt2_max_difference = max(float((f - e).abs().max()) for f, e in pairs)

