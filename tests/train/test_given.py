from __future__ import annotations

from collections import UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler

from assay.errors import InvalidTask
from assay.train.given import as_split, as_tensor, check_classes
from assay.train.splits import InMemory, Loaded, Streamed
from tests.train.small import Pairs

X, Y = torch.zeros(4, 2), torch.arange(4) % 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class Keyed(Dataset):
    """Whose samples have names in place of numbers."""

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return {"a": X[0], "b": X[1], "c": X[2]}[key], 0


class Unsized:
    def __iter__(self):
        return iter([[0, 1], [2, 3]])


def loader_of(inputs, targets):
    """A loader of which each batch is this one."""
    return DataLoader(Pairs(X, Y), 4, collate_fn=lambda items: (inputs, targets))


def test_each_kind_of_data_becomes_its_split():
    assert isinstance(as_split((X, Y), "train"), InMemory)
    assert isinstance(as_split(Pairs(X, Y), "train"), Streamed)
    assert isinstance(as_split(DataLoader(Pairs(X, Y)), "train"), Loaded)
    split = InMemory(X, Y)
    assert as_split(split, "train") is split


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "the train split is a int; give"),
        ((X[:1], Y[:1]), "the train split has 1 samples; it needs at least 2"),
        ((X, Y[:3]), r"inputs \(4, 2\) and targets \(3,\); both must begin with the number"),
        (({"a": X, "b": X[:2]}, Y), r"inputs \(2, 2\) and targets \(4,\)"),
        ((torch.tensor([[0.0], [np.nan]]), Y[:2]), "inputs hold NaN .* first in sample 1"),
        ((X, torch.tensor([0, 1, np.inf, 0])), "train targets hold NaN .* first in sample 2"),
        (([["a"], ["b"]], Y[:2]), "the train inputs cannot be read as one array of numbers"),
        (([[1], [1, 2]], Y[:2]), "the train inputs cannot be read as one array of numbers"),
        (Stream(), "reads a Stream, whose length is not known"),
        (DataLoader(Stream()), "reads a Stream, whose length is not known"),
        (DataLoader(Pairs(X, Y), batch_size=9, drop_last=True), "DataLoader has no batch"),
        (DataLoader(Pairs(X, Y), batch_sampler=Unsized()), "has no length .*Unsized.* __len__"),
        (DataLoader(Pairs(X, Y), sampler=Unsized()), "has no length .*Unsized.* __len__"),
        (DataLoader(Keyed(), 2, sampler=["a", "b", "c"]), r"item 0 .* \(KeyError: 0\); number"),
        (Keyed(), r"item 0 of the train split .* such as by torch\.utils\.data\.Subset"),
        (DataLoader(Pairs(X, Y), sampler=SubsetRandomSampler([2])), "split has 1 samples"),
        (Pairs(np.full((2, 1), np.nan), Y[:2]), "the items of the train split hold NaN"),
        (DataLoader(X, num_workers=1, persistent_workers=True), "with persistent_workers=False"),
        (DataLoader(Pairs(X / 0, Y)), "the batches of the train DataLoader hold NaN"),
        (loader_of(X, Y[:3]), r"inputs \(4, 2\) and targets \(3,\); both must begin with the num"),
        (loader_of({"a": X, "b": X[:2]}, Y), r"inputs \(2, 2\) and targets \(4,\)"),
        (loader_of(X, (Y, Y)), r"targets are a tuple of tensors; .* torch\.stack\(\.\.\., -1\)"),
        (loader_of(X, {"a": Y}), "targets are a dict of tensors; give targets as one tensor"),
        (Pairs(X, [(0.0, 1.0)] * 4), "targets are a list of tensors; give targets as one tensor"),
        (Pairs(X, [{"a": 0.0}] * 4), "targets are a dict of tensors; give targets as one tensor"),
        ((X, Y * 1j), "the train targets are complex; give real ones"),
    ],
)
def test_what_is_no_data_is_refused(given, message):
    with pytest.raises(InvalidTask, match=message):
        as_split(given, "train")


def test_items_with_names_are_numbered_by_a_subset():
    split = as_split(Subset(Keyed(), ["a", "b", "c"]), "train")
    assert len(next(split.batches(3))[1]) == 3


