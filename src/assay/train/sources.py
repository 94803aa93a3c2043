"""Files of public data sets: fetched once, read as arrays."""

from __future__ import annotations

import gzip
import http.client
import math
import shutil
import struct
import tarfile
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assay.errors import InvalidTask

__all__ = ["cache_folder", "download", "read_cifar", "read_idx", "unpack"]

_TIMEOUT_S = 30
_CIFAR_ROW = 1 + 3 * 32 * 32


def cache_folder(name: str) -> Path:
    """Return the folder of a data set's downloaded files; it need not be there."""
    return Path.home() / ".cache" / "assay" / name


def download(url: str, path: Path) -> None:
    """Fetch a file unless it is there; it bears its name only when it is whole.

    Args:
        url: http, https or file.
        path: Where it is kept.
    Raises:
        InvalidTask: it cannot be fetched, or fewer bytes came than were announced.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source, part.open("wb") as sink:
            announced = source.headers.get("Content-Length")
            shutil.copyfileobj(source, sink, 1 << 20)
        if announced is not None and part.stat().st_size != int(announced):
            raise OSError(f"{part.stat().st_size} of {announced} bytes came")
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise InvalidTask(
            f"{url} cannot be downloaded ({error}); give the folder that holds the files by "
            "folder=..., on the command line --set task.folder=DIR"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Move the files of a tar archive into one folder, whatever their folders in it.

    Args:
        archive: A .tar.gz; removed, being of no more use.
        folder: Where they go; made if there is none.
    Raises:
        InvalidTask: the archive is broken; it will have to be fetched again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                source, path = tar.extractfile(member), folder / Path(member.name).name
                if source is not None:
                    part = path.with_name(path.name + ".part")
                    with part.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    part.replace(path)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidTask(f"{archive} was broken ({error}) and is removed; try again") from error
    finally:
        archive.unlink()


def read_idx(folder: Path, name: str) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not: magic 00 00 08 n, n sizes, the data.

    Args:
        folder: Holds `name`-ubyte.gz or `name`-ubyte.
        name: Such as "train-images-idx3".
    Returns:
        uint8 of the shape that the file states, such as `[N, H, W]`.
    Raises:
        InvalidTask: no such file, or a broken one.
    """
    for path in (folder / f"{name}-ubyte.gz", folder / f"{name}-ubyte"):
        if path.is_file():
            return _idx_array(_content(path), path)
    raise InvalidTask(f"{folder} has no {name}-ubyte.gz; give the folder of the IDX files")


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidTask(f"{path} is broken ({error}); remove it and fetch it again") from error


def _idx_array(data: bytes, path: Path) -> Tensor:
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise InvalidTask(f"{path} is no IDX file of bytes; remove it and fetch it again")
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != math.prod(shape):
        raise InvalidTask(f"{path} has {body.size} bytes for shape {shape}; fetch it again")
    return torch.from_numpy(body.reshape(shape).copy())


def read_cifar(path: Path) -> tuple[Tensor, Tensor]:
    """Read a file of CIFAR-10's binary version: rows of one label byte and 3 x 32 x 32 pixels.

    Args:
        path: Such as data_batch_1.bin.
    Returns:
        Images `[N, 3, 32, 32]` in uint8 and labels `[N]` in int64.
    Raises:
        InvalidTask: no such file, a broken one, or a label above 9.
    """
    if not path.is_file():
        raise InvalidTask(f"{path} is missing; give the folder of CIFAR-10's binary version")
    data = np.fromfile(path, np.uint8)
    if data.size == 0 or data.size % _CIFAR_ROW:
        raise InvalidTask(f"{path} is cut short: {data.size} bytes are no rows of {_CIFAR_ROW}")
    rows = torch.from_numpy(data.reshape(-1, _CIFAR_ROW))
    labels = rows[:, 0].long()
    if int(labels.max()) > 9:
        raise InvalidTask(f"{path} holds label {int(labels.max())}; CIFAR-10 has labels 0 to 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32).contiguous(), labels
