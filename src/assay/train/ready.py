"""Ready tasks by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from assay.errors import InvalidSetting, InvalidTask, nearest
from assay.options import read_option
from assay.train import READY
from assay.train.arrays import in_memory, stratified
from assay.train.augment import ShiftAndFlip
from assay.train.sources import cache_folder, download, read_cifar, read_idx, unpack
from assay.train.task import Task

__all__ = ["checked_options", "cifar10", "digits", "fashion_mnist", "load_task"]

FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
_CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def load_task(name: str, **options: Any) -> Task:
    """Make a ready task.

    Args:
        name: A key of `assay.train.READY`: "digits", "fashion-mnist" or "cifar10".
        options: Its keyword arguments; text is read as the argument's type.
    Raises:
        InvalidSetting: an unknown name or option (the nearest are given), or a value that does not
            fit.
        InvalidTask: data that is neither here nor to be had, or broken.
    """
    if name not in READY:
        raise InvalidSetting(f"unknown task {name!r}; {nearest(name, READY)}")
    module, _, attribute = READY[name].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    made: Task = function(**checked_options(function, options))
    return made


def checked_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the types that a function's keyword arguments have.

    Args:
        function: Makes a task, such as `digits` or `Task.from_folder`.
        options: Of it; text such as "3000" is read as the argument's type.
    Raises:
        InvalidSetting: an unknown option (the nearest are given), or a value that does not fit.
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    read = {}
    for option, value in options.items():
        if option not in known:
            raise InvalidSetting(f"unknown option task.{option}; {nearest(option, known)}")
        read[option] = read_option(f"task.{option}", hints[option], value)
    return read


def digits(*, seed: int = 0) -> Task:
    """1,797 handwritten digits of 8x8 pixels, which come with scikit-learn.

    Args:
        seed: Names the split: 64 % to train, 16 % to choose on, 20 % to test.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * 15.9375).astype(np.uint8)  # 0..16 -> 0..255
    return Task.from_arrays(
        images, data.target, seed=seed, valid=0.16, test=0.2, augment=ShiftAndFlip(shift=1),
        name="digits",
    )  # fmt: skip


def fashion_mnist(*, folder: str | Path | None = None, valid: int = 6000, seed: int = 0) -> Task:
    """70,000 pictures of clothes, 28x28 grey, with their own test split.

    Source: Xiao et al. 2017, "Fashion-MNIST", arXiv:1708.07747.

    Args:
        folder: With the four IDX files, gzipped or not; by default where Debian's package
            dataset-fashion-mnist puts them, and else they are downloaded.
        valid: How many of the 60,000 training pictures to choose on, each class alike.
        seed: Names that choice.
    Raises:
        InvalidTask: a file that is missing, broken, or not to be had.
    """
    root = Path(folder) if folder is not None else _DEBIAN
    if folder is None and not root.is_dir():
        root = cache_folder("fashion-mnist")
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3",
                     "t10k-labels-idx1"):  # fmt: skip
            download(f"{FASHION_URL}/{part}-ubyte.gz", root / f"{part}-ubyte.gz")
    x, y = read_idx(root, "train-images-idx3"), read_idx(root, "train-labels-idx1")
    test_x, test_y = read_idx(root, "t10k-images-idx3"), read_idx(root, "t10k-labels-idx1")
    for images, labels in ((x, y), (test_x, test_y)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise InvalidTask(
                f"{root} holds images {tuple(images.shape)} with labels {tuple(labels.shape)}; "
                "fetch the four files again"
            )
    return _with_own_test(
        (x[:, None], y.long()), (test_x[:, None], test_y.long()), valid, seed,
        augment=ShiftAndFlip(shift=2, flip=True), name="fashion-mnist",
        class_names=_FASHION_CLASSES,
    )  # fmt: skip


def cifar10(*, folder: str | Path | None = None, valid: int = 5000, seed: int = 0) -> Task:
    """60,000 pictures of ten classes, 32x32 colour, with their own test split.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; the binary
    version.

    Args:
        folder: With data_batch_1.bin to data_batch_5.bin and test_batch.bin; by default they are
            downloaded.
        valid: How many of the 50,000 training pictures to choose on, each class alike.
        seed: Names that choice.
    Raises:
        InvalidTask: a file that is missing, broken, or not to be had.
    """
    root = Path(folder) if folder is not None else cache_folder("cifar10")
    if folder is None and not all((root / name).is_file() for name in _CIFAR10_FILES):
        archive = root / "cifar-10-binary.tar.gz"
        download(CIFAR10_URL, archive)
        unpack(archive, root)
    *parts, test = (read_cifar(root / name) for name in _CIFAR10_FILES)
    train = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    return _with_own_test(
        train, test, valid, seed,
        augment=ShiftAndFlip(shift=4, flip=True), name="cifar10", class_names=_CIFAR10_CLASSES,
    )  # fmt: skip


def _with_own_test(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], valid: int, seed: int, **named: Any
) -> Task:
    """Hold out a validation split of a training split, for data that brings its own test."""
    x, y = train
    if not 0 < valid < len(y):
        raise InvalidSetting(f"task.valid={valid} must be 1 to {len(y) - 1}")
    rest, held = stratified(y, (valid / len(y),), seed)
    return Task.of_classes(*in_memory((x[rest], y[rest]), (x[held], y[held]), test), **named)
