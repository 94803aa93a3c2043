"""Images of a folder, one sub-folder for each class, as arrays."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from assay.errors import InvalidTask

__all__ = ["read_folder"]

_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders raise on broken files."""

Pixels: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


def read_folder(folder: str | Path, *, size: int) -> tuple[Pixels, Labels, list[str]]:
    """Read `folder/CLASS/*.png` (or any image format Pillow reads).

    Images are turned upright as their camera noted and read as RGB, what is transparent on white.
    Their centre square is resized, and all are kept in memory as uint8. Other files are passed by.

    Args:
        folder: Has one sub-folder for each class.
        size: Side of the images in pixels.
    Returns:
        Images `[N, size, size, 3]`, classes `[N]`, and the names of the classes: those of the
        sub-folders, in alphabetical order.
    Raises:
        InvalidTask: no folder, fewer than two classes, an empty class, a picture that cannot be
            read (named), a size below 1.
    """
    if size < 1:
        raise InvalidTask(f"size={size} must be at least 1 pixel")
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
    return np.stack(images), np.asarray(labels), [sub.name for sub in classes]


def _pictures(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS)


def _read(file: Path, size: int) -> Pixels:
    try:
        with Image.open(file) as image:
            rgb = _rgb(ImageOps.exif_transpose(image))
    except _BROKEN as error:
        raise InvalidTask(
            f"{file} cannot be read as an image ({error}); repair or remove it"
        ) from error
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits a pixel, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
