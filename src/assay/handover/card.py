"""A card for a network: what it is, how to load it, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.architecture import Architecture

if TYPE_CHECKING:
    from assay.handover.export import HandOver

__all__ = ["write_card"]


def write_card(
    path: Path,
    architecture: Architecture,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
    done: HandOver,
) -> None:
    """Write the card as Markdown.

    Args:
        path: The file.
        architecture: Of the network.
        metrics: Figures with units in their names.
        settings: What the search was told.
        done: What was exported, and what was refused.
    """
    lines = ["# The network of this folder", ""]
    lines += ["Found, trained and measured by a search; an ordinary network.", ""]
    lines += ["## Figures", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.6g} |" for name, value in metrics.items()]
    lines += ["", "The test split was read once, after the network had been chosen.", ""]
    lines += ["## Files", ""]
    lines += [f"- `{name}`: {_USE[name]}" for name in done.files]
    lines += [f"- no `{name}`: {reason}" for name, reason in done.refused.items()]
    for name, gap in (("model.onnx", done.onnx_max_difference),
                      ("model.pt2", done.pt2_max_difference)):  # fmt: skip
        if gap is not None and name in done.files:
            lines.append(f"- largest difference of `{name}` from torch on real inputs: {gap:.3g}")
    lines += ["", "## Architecture", "", "```json", architecture.to_json(), "```", ""]
    lines += ["## Limits of use", ""]
    lines += [
        "Latency was measured on the machine and runtime below and holds there only. Accuracy is "
        "that of the task's own test split.",
        "",
        "## Settings",
        "",
    ]
    lines += [f"- {key}: `{value}`" for key, value in settings.items()]
    path.write_text("\n".join(lines) + "\n")


_USE = {
    "model.onnx": "`onnxruntime.InferenceSession('model.onnx')`",
    "model.pt2": "`torch.export.load('model.pt2').module()`",
    "weights.safetensors": "the weights, by parameter name",
    "architecture.json": "the options chosen, by label",
    "model.py": "readable source that imports torch alone: `from model import load; net = load()`",
    "card.md": "this card",
}
