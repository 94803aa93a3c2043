"""What is learned: splits, loss, metrics, and the score that ranks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from assay.errors import InvalidTask, TestSplitClosed, nearest
from assay.train.arrays import Layout, divide
from assay.train.folder import read_folder
from assay.train.splits import Batch, InMemory, Inputs, Loaded, Split, Streamed, map_tensors

__all__ = ["Batch", "Inputs", "Split", "Tally", "Task", "call_model", "evaluate"]

Metric: TypeAlias = Callable[[Any, Tensor], Tensor]
Augment: TypeAlias = Callable[[Any, torch.Generator], Any]


class Task:
    """Splits, loss, metrics, the score that ranks, augmentation.

    Args:
        train: Split to learn from: `(inputs, targets)` arrays or tensors `[N, ...]`, a map-style
            `Dataset` of `(inputs, target)`, a `DataLoader`, or a `Split`. Inputs are a tensor, or
            a tuple (passed by position) or dict (by keyword) of tensors, of any rank.
        valid: Split to choose on.
        test: Split that the finalists' step opens once; None for none.
        loss: loss(output, targets) -> scalar mean; by default cross-entropy on integer classes.
        metrics: Name -> metric(output, targets) -> mean over the batch, or one value a sample
            `[N]`; by default accuracy on integer classes.
        score: Metric or "loss" that ranks, "-" in front where lower is better; by default
            "accuracy", or "-loss" where there is none.
        augment: augment(inputs, generator) -> inputs, on training batches, on their device.
        name: What reports call it.
        num_classes: Number of classes, where the targets are classes.
    Raises:
        InvalidTask: an empty split, NaN inputs, labels out of range, an unknown score, no loss.
    """

    def __init__(
        self,
        train: Any,
        valid: Any,
        test: Any = None,
        *,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        score: str | None = None,
        augment: Augment | None = None,
        name: str = "custom",
        num_classes: int | None = None,
    ) -> None:
        self.name = name
        self.train = as_split(train, "train")
        self.valid = as_split(valid, "valid")
        self._test = None if test is None else as_split(test, "test")
        self._test_open = False
        _, targets = next(self.valid.batches(1))
        classes = not targets.is_floating_point() and loss is None
        if loss is None and not classes:
            raise InvalidTask(
                "targets are floats, for which there is no default loss; pass loss=, such as "
                "torch.nn.functional.mse_loss"
            )
        self.classes = classes
        self.num_classes = num_classes
        self.loss = loss if loss is not None else F.cross_entropy
        self.metrics: dict[str, Metric] = dict(
            metrics or ({"accuracy": accuracy} if classes else {})
        )
        self.score = score or ("accuracy" if "accuracy" in self.metrics else "-loss")
        if self.score.lstrip("-") not in {*self.metrics, "loss"}:
            known = nearest(self.score.lstrip("-"), [*self.metrics, "loss"])
            raise InvalidTask(f"unknown score {self.score!r}; {known}")
        self.augment = augment

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        seed: int = 0,
        valid: float = 0.1,
        test: float = 0.1,
        layout: Layout | None = None,
        augment: Augment | None = None,
        name: str = "arrays",
    ) -> Task:
        """Make a classification task of arrays, divided by class with a seed and normalised.

        Args:
            images: `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or features `[N, F]`; uint8 or
                float.
            labels: Classes 0 .. K - 1, `[N]`.
            seed: Names the division.
            valid: Share of the samples to choose on.
            test: Share of the samples to test on.
            layout: "NCHW", "NHWC" or "NHW"; needed where the shape leaves it open.
            augment: Augmentation of training batches.
            name: What reports call it.
        Raises:
            InvalidTask: shapes that do not fit, an unclear layout, NaN pixels, labels out of
                range, an empty class, too few samples of a class for three splits.
        """
        splits = divide(images, labels, seed=seed, valid=valid, test=test, layout=layout)
        return cls.of_classes(*splits, augment=augment, name=name)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        size: int = 32,
        seed: int = 0,
        valid: float = 0.15,
        test: float = 0.15,
        augment: Augment | None = None,
    ) -> Task:
        """Make a classification task of `folder/CLASS/*.png`, all kept in memory.

        Args:
            folder: Has one sub-folder of images for each class.
            size: Side in pixels that their centre squares are resized to.
            seed: Names the division.
            valid: Share of the images to choose on.
            test: Share of the images to test on.
            augment: Augmentation of training batches.
        Raises:
            InvalidTask: no folder, fewer than two classes, an empty class, a broken picture.
        """
        images, labels = read_folder(folder, size=size)
        splits = divide(images, labels, seed=seed, valid=valid, test=test, layout="NHWC")
        return cls.of_classes(*splits, augment=augment, name=Path(folder).name)

    @classmethod
    def of_classes(
        cls, train: InMemory, valid: InMemory, test: InMemory, *, augment: Any, name: str
    ) -> Task:
        """Make a classification task of splits in memory.

        Args:
            train: Inputs `[N, ...]` and classes `[N]`, each class present.
            valid: Likewise.
            test: Likewise.
            augment: Augmentation of training batches, or None.
            name: What reports call it.
        """
        classes = int(train.targets.max()) + 1
        return cls(train, valid, test, augment=augment, name=name, num_classes=classes)

    @property
    def test(self) -> Split:
        """The test split, once it has been opened.

        Raises:
            TestSplitClosed: it has not.
        """
        if not self._test_open:
            raise TestSplitClosed(
                "the test split opens once, in the finalists' step; use task.valid to choose"
            )
        assert self._test is not None
        return self._test

    def open_test(self) -> Split:
        """Open the test split and return it; a task without one gives its validation split."""
        if self._test is None:
            return self.valid
        self._test_open = True
        return self._test

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return self._test is not None

    def example(self, n: int = 1, device: str = "cpu") -> Any:
        """Return the first n validation inputs `[n, ...]` as a network sees them.

        Raises:
            InvalidTask: the split yields none.
        """
        for inputs, _ in self.valid.batches(n, device=device, limit=n):
            return inputs
        raise InvalidTask("the validation split is empty")

    def training_loss(self, output: Any, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the loss that training descends: the task's, smoothed if it is the default."""
        if label_smoothing and self.loss is F.cross_entropy:
            return F.cross_entropy(output, targets, label_smoothing=label_smoothing)
        return self.loss(output, targets)

    def score_of(self, figures: Mapping[str, float]) -> float:
        """Return the score of some figures, higher always better."""
        sign = -1.0 if self.score.startswith("-") else 1.0
        return sign * figures[self.score.lstrip("-")]

    @property
    def fingerprint(self) -> str:
        """Hex digest of the sizes and content of the splits, the score and the metrics' names."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.score, sorted(self.metrics))).encode())
        for split in (self.train, self.valid, self._test):
            _digest(split, digest)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return name, sizes and score as JSON values."""
        return {
            "name": self.name,
            "train": len(self.train),
            "valid": len(self.valid),
            "test": len(self._test) if self._test is not None else 0,
            "score": self.score,
            "classes": self.num_classes,
        }


def as_split(given: Any, name: str) -> Split:
    """Return arrays, a Dataset or a DataLoader as a split.

    Raises:
        InvalidTask: it is none of these, or empty.
    """
    split: Split
    if isinstance(given, tuple) and len(given) == 2:
        inputs = map_tensors(_tensors(given[0]), lambda t: t)
        split = InMemory(inputs, torch.as_tensor(given[1]))
    elif isinstance(given, DataLoader):
        split = Loaded(given)
    elif isinstance(given, Dataset):
        split = Streamed(given)
    elif hasattr(given, "batches"):
        split = given
    else:
        raise InvalidTask(
            f"the {name} split is a {type(given).__name__}; give (inputs, targets), a map-style "
            "Dataset or a DataLoader"
        )
    if len(split) < 1:
        raise InvalidTask(f"the {name} split is empty; it needs at least one sample")
    return split


def _tensors(inputs: Any) -> Any:
    if isinstance(inputs, tuple | list):
        return tuple(_tensors(item) for item in inputs)
    if isinstance(inputs, dict):
        return {key: _tensors(item) for key, item in inputs.items()}
    tensor = torch.as_tensor(inputs)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        where = (
            int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0]) if tensor.ndim > 1 else 0
        )
        raise InvalidTask(
            f"inputs hold NaN or infinite values, first in sample {where}; clean them"
        )
    return tensor


def _digest(split: Split | None, digest: Any) -> None:
    if split is None:
        return
    digest.update(str(len(split)).encode())
    if isinstance(split, InMemory):
        map_tensors(split.inputs, lambda t: (digest.update(_bytes(t)), t)[1])
        digest.update(_bytes(split.targets))
    elif isinstance(split, Streamed):
        for index in (0, len(split) - 1):
            inputs, targets = split.fetch(torch.tensor([index]), "cpu")
            map_tensors(inputs, lambda t: (digest.update(_bytes(t)), t)[1])
            digest.update(_bytes(targets))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a model on a tensor, a tuple (by position) or a dict (by keyword) of tensors."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def accuracy(output: Tensor, targets: Tensor) -> Tensor:
    """Return whether each prediction is right, as floats `[N, ...]`.

    Args:
        output: Logits `[N, classes, ...]`.
        targets: Classes `[N, ...]`.
    """
    return (output.argmax(1) == targets).float()


class Tally:
    """Means of the loss and the metrics over the samples of many batches.

    Args:
        task: Names them.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._samples = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, output: Any, targets: Tensor) -> None:
        """Count a batch."""
        n = len(targets)
        self._samples += n
        for name, metric in (("loss", self._task.loss), *self._task.metrics.items()):
            total = metric(output, targets).double().mean() * n
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def means(self) -> dict[str, float]:
        """Return the means so far; NaN where nothing was counted."""
        n = self._samples
        return {k: float(v) / n if n else math.nan for k, v in self._sums.items()}


def evaluate(module: nn.Module, batches: Iterable[Batch], task: Task) -> dict[str, float]:
    """Return the means of "loss" and the metrics; the module is left in its mode.

    Args:
        module: In eval mode for the time being.
        batches: `(inputs, targets)` on the module's device.
        task: Names loss and metrics.
    """
    mode = module.training
    module.eval()
    tally = Tally(task)
    with torch.no_grad():
        for inputs, targets in batches:
            tally.add(call_model(module, inputs), targets)
    module.train(mode)
    return tally.means()
