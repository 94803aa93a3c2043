"""Weights on disk: safetensors with JSON values beside the tensors, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.errors import InvalidStudy

__all__ = ["load_tensors", "save_tensors", "under"]

_KEY = "assay"


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to one file: under a temporary name, flushed, then renamed.

    Args:
        path: The file; its folder is made if there is none.
        state: Name -> tensor `[...]` or JSON value. Tensors are stored on the CPU.
    Raises:
        TypeError: a value that is neither.
    """
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    values = json.dumps({k: v for k, v in state.items() if k not in tensors})
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    whole = {
        k: v.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for k, v in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(whole, temporary, metadata={_KEY: values})
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)  # or the new name may be lost with the power


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a flat state whose names begin with a prefix, without it.

    Args:
        prefix: Such as "optimizer.".
        state: Name -> tensor or JSON value.
    """
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
