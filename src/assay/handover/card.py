"""A card for a network: what it is, how to load it, what was measured, how it was found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.architecture import Architecture
from assay.hardware.count import tensors_in

if TYPE_CHECKING:
    from assay.handover.export import HandOver

__all__ = ["SCALES", "long_scales", "write_card"]

SCALES = "normalise.json"
"""Mean and deviation of each channel, where they are too many for the card."""

_MOST_SHOWN = 64

_LOADING = {
    "model.onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession('model.onnx')
names = [i.name for i in session.get_inputs()]
outputs = session.run(None, dict(zip(names, [x])))  # x: a NumPy array; a list of several inputs
""",
    "model.pt2": """\
import torch
net = torch.export.load('model.pt2').module()  # needs torch alone
""",
    "model.py": """\
import model  # in this folder; readable, needs torch alone
net = model.load()
""",
    "weights.safetensors": """\
from safetensors.torch import load_file
state = load_file('weights.safetensors')
""",
}
_OWN = """\
from pathlib import Path
from assay import Architecture, Space
point = Architecture.from_json(Path('architecture.json').read_text())
net = Space(YourModel).build(point)  # YourModel: as the search was given it
net.load_state_dict(state)
net.eval()
"""
_BYTES = ("bytes", "KiB", "MiB", "GiB")
_NAMES = {
    "latency_table_ms": "latency by the table",
    "macs": "multiply-accumulates",
    "memory_bytes": "memory",
    "model_bytes": "model size",
    "model_onnx_ms": "latency of model.onnx",
    "params": "parameters",
}


def write_card(
    path: Path,
    architecture: Architecture,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
    done: HandOver,
    inputs: Any,
) -> None:
    """Write the card as Markdown.

    Args:
        path: The file.
        architecture: Of the network.
        metrics: Figures with units in their names.
        settings: What the search was told.
        done: What was exported, and what was refused.
        inputs: Example inputs `[N, ...]`, or a tuple or dict of tensors; their shapes are shown.
    """
    if long_scales(settings):
        settings = {**settings, "task": {**settings["task"], "normalised": SCALES}}
    sections = {
        "Figures": _figures(metrics),
        "How to load it": _loading(done, inputs, settings),
        "How it was found": _found(architecture, settings),
        "Limits": _limits(metrics, done),
    }
    text = "# A network found by architecture search\n\nAn ordinary network, trained; "
    text += "the search chose its architecture and left no trace in it.\n"
    for title, body in sections.items():
        text += f"\n## {title}\n\n{body.strip()}\n"
    path.write_text(text)


def long_scales(settings: Mapping[str, Any]) -> Mapping[str, Sequence[float]] | None:
    """Return mean and deviation of each channel, `[C]`, if they are too many for the card."""
    task = settings.get("task")
    scales = task.get("normalised") if isinstance(task, Mapping) else None
    return scales if scales and len(scales["mean"]) > _MOST_SHOWN else None


_TESTED = """
- The test figures are of one look at the test split, after the network had been chosen on the
  validation split; they say nothing of other data.
"""
_UNTESTED = """
- Nothing was tested, since the task has no test split. The network was chosen on the validation
  split, so the validation figures flatter it; they say nothing of other data.
"""
_LIMITS = """\
- Latency holds for the machine, runtime, threads and batch above, and for no other.
- Inputs must be prepared as the task prepares them; the files hold the network alone.
"""


def _limits(metrics: Mapping[str, float], done: HandOver) -> str:
    tested = any(name.startswith("test_") for name in metrics)
    return (_TESTED if tested else _UNTESTED) + _LIMITS + _timed(done)


def _timed(done: HandOver) -> str:
    """Say how `model.onnx` compares with what was measured, which another program wrote."""
    if (timed := done.onnx_timed) is None:
        return ""
    said = (
        "- The latency is of the graph that the search measured. `model.onnx`, in turns with it at "
        f"batch {timed.batch}, took {timed.file_ms:.4g} ms, the graph {timed.measured_ms:.4g} ms."
    )
    if timed.open_ms is not None:
        said += f" A file for any N took {timed.open_ms:.4g} ms; so N is fixed."
    return f"{said}\n"


def _figures(metrics: Mapping[str, float]) -> str:
    rows = [f"| {_plain(name)} | {_amount(name, value)} |" for name, value in metrics.items()]
    return "\n".join(["| figure | value |", "|---|---:|", *rows])


