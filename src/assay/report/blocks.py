"""The winner's blocks as they are drawn: what each is, in words, and its share of the whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["blocks", "describe_layers", "largest_share"]

_LAYER = re.compile(r"([A-Z]\w*)\((.*)\)", re.DOTALL)
_SILENT = re.compile(r"(BatchNorm|LayerNorm|GroupNorm|InstanceNorm|Dropout|Flatten|Identity)\w*")
_ACTIVATION = re.compile(r"\w*(ReLU6?|SiLU|GELU|ELU|Sigmoid|Tanh|swish|Swish|Mish)")


def blocks(winner: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the winner's blocks with their shares of all blocks' MACs and latency, in per cent.

    A latency of a table is a fitted one, and may be below 0 where there is next to nothing to
    measure: then the block's share is 0, and it takes nothing from the shares of the others.

    Args:
        winner: Its document; each of its `blocks` has `label`, `name`, `detail`, `macs`,
            `latency_ms` and perhaps `shape`, the output's, batch first.
    Returns:
        Mappings with `name`, `label` ("" where it would say the name again), `detail`, `shape`
        ("" if unknown), `macs`, `latency_ms`, `macs_share` and `latency_ms_share`; a share is
        None where a block's figure, or every block's, is missing.
    """
    rows: Sequence[Mapping[str, Any]] = (winner or {}).get("blocks") or []
    whole = {
        name: sum(max(0.0, float(row.get(name) or 0)) for row in rows)
        for name in ("macs", "latency_ms")
    }
    return [
        {
            **_words(row),
            "macs": row.get("macs"),
            "latency_ms": row.get("latency_ms"),
            **{
                f"{name}_share": 100 * max(0.0, float(row[name])) / total
                if total and row.get(name) is not None
                else None
                for name, total in whole.items()
            },
        }
        for row in rows
    ]


def largest_share(chain: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest share among what `blocks` returned, the full length of a bar."""
    shares = (block[f"{name}_share"] for block in chain for name in ("macs", "latency_ms"))
    return max((share for share in shares if share), default=100.0)


def describe_layers(text: str) -> str:
    """Say a chain of torch layers in short; norms and activations go without saying.

    Args:
        text: Their `repr`s joined by " > "; a last one that is cut off becomes "…".
    Returns:
        The text itself where it is no such chain.
    Example:
        >>> describe_layers("Conv2d(8, 8, kernel_size=(3, 3), stride=(2, 2), groups=8) > ReLU()")
        'depthwise 3×3, 8, stride 2'
    """
    matches = [(part, _LAYER.fullmatch(part.strip())) for part in text.split(" > ")]
    if matches[0][1] is None:
        return text
    said = [_layer(m[1], m[2]) if m is not None else "…" for _, m in matches]
    spoken = [words for words in said if words]
    return " › ".join(spoken) or ", ".join(m[1] for _, m in matches if m is not None)


def _words(row: Mapping[str, Any]) -> dict[str, str]:
    label, name = str(row.get("label") or ""), str(row.get("name") or "")
    detail = str(row.get("detail") or "")
    short = describe_layers(detail)
    if short != detail and label:  # of layers the name is only the first one's class
        name = label
    name = name or label or "block"
    shape = "×".join(str(size) for size in (row.get("shape") or [])[1:])
    return {"name": name, "label": label if label != name else "", "detail": short, "shape": shape}


def _layer(kind: str, inside: str) -> str:
    """Say one layer in short; "" for one that goes without saying."""
    if _SILENT.fullmatch(kind) or _ACTIVATION.fullmatch(kind):
        return ""
    if kind.startswith("Conv"):
        return _convolution(inside)
    if kind == "Linear":
        sizes = dict(re.findall(r"(in_features|out_features)=(\d+)", inside))
        if len(sizes) == 2:
            return f"linear {sizes['in_features']}→{sizes['out_features']}"
    if "Pool" in kind:
        most = "max" if "Max" in kind else "average"
        size = re.search(r"kernel_size=\(?(\d+)", inside)
        return f"{most} pool {size[1]}×{size[1]}" if size else f"{most} pool"
    return kind


def _convolution(inside: str) -> str:
    channels = re.match(r"(\d+), (\d+)", inside)
    kernel = re.search(r"kernel_size=\(([\d, ]+)\)", inside)
    if channels is None or kernel is None:
        return "convolution"
    size = "×".join(part.strip() for part in kernel[1].split(",") if part.strip())
    groups = int((re.search(r"groups=(\d+)", inside) or ["", "1"])[1])
    stride = re.search(r"stride=\((\d+)", inside)
    tail = f", stride {stride[1]}" if stride is not None and stride[1] != "1" else ""
    ins, outs = channels[1], channels[2]
    if groups > 1 and str(groups) == ins == outs:
        return f"depthwise {size}, {ins}{tail}"
    tail += f", {groups} groups" if groups > 1 else ""
    return f"conv {size}, {ins}→{outs}{tail}"
