"""Weights on disk: safetensors with JSON values beside the tensors, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.errors import InvalidStudy

__all__ = ["load_tensors", "save_tensors"]

_KEY = "assay"


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to one file: under a temporary name, flushed, then renamed.

    Args:
        path: The file; its folder is made if there is none.
        state: Name -> tensor or JSON value. Tensors are stored on the CPU.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    values = {k: v for k, v in state.items() if k not in tensors}
    temporary = path.with_name(path.name + ".part")
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(whole, temporary, metadata={_KEY: json.dumps(values)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what `save_tensors` wrote; nothing in the file is executed.

    Raises:
        InvalidStudy: the file is missing or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise InvalidStudy(
            f"{path} cannot be read as saved weights ({error}); start again in another folder"
        ) from error
    return {**state, **json.loads(metadata.get(_KEY, "{}"))}
