"""What a user gives as data, checked and made into splits."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from assay.errors import InvalidTask, reason
from assay.train.splits import InMemory, Loaded, Split, Streamed, drawing, leaves

__all__ = [
    "as_split",
    "as_tensor",
    "check_classes",
    "check_measures",
    "check_paired",
    "check_range",
    "check_scalar",
    "placed",
    "refuse_empty",
]

_LEAST = {"train": 2}
_OWN_FIGURES = ("loss", "training_s")


def as_split(given: Any, name: str) -> Split:
    """Return arrays, a Dataset or a DataLoader as a split; a split is returned as it is.

    Args:
        given: `(inputs, targets)` with tensors or arrays `[N, ...]`, a map-style `Dataset`, a
            `DataLoader` over one, or a `Split`.
        name: What messages call it: "train", "valid" or "test".
    Raises:
        InvalidTask: it is none of these, empty, of unequal lengths, holds NaN, its batches are no
            pairs of tensors, or its draws cannot be repeated.
    """
    split: Split
    if isinstance(given, DataLoader):
        _refuse_stream(given.dataset, name)
        if _num_batches(given, name) < 1:
            raise InvalidTask(f"the {name} DataLoader has no batch; lower its batch size")
        if given.persistent_workers:  # whose draws would hang on what was read before
            raise InvalidTask(
                f"the {name} DataLoader has persistent_workers=True, whose draws go on from epoch "
                "to epoch; make it with persistent_workers=False"
            )
        split = Loaded(given)
    elif isinstance(given, Dataset):
        _refuse_stream(given, name)
        split = Streamed(given)
    elif isinstance(given, tuple | list) and len(given) == 2:
        split = _in_memory(given[0], given[1], name)
    elif hasattr(given, "train_batches") and hasattr(given, "batches"):
        split = given
    else:
        raise InvalidTask(
            f"the {name} split is a {type(given).__name__}; give (inputs, targets), a map-style "
            "Dataset or a DataLoader"
        )
    least = _LEAST.get(name, 1)
    if len(split) < least:
        raise InvalidTask(f"the {name} split has {len(split)} samples; it needs at least {least}")
    if isinstance(split, Streamed):
        _check_item(split, name)
    if isinstance(split, Loaded):
        _check_batch(split, name)
    return split


def as_tensor(given: Any, what: str) -> Tensor:
    """Return an array as a tensor `[...]`, without a copy where torch can share its memory.

    Args:
        given: An array, tensor, or nested sequence of numbers.
        what: What messages call it.
    Raises:
        InvalidTask: it is not one array of numbers.
    """
    if isinstance(given, Tensor):
        return _signed(given.detach().cpu())
    try:
        array = np.asarray(given)
        if array.dtype.byteorder not in ("=", "|", "<" if sys.byteorder == "little" else ">"):
            array = array.astype(array.dtype.newbyteorder("="))
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()  # torch shares neither read-only nor backward arrays
        return _signed(torch.from_numpy(np.atleast_1d(array)))
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"{what} cannot be read as one array of numbers: {error}") from error


def _signed(tensor: Tensor) -> Tensor:
    """Make unsigned integers of more than 8 bits int64: torch computes with none of them."""
    unsigned = tensor.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return tensor.long() if unsigned else tensor


def check_classes(splits: Mapping[str, Split], num_classes: int | None) -> int | None:
    """Check the labels of splits in memory, and return the number of classes where it is known.

    Args:
        splits: Name -> split; "train" among them.
        num_classes: As the user gave it; otherwise what the training labels reach. Labels that are
            read from elsewhere are checked batch by batch, see `check_range`.
    Raises:
        InvalidTask: a label out of range, a class without a training sample, only one class.
    """
    train = splits["train"]
    if num_classes is None and isinstance(train, InMemory):
        num_classes = int(train.targets.max()) + 1
    if num_classes is not None and num_classes < 2:
        raise InvalidTask(
            f"there is {num_classes} class; classification needs two or more (pass loss= for "
            "another kind of task)"
        )
    for name, split in splits.items():
        if isinstance(split, InMemory):
            check_range(split.targets, f"{name} sample", num_classes)
    if isinstance(train, InMemory) and train.targets.ndim == 1 and num_classes is not None:
        refuse_empty(train.targets, num_classes, "training sample")
    return num_classes


def refuse_empty(labels: Tensor, num_classes: int, what: str) -> None:
    """Refuse labels that leave out a class.

    Args:
        labels: Classes in 0 .. num_classes - 1, `[N]`.
        num_classes: How many there should be.
        what: What a message calls one of them.
    Raises:
        InvalidTask: a class has none; the first such is named.
    """
    present = torch.unique(labels)  # sorted; never as long as a label is large
    if len(present) < num_classes:
        expected = torch.arange(len(present), device=present.device)
        gaps = (present != expected).nonzero()
        empty = int(gaps[0]) if len(gaps) else len(present)
        raise InvalidTask(
            f"class {empty} of 0..{num_classes - 1} is empty: no {what} has it; number the classes "
            "without gaps"
        )


def check_range(labels: Tensor, what: str, num_classes: int | None) -> None:
    """Refuse labels that are no class.

    Args:
        labels: `[N, ...]`.
        what: What a message calls the place of the first wrong one, before its number.
        num_classes: How many there are; None where only negative ones are wrong.
    Raises:
        InvalidTask: a label is out of range.
    """
    if labels.dtype == torch.bool:
        labels = labels.byte()
    wrong = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if not bool(wrong.any()):
        return
    sample = int(wrong.nonzero()[0][0])
    value = int(labels[sample][wrong[sample]].flatten()[0])
    top = "" if num_classes is None else f" to {num_classes - 1}"
    raise InvalidTask(
        f"label {value} of {what} {sample} is out of range; labels are whole numbers 0{top}"
    )


def check_measures(loss: Any, metrics: Mapping[str, Any]) -> None:
    """Refuse a loss or metric that cannot be called, and a metric named like another figure.

    Nor may a loss have parameters of its own: training moves those of the network alone.

    Raises:
        InvalidTask: one is no function, its name is taken, or the loss would have to be trained.
    """
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise InvalidTask(
            f"the loss {type(loss).__name__} has parameters, which training would leave as they "
            "are; put them into the model, or freeze them by loss.requires_grad_(False)"
        )
    for name in _OWN_FIGURES:
        if name in metrics:
            raise InvalidTask(
                f"metrics has {name!r}, which is the name of a figure that every training has; "
                "give the metric another name"
            )
    for name, measure in {"loss": loss, **metrics}.items():
        if not callable(measure):
            raise InvalidTask(
                f"{name}={measure!r} is no function; give one of (output, targets), such as "
                "torch.nn.functional.mse_loss"
            )


def check_scalar(loss: Any) -> Tensor:
    """Return what a loss gave for a batch, `[]`, such as training can descend.

    Raises:
        InvalidTask: it is no scalar.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InvalidTask(
            f"the loss gives {what} for a batch; give a scalar mean, such as by reduction='mean'"
        )
    return loss