def _loading(done: HandOver, inputs: Any, settings: Mapping[str, Any]) -> str:
    shapes = [f"`[N, {', '.join(map(str, t.shape[1:]))}]`" if t.ndim > 1 else "`[N]`"
              for t in tensors_in(inputs)]  # fmt: skip
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in tensors_in(inputs)})
    lines = [f"Inputs are {' and '.join(shapes)}, {' and '.join(dtypes)}; N is any number unless "
             "said otherwise.", *_meaning(settings.get("task")), "", "```python"]  # fmt: skip
    extra = [name.rpartition("_extra_state")[0].rstrip(".") for name in done.extra_state]
    snippets = [_LOADING[name] for name in _LOADING if name in done.files]
    if not (settings.get("origin") or {}).get("space"):  # a ready space has model.py
        snippets.append(_OWN.replace("(state)", "(state, strict=False)") if extra else _OWN)
    lines += ["\n".join(snippets) + "```", ""]
    gaps = {
        "model.onnx": done.onnx_max_difference,
        "model.pt2": done.pt2_max_difference,
        "model.py": done.source_max_difference,
    }
    for name, gap in gaps.items():
        if gap is not None:
            lines.append(
                f"- `{name}` was loaded and checked: on real inputs its outputs differ from the "
                f"trained network's by at most {gap:.3g}{_batch(name, done, inputs)}."
            )
    if extra:
        owners = ", ".join(f"`{path}`" if path else "the network itself" for path in extra)
        lines.append(
            f"- Extra state that is no tensor is not in `weights.safetensors`: that of {owners}."
        )
    lines += [f"- There is no `{name}`: {reason}" for name, reason in done.refused.items()]
    return "\n".join(lines)


def _meaning(task: Any) -> list[str]:
    """Say how inputs are normalised and what the outputs stand for, as far as the task tells."""
    if not isinstance(task, Mapping):
        return []
    said = []
    if scales := task.get("normalised"):
        mean, deviation, there = "mean", "deviation", f", by `mean` and `deviation` in `{SCALES}`"
        if scales != SCALES:
            mean, deviation, there = _vector(scales[mean]), _vector(scales[deviation]), ""
        said.append(
            f"Each is normalised, channel by channel{there}: `(x - {mean}) / {deviation}` of the "
            "values x that the task was given (bytes are 0 to 255)."
        )
    if names := task.get("class_names"):
        said.append(f"Outputs are of the classes {', '.join(f'`{name}`' for name in names)}.")
    return said


def _vector(values: Sequence[float]) -> str:
    said = [f"{value:.7g}" for value in values]
    return said[0] if len(said) == 1 else f"[{', '.join(said)}]"


def _batch(name: str, done: HandOver, inputs: Any) -> str:
    if name in done.open_batch:
        return ""
    timed = done.onnx_timed if name == "model.onnx" else None
    num = timed.batch if timed is not None else len(next(iter(tensors_in(inputs))))
    return f"; N is fixed at {num}"


def _found(architecture: Architecture, settings: Mapping[str, Any]) -> str:
    lines = [
        "By Assay, a neural architecture search. The architecture, label by label:",
        "",
        "| choice | option |",
        "|---|---|",
    ]
    lines += [f"| `{label}` | {option} |" for label, option in architecture.items()]
    lines += ["", "The settings of the search:", "", "| setting | value |", "|---|---|"]
    lines += [f"| {key} | {_setting(value)} |" for key, value in settings.items()]
    return "\n".join(lines)


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"`{text}`".replace("|", "\\|")


def _plain(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    for suffix in ("_ms", "_s", "_bytes"):
        name = name.removesuffix(suffix)
    return re.sub("^valid ", "validation ", name.replace("_", " "))


def _amount(name: str, value: float) -> str:
    """Write a figure with the unit that its name tells."""
    if name.endswith("_bytes"):
        scale = next((i for i in range(3) if value < 1024 ** (i + 1)), 3)
        return f"{value / 1024**scale:.4g} {_BYTES[scale]}"
    if name in ("macs", "params"):
        return f"{value:,.0f}"
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    for suffix in ("ms", "s"):
        if name.endswith(f"_{suffix}"):
            return f"{value:.4g} {suffix}"
    return f"{value:.4g}"
