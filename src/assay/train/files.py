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

from assay.errors import InvalidStudy, Unwritable

__all__ = ["load_tensors", "save_tensors", "under"]

_KEY = "assay"
_SAME = "same"  # names of tensors that are others' too, as of tied weights: name -> the first name


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to one file: under a temporary name, flushed, then renamed.

    A tensor of several names, as a tied weight is, is written once.

    Args:
        path: The file; its folder is made if there is none.
        state: Name -> tensor `[...]` or JSON value. Tensors are stored on the CPU.
    Raises:
        TypeError: a value that is neither.
        Unwritable: it cannot be written, as on a full disk.
    """
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    values = json.dumps({k: v for k, v in state.items() if k not in tensors})
    same = _same(tensors)
    # Copies: safetensors refuses tensors that share memory, as views of one do.
    whole = {
        k: v.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for k, v in tensors.items()
        if k not in same
    }
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(whole, temporary, metadata={_KEY: values, _SAME: json.dumps(same)})
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)  # or the new name may be lost with the power
    except (OSError, SafetensorError) as error:
        raise Unwritable(
            f"{path} cannot be written ({error}); make room for it, then run the same again to go "
            "on"
        ) from error


def _same(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the names of tensors that are the same memory, seen alike, as one named before."""
    first: dict[object, str] = {}
    same: dict[str, str] = {}
    for name, t in tensors.items():
        if t.numel():
            memory = t.untyped_storage().data_ptr(), t.storage_offset(), t.dtype, t.device
            known = first.setdefault((*memory, t.shape, t.stride()), name)
            if known != name:
                same[name] = known
    return same


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
    same = json.loads(metadata.get(_SAME, "{}"))
    aliases = {name: state[known] for name, known in same.items()}
    return {**state, **aliases, **json.loads(metadata.get(_KEY, "{}"))}


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a flat state whose names begin with a prefix, without it.

    Args:
        prefix: Such as "optimizer.".
        state: Name -> tensor or JSON value.
    """
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
