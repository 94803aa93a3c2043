"""Splits of arrays for classification: checked, divided by class, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from assay.cost import derive
from assay.errors import InvalidTask
from assay.train.given import as_tensor, refuse_empty
from assay.train.splits import InMemory

__all__ = ["Layout", "Normalise", "Splits", "divide", "in_memory", "stratified"]

Layout = Literal["NCHW", "NHWC", "NHW"]
"""Order of the axes of a batch of images."""

Splits: TypeAlias = tuple[InMemory, InMemory, InMemory]
"""Training, validation and test."""

_CHUNK = 2048


class Normalise:
    """Scales a batch by the mean and deviation of each channel of the training split.

    A channel that does not vary is only shifted.

    Args:
        inputs: Training inputs `[N, C, ...]` or features `[N, F]`, uint8 or float.
    """

    def __init__(self, inputs: Tensor) -> None:
        shape = [1, -1, *[1] * (inputs.ndim - 2)]
        mean, deviation = _moments(inputs)
        varies = deviation > 1e-6 * (1.0 + mean.abs())
        self.mean = mean.reshape(shape).float()
        self.deviation = torch.where(varies, deviation, 1.0).reshape(shape).float()
        self._held: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return a batch `[N, C, ...]` normalised, in torch's default type, on its own device."""
        device = inputs.device
        if device not in self._held:
            self._held[device] = (self.mean.to(device), self.deviation.to(device))
        mean, deviation = self._held[device]
        return ((inputs.float() - mean) / deviation).to(torch.get_default_dtype())

    def describe(self) -> dict[str, list[float]]:
        """Return "mean" and "deviation" of each channel, as JSON values."""
        kept = {"mean": self.mean, "deviation": self.deviation}
        return {name: tensor.flatten().tolist() for name, tensor in kept.items()}


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation `[C]` over all samples, in two passes of float64."""
    axes = [i for i in range(inputs.ndim) if i != 1]
    count = inputs.numel() / inputs.shape[1]
    mean = torch.stack([c.double().sum(axes) for c in torch.split(inputs, _CHUNK)]).sum(0) / count
    around = mean.reshape(1, -1, *[1] * (inputs.ndim - 2))
    squares = [(c.double() - around).square().sum(axes) for c in torch.split(inputs, _CHUNK)]
    return mean, (torch.stack(squares).sum(0) / count).sqrt()


def divide(
    images: Any,
    labels: Any,
    *,
    seed: int,
    valid: float,
    test: float,
    layout: Layout | None = None,
    normalise: bool = True,
) -> Splits:
    """Divide arrays into training, validation and test splits, each class alike.

    Args:
        images: `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or features `[N, F]`, uint8 or float.
        labels: Classes 0 .. K - 1, `[N]`.
        seed: Names the division.
        valid: Share of the samples to choose on.
        test: Share of the samples to test on.
        layout: Needed where the shape leaves NCHW or NHWC open.
        normalise: See `in_memory`.
    Returns:
        The three splits.
    Raises:
        InvalidTask: shapes that do not fit, an unclear layout, NaN pixels, labels out of range, an
            empty class, too few samples of a class for three splits.
    """
    x, y = _images(images, layout), _labels(labels)
    if len(x) != len(y):
        raise InvalidTask(f"{len(x)} images but {len(y)} labels; give one label for each image")
    if not (0 < valid < 1 and 0 < test < 1 and valid + test < 1):
        raise InvalidTask(f"shares valid={valid} and test={test} must leave samples to train on")
    train, held, last = ((x[i], y[i]) for i in stratified(y, (valid, test), seed))
    return in_memory(train, held, last, normalise=normalise)


def in_memory(
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    normalise: bool = True,
) -> Splits:
    """Return three splits in memory.

    Args:
        train: Inputs `[N, C, ...]` and classes `[N]`.
        valid: Likewise.
        test: Likewise.
        normalise: By the statistics of the first; otherwise uint8 becomes floats in 0 to 1.
    """
    prepare = Normalise(train[0]) if normalise else None
    a, b, c = (InMemory(x, y, prepare) for x, y in (train, valid, test))
    return a, b, c


def stratified(labels: Tensor, shares: Sequence[float], seed: int) -> list[Tensor]:
    """Divide samples at random, each class alike and each part in random order.

    Args:
        labels: Classes 0 .. K - 1, `[N]`.
        shares: Of each part that is held out; each gets one sample of every class or more.
        seed: Names the division.
    Returns:
        Indices of the rest (to train on), then of each part.
    Raises:
        InvalidTask: a class with too few samples for all parts.
    """
    rng = derive(seed, "split")
    parts: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(1 + len(shares))]
    for k in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels.numpy() == k))
        held = [max(1, round(share * len(members))) for share in shares]
        if len(members) < 1 + sum(held):
            raise InvalidTask(
                f"class {k} has {len(members)} samples, too few for {len(parts)} splits; add some"
            )
        *kept, rest = np.split(members, np.cumsum(held))
        for part, chosen in zip(parts, (rest, *kept)):
            part.append(chosen)
    return [torch.from_numpy(rng.permutation(np.concatenate(part))) for part in parts]


def _images(images: Any, layout: Layout | None) -> Tensor:
    x = as_tensor(images, "the images")
    if x.ndim < 2 or len(x) < 2:
        raise InvalidTask(
            f"images have shape {tuple(x.shape)}; give several samples [N, ...], from one image "
            "nothing can be learned"
        )
    if x.is_floating_point():
        bad = ~torch.isfinite(x).flatten(1).all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise InvalidTask(f"image {first} holds NaN or infinite pixels; clean or drop it")
    return _channels_first(x if x.dtype == torch.uint8 else x.float(), layout)


def _channels_first(x: Tensor, layout: Layout | None) -> Tensor:
    shape = tuple(x.shape)
    if x.ndim == 3 and layout in (None, "NHW"):
        return x[:, None]
    if x.ndim != 4 and layout is None:
        return x
    if x.ndim != 4 or layout not in (None, "NCHW", "NHWC"):
        raise InvalidTask(f"layout={layout!r} does not fit images of shape {shape}")
    first, last = shape[1] <= 4, shape[3] <= 4
    if layout is None and first == last:
        raise InvalidTask(
            f"images of shape {shape} can be NCHW or NHWC; say which by layout='NCHW' or 'NHWC'"
        )
    if layout == "NHWC" or (layout is None and last):
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def _labels(labels: Any) -> Tensor:
    y = as_tensor(labels, "the labels")
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise InvalidTask(
            f"labels have shape {tuple(y.shape)} and type {y.dtype}; give integer classes [N] (for "
            "other targets make a Task of your own splits, with loss=)"
        )
    y = y.long()
    if len(y) and int(y.min()) < 0:
        where = int((y < 0).nonzero()[0])
        raise InvalidTask(f"label {int(y[where])} of sample {where} is out of range; begin at 0")
    num_classes = int(y.max()) + 1 if len(y) else 0
    if num_classes < 2:
        raise InvalidTask("all labels are 0; classification needs two or more classes")
    refuse_empty(y, num_classes, "sample")
    return y
