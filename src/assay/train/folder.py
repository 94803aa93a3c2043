"""A folder of images, one sub-folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from assay.errors import InvalidTask
from assay.train.arrays import from_arrays
from assay.train.task import Augment, Task

__all__ = ["from_folder"]

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


def from_folder(
    folder: str | Path,
    *,
    size: int = 32,
    seed: int = 0,
    valid: float = 0.15,
    test: float = 0.15,
    augment: Augment | None = None,
) -> Task:
    """Make a classification task of `folder/CLASS/*.png` (or any image format Pillow reads).

    Images are read as RGB, their centre square is resized, and all are kept in memory as uint8.

    Args:
        folder: Has one sub-folder for each class.
        size: Side of the images in pixels.
        seed: Names the split.
        valid: Share of the images to choose on.
        test: Share of the images to test on.
        augment: Augmentation of training batches.
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
    return from_arrays(
        np.stack(images), np.asarray(labels), seed=seed, valid=valid, test=test, layout="NHWC",
        augment=augment, name=root.name,
    )  # fmt: skip


def _pictures(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS)


def _read(file: Path, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
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
