"""Images of a folder, one sub-folder for each class, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from assay.errors import InvalidTask

__all__ = ["read_folder"]

Pixels: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


def read_folder(folder: str | Path, *, size: int) -> tuple[Pixels, Labels]:
    """Read `folder/CLASS/*.png` (or any image format Pillow reads).

    Images are read as RGB, their centre square is resized, and all are kept in memory as uint8.

    Args:
        folder: Has one sub-folder for each class.
        size: Side of the images in pixels.
    Returns:
        Images `[N, size, size, 3]` and classes `[N]` in the order of the sub-folders' names.
    Raises:
        InvalidTask: no folder, fewer than two classes, an empty class, a picture that cannot be
            read (named).
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidTask(
            f"{root} is no folder; give one with a sub-folder of images for each class"
        )
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise InvalidTask(
            f"{root} has {len(classes)} sub-folders; classification needs one for each of two or "
            "more classes"
        )
    images, labels = [], []
    for label, sub in enumerate(classes):
        files = list(_pictures(sub))
        if not files:
            raise InvalidTask(f"{sub} holds no image; add some or remove the class")
        images += [_read(file, size) for file in files]
        labels += [label] * len(files)
    return np.stack(images), np.asarray(labels)


def _pictures(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS)


def _read(file: Path, size: int) -> Pixels:
    try:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InvalidTask(
            f"{file} cannot be read as an image ({error}); repair or remove it"
        ) from error
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
