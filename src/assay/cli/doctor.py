"""`assay doctor`: whether this machine is ready."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

__all__ = ["doctor"]


def doctor() -> None:
    """Say whether this machine is ready, and what to install if not. Exits 1 if it is not."""
    ready = True
    for state, what, detail in _findings():
        print(f"{state:8} {what:16} {detail}")
        ready = ready and state in ("ok", "optional")
    print("ready" if ready else "not ready: install what is missing")
    if not ready:
        sys.exit(1)


def _findings() -> Iterator[tuple[str, str, str]]:
    version = sys.version.split()[0]
    yield ("ok" if sys.version_info >= (3, 11) else "missing", "python", version)
    for package in ("torch", "onnx", "onnxruntime", "onnxscript", "scikit-learn", "sqlalchemy"):
        try:
            yield ("ok", package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield ("missing", package, f"pip install {package}")
    yield _cuda()
    yield ("ok", "cores", f"{os.cpu_count()}")
    free = shutil.disk_usage(".").free / 1e9
    yield ("ok" if free > 1 else "missing", "disk", f"{free:.1f} GB free here")
    fashion = Path("/usr/share/datasets/fashion-mnist").is_dir()
    told = "installed" if fashion else "apt install dataset-fashion-mnist, or it is downloaded"
    yield ("ok" if fashion else "optional", "fashion-mnist", told)


def _cuda() -> tuple[str, str, str]:
    try:
        from assay.hardware.device import cuda_name
    except (ImportError, OSError) as error:  # a package is missing, or there but broken
        return ("unknown", "cuda", f"cannot be asked: {' '.join(str(error).split())}")
    if (name := cuda_name()) is not None:
        return ("ok", "cuda", name)
    return ("optional", "cuda", "no device; networks are trained on the CPU")
