"""The winner as files: ONNX, torch.export, safetensors, architecture, card, readable source."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.handover.card import SCALES, long_scales, write_card
from assay.handover.formats import (
    Timed,
    Written,
    largest_difference,
    outputs_of,
    write_onnx,
    write_pt2,
)
from assay.handover.source import load_source, write_source
from assay.handover.timing import can_time, write_timed_onnx
from assay.hardware.device import Device
from assay.train.modes import evaluating
from assay.train.splits import map_tensors

__all__ = ["HandOver", "hand_over"]

_LONGEST_REASON = 300


@dataclass
class HandOver:
    """What was written.

    Attributes:
        files: Names of the files in the folder, sorted.
        onnx_max_difference: Largest absolute difference of the ONNX file's outputs from torch's on
            real inputs, before it was written and after it was loaded; None without such a file.
        pt2_max_difference: The same of the torch.export file.
        source_max_difference: The same of the network that `model.py` makes.
        open_batch: Files that take any number of samples, `model.py` as the network itself.
        refused: File -> the exporter's reason, for what could not be written.
        extra_state: What of the network's state is no tensor, and so not in the weights: names
            such as "block._extra_state".
        onnx_timed: How long the ONNX file takes on the target; None where that cannot be timed.
    """

    files: list[str] = field(default_factory=list)
    onnx_max_difference: float | None = None
    pt2_max_difference: float | None = None
    source_max_difference: float | None = None
    open_batch: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    extra_state: list[str] = field(default_factory=list)
    onnx_timed: Timed | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What was measured of the files, by names as metrics have."""
        return {} if self.onnx_timed is None else {"model_onnx_ms": self.onnx_timed.file_ms}

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
    target: Device | None = None,
) -> HandOver:
    """Write a trained network to a folder, whole or not at all.

    Weights, architecture and card are always written, and how inputs are normalised where that is
    too long for the card; an exporter that refuses the network costs
    its own file only, and its reason stands in the card and in the result.

    Args:
        module: A plain network on the CPU; it is left in its mode.
        inputs: Real inputs `[N, ...]` with N >= 2 and no smaller than the target's batch, or a
            tuple or dict of tensors, to check with.
        out: The folder; one that is there is replaced.
        architecture: What the network is.
        metrics: Its figures, with units in the names.
        settings: What the search was told, for the card.
        source: Also write `model.py`, for a network of torch's own layers.
        target: Where the ONNX file is timed, if that can be done there; None for nowhere.
    Returns:
        What was written, and what was refused and why.
    """
    part = _emptied(out.with_name(f"{out.name}.part"))
    done = HandOver()
    with evaluating(module):
        done.extra_state = _write_weights(module, part / "weights.safetensors")
        (part / "architecture.json").write_text(architecture.to_json() + "\n")
        if scales := long_scales(settings):
            (part / SCALES).write_text(json.dumps(scales) + "\n")
        onnx = _attempt(done, part / "model.onnx", lambda p: _onnx(module, inputs, p, target))
        pt2 = _attempt(done, part / "model.pt2", lambda p: write_pt2(module, inputs, p))
        done.onnx_max_difference = onnx.max_difference if onnx else None
        done.onnx_timed = onnx.timed if onnx else None
        done.pt2_max_difference = pt2.max_difference if pt2 else None
        if source:
            made = _attempt(done, part / "model.py", lambda p: _write_model(module, inputs, p))
            done.source_max_difference = made.max_difference if made else None
    done.files = sorted([*(p.name for p in part.iterdir()), "card.md"])
    figures = {**metrics, **done.figures}
    write_card(part / "card.md", architecture, figures, settings, done, inputs)
    _put_in_place(part, out)
    return done


def _write_weights(module: nn.Module, path: Path) -> list[str]:
    """Write the tensors of a network's state; return the names of what is none in it."""
    state = module.state_dict()
    tensors = {name: t for name, t in state.items() if isinstance(t, Tensor)}
    path.write_bytes(save({k: t.detach().clone().contiguous() for k, t in tensors.items()}))
    return [name for name in state if name not in tensors]


def _attempt(done: HandOver, path: Path, write: Callable[[Path], Written]) -> Written | None:
    try:
        written = write(path)
    # Exporters and runtimes share no error below Exception, and a network that took hours to train
    # must not be lost to one of them: the reason is kept, and shown in the card.
    except Exception as error:
        path.unlink(missing_ok=True)
        done.refused[path.name] = _reason(error)
        return None
    if written.open_batch:
        done.open_batch.append(path.name)
    return written


def _onnx(module: nn.Module, inputs: Any, path: Path, target: Device | None) -> Written:
    if target is None or not can_time(target):
        return write_onnx(module, inputs, path)
    return write_timed_onnx(module, inputs, path, target)


def _write_model(module: nn.Module, inputs: Any, path: Path) -> Written:
    """Write the source, run it, and compare its network: in float64, where rounding hides nothing.

    In float32 the two may differ by rounding, since only one of them may be channels-last.
    """
    path.write_text(write_source(module))
    made = load_source(path)
    precise = map_tensors(inputs, lambda t: t.double() if t.is_floating_point() else t)
    expected, found = (outputs_of(copy.deepcopy(net).double(), precise) for net in (module, made))
    largest_difference(expected, found, tolerance=1e-9)
    gap = largest_difference(outputs_of(module, inputs), outputs_of(made, inputs))
    return Written(gap, open_batch=True)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:_LONGEST_REASON]


def _emptied(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _put_in_place(part: Path, out: Path) -> None:
    """Rename the finished folder; at any moment `out` is the old one, the new one or absent."""
    old = out.with_name(f"{out.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        out.rename(old)
    part.rename(out)
    if old.exists():
        shutil.rmtree(old)