def placed(measure: Callable[..., Any], targets: Tensor) -> Callable[..., Any]:
    """Return a loss or metric; a module, whose weights of classes count, moves to the targets.

    Args:
        measure: A function of output and targets, or a module.
        targets: Of a batch, `[N, ...]`.
    """
    return measure.to(targets.device) if isinstance(measure, nn.Module) else measure


def check_paired(measures: Mapping[str, Callable[..., Any]], output: Any, targets: Tensor) -> None:
    """Refuse a loss or metric that broadcasts, and so holds each output against every target.

    Args:
        measures: Name -> measure(output, targets) -> scalar, or one value a sample.
        output: Of the network on a batch.
        targets: Of the batch, `[N, ...]`.
    Raises:
        InvalidTask: one broadcasts.
    """
    given = getattr(output, "shape", targets.shape)
    if given == targets.shape or given.numel() != targets.numel():
        return
    for name, measure in measures.items():
        if _broadcasts(placed(measure, targets), given, targets):
            raise InvalidTask(
                f"the {name} holds each of the network's outputs {list(given)} against every one "
                f"of the targets {list(targets.shape)}; give both one shape, such as by "
                "output.reshape(targets.shape) in it"
            )


def _broadcasts(measure: Callable[..., Any], shape: Sequence[int], targets: Tensor) -> bool:
    """Whether perfect outputs are worth as much in another order, but not in targets' shape."""
    perfect = targets.to(torch.get_default_dtype())
    column = perfect.reshape(shape)
    try:
        first, another = (_worth(measure, o, targets) for o in (column, column.roll(1, 0)))
        alike = _worth(measure, perfect, targets)
    except Exception:  # it takes one of the shapes only
        return False
    return _near(first, another) and math.isfinite(first + alike) and not _near(first, alike)


