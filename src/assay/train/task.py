"""What is learned: splits, loss, metrics, and the score that ranks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidTask, TestSplitClosed, nearest
from assay.train.arrays import Layout, Normalise, divide
from assay.train.content import digest_of, named
from assay.train.folder import read_folder
from assay.train.given import (
    as_split,
    check_classes,
    check_measures,
    check_paired,
    check_range,
    check_scalar,
    placed,
)
from assay.train.modes import evaluating
from assay.train.splits import Batch, InMemory, Inputs, Split, evened, map_tensors

__all__ = ["Batch", "Inputs", "Split", "Tally", "Task", "call_model", "evaluate"]

Metric: TypeAlias = Callable[[Any, Tensor], Tensor]
Augment: TypeAlias = Callable[[Any, torch.Generator], Any]


class Task:
    """Splits, loss, metrics, the score that ranks, augmentation.

    Inputs are a tensor, or a tuple (passed by position) or dict (by keyword) of tensors, of any
    rank; uint8 becomes floats in 0 to 1 and floats become float32, other integers stay. Targets
    are any tensor: integers become int64, floats float32.

    Args:
        train: Split to learn from: `(inputs, targets)` tensors or arrays `[N, ...]`, a map-style
            `Dataset` of `(inputs, target)`, a `DataLoader`, or a `Split`.
        valid: Split to choose on.
        test: Split that the finalists' step opens once; None for none.
        loss: loss(output, targets) -> scalar mean; by default cross-entropy on integer classes.
        metrics: Name -> metric(output, targets) -> mean over the batch, or one value a sample
            `[N]`; by default accuracy on integer classes.
        score: Metric or "loss" that ranks, "-" in front where lower is better; by default
            "accuracy", or "-loss" where there is none.
        augment: augment(inputs, generator) -> inputs, on training batches, on their device.
        name: What reports call it.
        num_classes: Number of classes, where the targets are classes; by default as many as the
            training labels reach, where these are in memory.
        class_names: Names of classes 0 .. K - 1, for reports.
    Raises:
        InvalidTask: an empty split, NaN inputs, labels out of range, an empty class, an unknown
            score, no loss, a loss or metric that is no function, or whose name is taken.
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
        class_names: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.train = as_split(train, "train")
        self.valid = as_split(valid, "valid")
        self._test = None if test is None else as_split(test, "test")
        self._test_open = False
        self.classes = loss is None
        self.num_classes = self._check_targets(num_classes) if loss is None else num_classes
        self.class_names = tuple(class_names)
        self.loss = loss if loss is not None else F.cross_entropy
        self.metrics: dict[str, Metric] = dict(
            metrics or ({"accuracy": accuracy} if self.classes else {})
        )
        check_measures(self.loss, self.metrics)
        self.score = score or ("accuracy" if "accuracy" in self.metrics else "-loss")
        ranking, known = self.score.removeprefix("-"), [*self.metrics, "loss"]
        if ranking not in known:
            raise InvalidTask(f"unknown score {self.score!r}; {nearest(ranking, known)}")
        self.augment = augment

    def _check_targets(self, num_classes: int | None) -> int | None:
        """Return the number of classes, where there is no loss but the default's."""
        _, targets = next(self.valid.batches(1, limit=1))
        if targets.is_floating_point():
            raise InvalidTask(
                "targets are floats, for which there is no default loss; pass loss=, such as "
                "torch.nn.functional.mse_loss"
            )
        splits = {"train": self.train, "valid": self.valid, "test": self._test}
        given = {name: split for name, split in splits.items() if split is not None}
        return check_classes(given, num_classes)

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
        normalise: bool = True,
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
            normalise: By mean and deviation of each channel (or feature) of the training split;
                otherwise uint8 becomes floats in 0 to 1.
            name: What reports call it.
        Raises:
            InvalidTask: shapes that do not fit, an unclear layout, NaN pixels, labels out of
                range, an empty class, too few samples of a class for three splits.
        """
        splits = divide(
            images, labels, seed=seed, valid=valid, test=test, layout=layout, normalise=normalise
        )
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
        images, labels, names = read_folder(folder, size=size)
        splits = divide(images, labels, seed=seed, valid=valid, test=test, layout="NHWC")
        name = Path(folder).resolve().name
        return cls.of_classes(*splits, augment=augment, name=name, class_names=names)

    @classmethod
    def of_classes(
        cls,
        train: InMemory,
        valid: InMemory,
        test: InMemory,
        *,
        augment: Augment | None,
        name: str,
        class_names: Sequence[str] = (),
    ) -> Task:
        """Make a classification task of splits in memory.

        Args:
            train: Inputs `[N, ...]` and classes `[N]`, each class present.
            valid: Likewise.
            test: Likewise.
            augment: Augmentation of training batches, or None.
            name: What reports call it.
            class_names: Names of classes 0 .. K - 1.
        """
        return cls(train, valid, test, augment=augment, name=name, class_names=class_names)

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

    def close_test(self) -> None:
        """Close the test split again: another search begins."""
        self._test_open = False

    @property
    def labels_known(self) -> bool:
        """Whether every label of the splits has been read and found in range."""
        splits = (self.train, self.valid, self._test)
        return all(split is None or isinstance(split, InMemory) for split in splits)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return self._test is not None

    def example(self, n: int = 1, device: str = "cpu") -> Any:
        """Return n validation inputs `[n, ...]` as a network sees them.

        Samples are repeated where the split has fewer, or where it has batches of its own that
        differ in shape, and the first has fewer.

        Raises:
            InvalidTask: the split yields none.
        """
        batches = evened(self.valid.batches(n, device=device, limit=n), n)
        if not batches:
            raise InvalidTask("the validation split is empty")
        inputs, targets = batches[0]
        if len(targets) == n:
            return inputs
        again = torch.arange(n) % len(targets)
        return map_tensors(inputs, lambda t: t[again])

    def on(self, batch: Batch) -> Task:
        """Return the task on one batch in place of its splits, small enough to be sent anywhere."""
        split = InMemory(*batch)
        return self.over(split, split)

    def over(self, train: Split, valid: Split) -> Task:
        """Return the task on other samples, without a test split."""
        other = copy.copy(self)
        other.train, other.valid, other._test = train, valid, None
        return other

    def training_loss(self, output: Any, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the loss that training descends: the task's, smoothed if it is the default.

        Raises:
            InvalidTask: it is no scalar.
        """
        if label_smoothing and self.loss is F.cross_entropy:
            return F.cross_entropy(output, targets, label_smoothing=label_smoothing)
        return check_scalar(placed(self.loss, targets)(output, targets))

    def check_output(self, output: Any, targets: Tensor) -> None:
        """Refuse a network whose output does not fit the targets, and labels out of range.

        Args:
            output: Of the network on a batch; logits `[N, classes, ...]` are wanted.
            targets: Of the batch, `[N, ...]`.
        Raises:
            InvalidTask: the output is no tensor of such a shape, or has too few classes; a label
                that was not known before (see `labels_known`) is out of range; a loss or metric of
                the user's own broadcasts.
        """
        if not self.classes:
            check_paired({"loss": self.loss, **self.metrics}, output, targets)
            return
        shape = tuple(getattr(output, "shape", ()))
        if len(shape) < 2 or shape[:1] + shape[2:] != tuple(targets.shape):
            what = list(shape) if shape else type(output).__name__
            raise InvalidTask(
                f"the network gives {what} for targets {list(targets.shape)}; give logits "
                "[N, classes, ...], or pass loss= to the Task"
            )
        if not self.labels_known:
            check_range(targets, "a batch's sample", self.num_classes)
        needed = self.num_classes or int(targets.max()) + 1
        if shape[1] < needed:
            raise InvalidTask(
                f"the network has {shape[1]} outputs, but labels go up to {needed - 1}; give it "
                f"{needed} outputs"
            )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the batches in a pass over the training split; a DataLoader has its own number."""
        own: int | None = getattr(self.train, "num_batches", None)
        return own or max(1, len(self.train) // min(batch_size, len(self.train)))

    def score_of(self, figures: Mapping[str, float]) -> float:
        """Return the score of some figures, higher always better."""
        sign = -1.0 if self.score.startswith("-") else 1.0
        return sign * figures[self.score.removeprefix("-")]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of splits, loss, metrics, score and augmentation, as it is first asked for."""
        metrics = {name: named(metric) for name, metric in sorted(self.metrics.items())}
        augment = None if self.augment is None else named(self.augment)
        splits = (self.train, self.valid, self._test)
        return digest_of(*splits, self.score, metrics, named(self.loss), augment)

    def describe(self) -> dict[str, Any]:
        """Return name, sizes, score, classes and how inputs are prepared, as JSON values."""
        prepare = getattr(self.train, "prepare", None)
        normalised = prepare.describe() if isinstance(prepare, Normalise) else None
        return {
            "name": self.name,
            "train": len(self.train),
            "valid": len(self.valid),
            "test": len(self._test) if self._test is not None else 0,
            "score": self.score,
            "classes": self.num_classes,
            "class_names": list(self.class_names),
            "normalised": normalised,
            "augment": None if self.augment is None else named(self.augment),
        }


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
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
        """Count a batch.

        Raises:
            InvalidTask: a label that was not known before is out of range.
        """
        n = len(targets)
        if self._task.classes and not self._task.labels_known:
            self._task.check_output(output, targets)
        self._samples += n
        for name, metric in (("loss", self._task.loss), *self._task.metrics.items()):
            figure = placed(metric, targets)(output, targets)
            total = torch.as_tensor(figure).double().mean() * n
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def means(self) -> dict[str, float]:
        """Return the means so far; NaN where nothing was counted."""
        n = self._samples
        return {k: float(v) / n if n else math.nan for k, v in self._sums.items()}


def evaluate(module: nn.Module, batches: Iterable[Batch], task: Task) -> dict[str, float]:
    """Return the means of "loss" and the metrics; every module is left in its mode.

    Args:
        module: In eval mode for the time being.
        batches: `(inputs, targets)` on the module's device.
        task: Names loss and metrics.
    """
    tally = Tally(task)
    with evaluating(module), torch.no_grad():
        for inputs, targets in batches:
            tally.add(call_model(module, inputs), targets)
    return tally.means()
