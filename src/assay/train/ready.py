"""Ready tasks by name."""

from __future__ import annotations

import gzip
import importlib
import struct
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.cost import derive
from assay.errors import InvalidTask, nearest
from assay.train.arrays import in_memory
from assay.train.augment import ShiftAndFlip
from assay.train.task import Task

__all__ = ["READY", "cifar10", "digits", "fashion_mnist", "load_task"]

READY: Mapping[str, str] = {
    "digits": "assay.train.ready:digits",
    "fashion-mnist": "assay.train.ready:fashion_mnist",
    "cifar10": "assay.train.ready:cifar10",
}
"""Name -> "module:function"."""

FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_TIMEOUT_S = 30


def load_task(name: str, **options: Any) -> Task:
    """Make a ready task.

    Args:
        name: "digits", "fashion-mnist" or "cifar10".
        options: Its keyword arguments.
    Raises:
        InvalidTask: an unknown name or option; data that is neither here nor to be had.
    """
    if name not in READY:
        raise InvalidTask(f"unknown task {name!r}; {nearest(name, READY)}")
    module, _, function = READY[name].partition(":")
    try:
        made = getattr(importlib.import_module(module), function)(**options)
    except TypeError as error:
        raise InvalidTask(f"task {name!r} does not take {sorted(options)}: {error}") from error
    assert isinstance(made, Task)
    return made


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
    """70,000 pictures of clothes, 28x28 grey (Xiao et al. 2017, arXiv:1708.07747); its own test.

    Args:
        folder: With the four IDX files, gzipped or not; by default where Debian's package
            dataset-fashion-mnist puts them, and else they are downloaded.
        valid: How many of the 60,000 training pictures to choose on.
        seed: Names that choice.
    """
    root = Path(folder) if folder is not None else _DEBIAN if _DEBIAN.is_dir() else None
    if root is None:
        root = _cache("fashion-mnist")
        for part in (
            "train-images-idx3",
            "train-labels-idx1",
            "t10k-images-idx3",
            "t10k-labels-idx1",
        ):
            _download(f"{FASHION_URL}/{part}-ubyte.gz", root / f"{part}-ubyte.gz")
    x, y = _idx(root, "train-images-idx3"), _idx(root, "train-labels-idx1").long()
    test = _idx(root, "t10k-images-idx3")[:, None], _idx(root, "t10k-labels-idx1").long()
    train, held = _hold_out(x[:, None], y, valid, seed)
    splits = in_memory(train, held, test)
    augment = ShiftAndFlip(shift=2, flip=True)
    return Task.of_classes(*splits, augment=augment, name="fashion-mnist")


def cifar10(*, folder: str | Path | None = None, valid: int = 5000, seed: int = 0) -> Task:
    """60,000 pictures of ten classes, 32x32 colour (Krizhevsky 2009), in the binary version.

    Args:
        folder: With data_batch_1.bin .. 5 and test_batch.bin; by default they are downloaded.
        valid: How many of the 50,000 training pictures to choose on.
        seed: Names that choice.
    """
    root = Path(folder) if folder is not None else _cache("cifar10") / "cifar-10-batches-bin"
    if folder is None and not root.is_dir():
        archive = _cache("cifar10") / "cifar-10-binary.tar.gz"
        _download(CIFAR10_URL, archive)
        with tarfile.open(archive) as tar:
            tar.extractall(archive.parent, filter="data")
    parts = [_cifar_file(root / f"data_batch_{i}.bin") for i in range(1, 6)]
    x, y = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    train, held = _hold_out(x, y, valid, seed)
    test = _cifar_file(root / "test_batch.bin")
    splits = in_memory(train, held, test)
    return Task.of_classes(*splits, augment=ShiftAndFlip(shift=4, flip=True), name="cifar10")


def _hold_out(
    x: Tensor, y: Tensor, count: int, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    if not 0 < count < len(y):
        raise InvalidTask(f"valid={count} must be 1 to {len(y) - 1}")
    order = torch.from_numpy(derive(seed, "split").permutation(len(y)))
    held, rest = order[:count], order[count:]
    return (x[rest], y[rest]), (x[held], y[held])


def _idx(folder: Path, name: str) -> Tensor:
    """Read an IDX file of unsigned bytes: magic 00 00 08 n, n sizes, then the data."""
    for path in (folder / f"{name}-ubyte.gz", folder / f"{name}-ubyte"):
        if path.is_file():
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            return _idx_array(data, path)
    raise InvalidTask(f"{folder} has no {name}-ubyte.gz; give the folder of the IDX files")


def _idx_array(data: bytes, path: Path) -> Tensor:
    if len(data) < 8 or data[:3] != b"\x00\x00\x08":
        raise InvalidTask(f"{path} is no IDX file of bytes; download it again")
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != int(np.prod(shape)):
        raise InvalidTask(f"{path} is cut short: {body.size} bytes for shape {shape}")
    return torch.from_numpy(body.reshape(shape).copy())


def _cifar_file(path: Path) -> tuple[Tensor, Tensor]:
    """Read rows of one label byte and 3 x 32 x 32 pixels."""
    if not path.is_file():
        raise InvalidTask(f"{path} is missing; give the folder of CIFAR-10's binary version")
    data = np.fromfile(path, np.uint8)
    if data.size == 0 or data.size % 3073:
        raise InvalidTask(f"{path} is cut short: {data.size} bytes are no rows of 3,073")
    rows = torch.from_numpy(data.reshape(-1, 3073))
    return rows[:, 1:].reshape(-1, 3, 32, 32).contiguous(), rows[:, 0].long()


def _cache(name: str) -> Path:
    return Path.home() / ".cache" / "assay" / name


def _download(url: str, path: Path) -> None:
    """Fetch a file once, under a temporary name until it is whole."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source, part.open("wb") as sink:
            while block := source.read(1 << 20):
                sink.write(block)
    except OSError as error:
        raise InvalidTask(
            f"{url} cannot be downloaded ({error}); give the folder of the files by folder="
        ) from error
    part.replace(path)