def _worth(measure: Callable[..., Any], output: Tensor, targets: Tensor) -> float:
    with warnings.catch_warnings(), drawing(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own losses warn of it
        return float(torch.as_tensor(measure(output, targets)).double().mean())


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-12)


def _in_memory(inputs: Any, targets: Any, name: str) -> InMemory:
    held = _tensors(inputs, name)
    wanted = as_tensor(targets, f"the {name} targets")
    for tensor in leaves(held):
        if tensor.ndim < 1 or wanted.ndim < 1 or len(tensor) != len(wanted):
            raise InvalidTask(
                f"the {name} split has inputs {tuple(tensor.shape)} and targets "
                f"{tuple(wanted.shape)}; both must begin with the number of samples"
            )
    if wanted.is_complex():
        raise InvalidTask(
            f"the {name} targets are complex; give real ones, such as torch.view_as_real(targets)"
        )
    _refuse_nan(wanted, f"the {name} targets")
    return InMemory(held, wanted)


def _tensors(inputs: Any, name: str) -> Any:
    if isinstance(inputs, tuple):
        return tuple(_tensors(item, name) for item in inputs)
    if isinstance(inputs, Mapping):
        return {key: _tensors(item, name) for key, item in inputs.items()}
    tensor = as_tensor(inputs, f"the {name} inputs")
    _refuse_nan(tensor, f"the {name} inputs")
    return tensor


def _refuse_nan(tensor: Tensor, what: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        sample = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[0])
        raise InvalidTask(
            f"{what} hold NaN or infinite values, first in sample {sample}; clean or drop it"
        )


def _refuse_stream(dataset: Any, name: str) -> None:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise InvalidTask(
            f"the {name} split reads a {type(dataset).__name__}, whose length is not known; give a "
            "map-style Dataset, with __len__ and __getitem__"
        )


def _num_batches(loader: DataLoader[Any], name: str) -> int:
    """Return the batches of an epoch, which tell a step's epoch.

    Raises:
        InvalidTask: what groups or orders the samples has no length.
    """
    try:
        return len(loader)
    except TypeError as error:
        raise InvalidTask(
            f"the {name} DataLoader has no length ({error}); give its batch sampler or sampler "
            "__len__, the number of what it yields"
        ) from error


def _unnumbered(name: str, error: LookupError) -> InvalidTask:
    return InvalidTask(
        f"item 0 of the {name} split cannot be read ({reason(error)}); number the items of the "
        "data set from 0, such as by torch.utils.data.Subset(dataset, keys)"
    )


def _check_item(split: Streamed, name: str) -> None:
    try:
        inputs, targets = split.fetch(torch.tensor([0]), "cpu")
    except LookupError as error:
        raise _unnumbered(name, error) from error
    except (TypeError, ValueError) as error:
        raise InvalidTask(
            f"item 0 of the {name} split cannot be read as a pair (inputs, target) of tensors or "
            f"numbers: {error}"
        ) from error
    for tensor in (*leaves(inputs), targets):
        _refuse_nan(tensor, f"the items of the {name} split")


def _check_batch(split: Loaded, name: str) -> None:
    try:
        inputs, targets = split.sample(0)
    except LookupError as error:
        raise _unnumbered(name, error) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTask(
            f"a batch of the {name} DataLoader cannot be read as a pair of tensors: {error}; "
            "let its collate_fn give batches (inputs, targets)"
        ) from error
    for tensor in (*leaves(inputs), targets):
        _refuse_nan(tensor, f"the batches of the {name} DataLoader")