def test_items_that_are_no_pairs_of_tensors_are_refused():
    class Triples(Pairs):
        def __getitem__(self, index):
            return 1, 2, 3

    class Objects(Pairs):
        def __getitem__(self, index):
            return object(), 0

    for kind in (Triples, Objects):
        with pytest.raises(InvalidTask, match="item 0 of the valid split cannot be read as a pair"):
            as_split(kind(X, Y), "valid")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"ids": 1, "mask": 1, "label": 0}, "too many values to unpack"),
        ({"ids": 1, "label": 0}, "invalid data type 'str'"),
        (("some text", 0), "invalid data type 'str'"),
        ((1, 2, 3), "too many values to unpack"),
    ],
)
def test_a_loader_whose_batches_are_no_pairs_of_tensors_is_refused(item, said):
    message = f"a batch of the valid DataLoader cannot be read as a pair of tensors: .*{said}"
    with pytest.raises(InvalidTask, match=f"{message}.*; let its collate_fn give"):
        as_split(DataLoader([item] * 4, batch_size=2), "valid")
    pairs = DataLoader([item] * 4, batch_size=2, collate_fn=lambda items: (X[:2], Y[:2]))
    assert isinstance(as_split(pairs, "valid"), Loaded)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.arange(6).reshape(3, 2)[:, ::-1],
        np.frombuffer(bytes(range(6)), np.uint8).reshape(3, 2),
        [[0, 1], [2, 3], [4, 5]],
        torch.arange(6.0, requires_grad=True).reshape(3, 2),
    ],
    ids=["big-endian", "backward", "read-only", "list", "tensor with gradient"],
)
def test_any_array_becomes_a_tensor(array):
    tensor = as_tensor(array, "it")
    expected = array.detach().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    assert tensor.tolist() == expected.tolist()
    assert not tensor.requires_grad


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_unsigned_integers_are_numbers_like_others(kind, wrap):
    split = as_split((wrap(X.numpy().astype(kind)), wrap(Y.numpy().astype(kind))), "train")
    assert check_classes({"train": split}, None) == 2
    inputs, targets = next(split.batches(4))
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert sorted(targets.tolist()) == [0, 0, 1, 1]


def test_targets_in_a_list_of_numbers_are_one_tensor():
    for targets in ([0, 1, 0, 1], tuple(Y), np.asarray(Y)):
        split = as_split(loader_of(X, targets), "train")
        assert next(split.batches(4))[1].tolist() == [0, 1, 0, 1]


def test_any_mapping_is_inputs_by_name():
    given, items = UserDict(x=X, more=UserDict(y=X)), [UserDict(x=x, more={"y": x}) for x in X]
    for data in ((given, Y), loader_of(given, Y), Pairs(items, Y)):
        inputs, _ = next(as_split(data, "train").batches(4))
        assert type(inputs) is type(inputs["more"]) is dict
        assert [inputs["x"].shape, inputs["more"]["y"].shape] == [X.shape, X.shape]


def splits(train, **others):
    return {name: InMemory(X, torch.tensor(y)) for name, y in {"train": train, **others}.items()}


@pytest.mark.parametrize(
    ("given", "num", "message"),
    [
        (splits([0, 1, 2, -1]), None, "label -1 of train sample 3 is out of range"),
        (splits([0, 1, 2, 9]), 3, "label 9 of train sample 3 is out of range; .* 0 to 2"),
        (splits([0, 1, 0, 1], valid=[0, 2]), None, "label 2 of valid sample 1 is out of range"),
        (splits([0, 1, 3, 3]), None, r"class 2 of 0..3 is empty: no training sample has it"),
        (splits([0, 1, 1, 1]), 3, r"class 2 of 0..2 is empty"),
        (splits([0, 10**12, 1, 1]), None, "class 2 of 0..1000000000000 is empty"),
        (splits([0, 0, 0, 0]), None, "there is 1 class; classification needs two"),
        (splits([[0, 1], [0, 5]], valid=[[0, 6]]), None, "label 6 of valid sample 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(given, num, message):
    with pytest.raises(InvalidTask, match=message):
        check_classes(given, num)


def test_classes_are_counted_where_they_can_be():
    assert check_classes(splits([0, 1, 2, 1], valid=[2, 0]), None) == 3
    assert check_classes(splits([[0, 5], [0, 3]]), None) == 6  # a mask need not have them all
    assert check_classes({"train": Streamed(Pairs(X, Y))}, None) is None
    assert check_classes({"train": InMemory(X, Y.bool())}, None) == 2
