"""Splits of arrays for classification: checked, divided by class, normalised."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from assay.cost import derive
from assay.errors import InvalidTask
from assay.train.splits import InMemory

__all__ = ["Layout", "Normalise", "divide", "in_memory"]

Layout = Literal["NCHW", "NHWC", "NHW"]
"""Order of the axes of a batch of images."""

Splits: TypeAlias = tuple[InMemory, InMemory, InMemory]


class Normalise:
    """Scales a batch by the mean and deviation of each channel of the training split.

    Args:
        inputs: Training inputs `[N, C, ...]`, uint8 or float; other ranks have one channel.
    """

    def __init__(self, inputs: Tensor) -> None:
        axes = (
            [i for i in range(inputs.ndim) if i != 1]
            if inputs.ndim > 2
            else list(range(inputs.ndim))
        )
        chunk = inputs[:10_000].double()
        shape = [1, -1, *[1] * (inputs.ndim - 2)] if inputs.ndim > 2 else [1] * inputs.ndim
        self.mean = chunk.mean(axes).reshape(shape).float()
        self.deviation = chunk.std(axes, correction=0).clamp(min=1e-6).reshape(shape).float()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the batch as normalised float32."""
        mean, deviation = self.mean.to(inputs.device), self.deviation.to(inputs.device)
        return (inputs.float() - mean) / deviation


def divide(
    images: Any,
    labels: Any,
    *,
    seed: int,
    valid: float,
    test: float,
    layout: Layout | None = None,
) -> Splits:
    """Divide arrays into training, validation and test splits, each class alike.

    Args:
        images: `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or features `[N, F]`, uint8 or float.
        labels: Classes 0 .. K - 1, `[N]`.
        seed: Names the division.
        valid: Share of the samples to choose on.
        test: Share of the samples to test on.
        layout: Needed where the shape leaves NCHW or NHWC open.
    Returns:
        The three splits, normalised by the first.
    Raises:
        InvalidTask: shapes that do not fit, an unclear layout, NaN pixels, labels out of range, an
            empty class, too few samples of a class for three splits.
    """
    x, y = _images(images, layout), _labels(labels)
    if len(x) != len(y):
        raise InvalidTask(f"{len(x)} images but {len(y)} labels; give one label for each image")
    if not (0 < valid < 1 and 0 < test < 1 and valid + test < 1):
        raise InvalidTask(f"shares valid={valid} and test={test} must leave samples to train on")
    held = [(x[i], y[i]) for i in _by_class(y, (valid, test), seed)]
    return in_memory(held[0], held[1], held[2])


def in_memory(
    train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> Splits:
    """Return three splits in memory, normalised by the statistics of the first.

    Args:
        train: Inputs `[N, C, ...]` and classes `[N]`.
        valid: Likewise.
        test: Likewise.
    """
    prepare = Normalise(train[0])
    a, b, c = (InMemory(x, y, prepare) for x, y in (train, valid, test))
    return a, b, c


def _images(images: Any, layout: Layout | None) -> Tensor:
    try:
        x = torch.as_tensor(np.asarray(images))
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"images cannot be read as one array: {error}") from error
    if x.ndim < 2 or len(x) < 2:
        raise InvalidTask(
            f"images have shape {tuple(x.shape)}; give several samples [N, ...], for one image "
            "there is nothing to learn from"
        )
    if x.is_floating_point():
        bad = ~torch.isfinite(x).flatten(1).all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise InvalidTask(f"image {first} holds NaN or infinite pixels; clean or drop it")
        x = x.float()
    elif x.dtype != torch.uint8:
        x = x.float()
    return _channels_first(x, layout)


def _channels_first(x: Tensor, layout: Layout | None) -> Tensor:
    shape = tuple(x.shape)
    if x.ndim == 3 and layout in (None, "NHW"):
        return x[:, None]
    if x.ndim != 4:
        if layout is not None:
            raise InvalidTask(f"layout {layout!r} does not fit images of shape {shape}")
        return x
    first, last = shape[1] <= 4, shape[3] <= 4
    if layout is None and first == last:
        raise InvalidTask(
            f"images of shape {shape} can be NCHW or NHWC; say which by layout='NCHW' or 'NHWC'"
        )
    if layout == "NHWC" or (layout is None and last):
        return x.permute(0, 3, 1, 2).contiguous()
    if layout in (None, "NCHW"):
        return x
    raise InvalidTask(f"layout {layout!r} does not fit images of shape {shape}")


def _labels(labels: Any) -> Tensor:
    y = torch.as_tensor(np.asarray(labels))
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise InvalidTask(
            f"labels have shape {tuple(y.shape)} and type {y.dtype}; give integer classes [N]"
        )
    y = y.long()
    if int(y.min()) < 0:
        where = int((y < 0).nonzero()[0])
        raise InvalidTask(f"label {int(y[where])} of sample {where} is out of range; begin at 0")
    counts = torch.bincount(y)
    if len(counts) < 2:
        raise InvalidTask("all labels are 0; classification needs two or more classes")
    if bool((counts == 0).any()):
        empty = int((counts == 0).nonzero()[0])
        raise InvalidTask(
            f"class {empty} of 0..{len(counts) - 1} is empty; number the classes without gaps"
        )
    return y


def _by_class(y: Tensor, shares: tuple[float, float], seed: int) -> list[Tensor]:
    """Return indices of train, valid and test, each class divided alike, each in random order."""
    rng = derive(seed, "split")
    parts: list[list[np.ndarray[Any, Any]]] = [[], [], []]
    for k in range(int(y.max()) + 1):
        members = rng.permutation(np.flatnonzero(y.numpy() == k))
        held = [max(1, round(share * len(members))) for share in shares]
        if len(members) < 1 + sum(held):
            raise InvalidTask(
                f"class {k} has {len(members)} samples, too few for three splits; add some"
            )
        valid, test, train = np.split(members, np.cumsum(held))
        for part, chosen in zip(parts, (train, valid, test)):
            part.append(chosen)
    return [torch.from_numpy(rng.permutation(np.concatenate(part))) for part in parts]
