from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from assay.errors import InvalidTask
from assay.train.splits import InMemory, Loaded, Streamed, evened, leaves, map_tensors
from tests.train.small import Pairs

NUMBERS = torch.arange(10, dtype=torch.float32)
DRAWS = {
    "torch": lambda: torch.rand(()),
    "numpy": lambda: np.float32(np.random.rand()),
    "python": random.random,
}


def take(split, count, *, start=0, seed=0, size=3):
    batches = split.train_batches(size, seed=seed, start=start)
    return [(x.clone(), y.clone()) for x, y in itertools.islice(batches, count)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y)
    )


def all_kinds():
    pairs = Pairs(NUMBERS, NUMBERS.long())
    noisy = Pairs(NUMBERS, NUMBERS.long(), draw=DRAWS["torch"])
    own = torch.Generator()
    own.manual_seed(77)
    return {
        "memory": InMemory(NUMBERS, NUMBERS.long()),
        "streamed": Streamed(pairs),
        "streamed, drawing": Streamed(noisy),
        "loaded": Loaded(DataLoader(noisy, batch_size=3, shuffle=True)),
        "loaded, own generator": Loaded(
            DataLoader(pairs, batch_size=3, shuffle=True, generator=own, drop_last=True)
        ),
        "loaded, weighted": Loaded(
            DataLoader(pairs, batch_size=3, sampler=WeightedRandomSampler(range(1, 11), 10))
        ),
        "loaded, distributed": Loaded(
            DataLoader(pairs, batch_size=3, sampler=DistributedSampler(pairs, 2, 0))
        ),
    }


@pytest.mark.parametrize("kind", all_kinds())
def test_batches_can_start_anywhere(kind):
    split = all_kinds()[kind]
    whole = take(split, 11)
    for start in (1, 3, 4, 9):
        assert same(take(split, 11 - start, start=start), whole[start:])
        assert same(take(all_kinds()[kind], 11 - start, start=start), whole[start:])


@pytest.mark.parametrize("kind", all_kinds())
def test_seeds_and_epochs_differ(kind):
    split = all_kinds()[kind]
    if kind != "loaded, distributed":  # such a sampler has a seed of its own
        assert not same(take(split, 3), take(split, 3, seed=1))
    whole = take(split, 8)
    per_epoch = len(split.loader) if isinstance(split, Loaded) else 3
    assert not same(whole[:3], whole[per_epoch : per_epoch + 3])


@pytest.mark.parametrize("draw", DRAWS)
def test_what_reading_draws_is_fixed_and_leaves_the_users_generators_alone(draw):
    split = Streamed(Pairs(NUMBERS, NUMBERS.long(), draw=DRAWS[draw]))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = take(split, 4)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    DRAWS[draw]()
    assert same(take(split, 4), first)
    assert not torch.equal(first[0][0], first[0][0].round())  # something was drawn


@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 3))
@settings(max_examples=25)
def test_an_epoch_has_every_sample_at_most_once_and_only_an_unfilled_batch_is_left_out(
    num, size, epoch
):
    split = InMemory(torch.arange(num), torch.arange(num))
    per_epoch = num // min(size, num)
    batches = take(split, per_epoch, start=epoch * per_epoch, size=size)
    seen = torch.cat([targets for _, targets in batches])
    assert len(seen) == per_epoch * min(size, num) > num - size
    assert len(seen.unique()) == len(seen)


@pytest.mark.parametrize("kind", ["memory", "streamed", "loaded"])
@pytest.mark.parametrize(("limit", "expected"), [(None, 10), (7, 7), (3, 3), (100, 10)])
def test_one_pass_yields_each_sample_once_up_to_a_limit(kind, limit, expected):
    split = {**all_kinds(), "loaded": Loaded(DataLoader(Pairs(NUMBERS, NUMBERS), 4))}[kind]
    seen, whole = (
        torch.cat([targets for _, targets in split.batches(4, limit=most)]).tolist()
        for most in (limit, None)
    )
    assert seen == whole[:expected]
    assert sorted(whole) == list(range(10))
    assert (whole == list(range(10))) is (kind == "loaded")  # whose order is its own


@pytest.mark.parametrize("kind", [InMemory, lambda x, y: Streamed(Pairs(x, y))])
def test_any_part_of_a_pass_over_sorted_classes_has_its_share_of_each(kind):
    labels = torch.arange(1200) // 400
    batches = list(kind(labels.float(), labels).batches(256, limit=512))
    assert len(batches) == 2
    for inputs, targets in batches:
        assert torch.equal(inputs.long(), targets)
        assert torch.bincount(targets).tolist() == pytest.approx([256 / 3] * 3, abs=20)


@given(st.integers(1, 40), st.integers(3, 45))
@settings(max_examples=25)
def test_batches_of_a_pass_are_even_and_none_is_left_with_one_sample(num, size):
    split = InMemory(torch.arange(num), torch.arange(num))
    found = [len(targets) for _, targets in split.batches(size)]
    assert sum(found) == num
    assert max(found) - min(found) <= 1
    assert max(found) <= size
    assert min(found) >= min(2, num)


def test_a_pass_over_a_shuffling_loader_is_always_the_same():
    split = Loaded(DataLoader(Pairs(NUMBERS, NUMBERS), 4, shuffle=True))
    first = [targets.tolist() for _, targets in split.batches(4)]
    torch.rand(1)
    assert [targets.tolist() for _, targets in split.batches(4)] == first


def test_a_loader_with_workers_can_start_anywhere():
    def split():
        return Loaded(DataLoader(Pairs(NUMBERS, NUMBERS), 4, shuffle=True, num_workers=1))

    assert same(take(split(), 3, start=1), take(split(), 4)[1:])


@pytest.mark.parametrize("kind", [InMemory, lambda x, y: Streamed(Pairs(x, y))])
def test_numbers_come_as_networks_and_losses_want_them(kind):
    bytes_ = torch.tensor([[0], [255]], dtype=torch.uint8)
    inputs, targets = next(kind(bytes_, torch.tensor([True, False])).batches(2))
    assert inputs.tolist() == [[0.0], [1.0]]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    doubles = torch.ones(2, 1, dtype=torch.float64)
    inputs, targets = next(kind(doubles, doubles).batches(2))
    assert inputs.dtype == targets.dtype == torch.float32
    tokens = torch.ones(2, 3, dtype=torch.int32)
    assert next(kind(tokens, doubles).batches(2))[0].dtype == torch.int32


def test_memory_stays_uint8():
    split = InMemory(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4))
    list(split.batches(2))
    assert split.inputs.dtype == torch.uint8


def test_tuples_and_dicts_are_cut_alike():
    inputs = {"a": NUMBERS, "b": (NUMBERS[:, None], NUMBERS + 10)}
    chosen, targets = next(InMemory(inputs, NUMBERS.long()).train_batches(4, seed=0))
    assert chosen["a"].tolist() == targets.tolist()
    assert chosen["b"][1].tolist() == (targets + 10).tolist()
    assert [t.shape for t in leaves(chosen)] == [(4,), (4, 1), (4,)]
    doubled = map_tensors(chosen, lambda t: 2 * t)
    assert torch.equal(doubled["b"][0], 2 * chosen["b"][0])


class Unsized(Sampler):
    def __iter__(self):
        return iter(range(7))


PAIRS = Pairs(NUMBERS, NUMBERS.long())
IN_THREES = BatchSampler(SubsetRandomSampler(range(8)), 3, drop_last=True)


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (DataLoader(PAIRS, 4), 10),
        (DataLoader(PAIRS, 4, drop_last=True), 8),
        (DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(range(7))), 7),
        (DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(range(7)), drop_last=True), 4),
        (DataLoader(PAIRS, 4, sampler=WeightedRandomSampler([1.0] * 10, 25)), 25),
        (DataLoader(PAIRS, 4, sampler=DistributedSampler(PAIRS, 3, 0)), 4),
        (DataLoader(PAIRS, batch_sampler=IN_THREES), 6),
        (DataLoader(PAIRS, sampler=IN_THREES, batch_size=None, collate_fn=lambda x: x), 6),
        # Only the data set's length is known.
        (DataLoader(PAIRS, 4, sampler=Unsized()), 10),
        (DataLoader(PAIRS, batch_sampler=[[0, 1], [2, 3, 4]]), 10),
        (DataLoader(PAIRS, batch_size=None, sampler=SequentialSampler(PAIRS)), 10),
    ],
)
def test_a_loader_has_as_many_samples_as_its_sampler_names(loader, expected):
    assert len(Loaded(loader)) == expected


class ByEpoch(Sampler):
    """Shuffles by the epoch that it is told, as samplers of the user's own do."""

    def __init__(self):
        self.told = []

    def set_epoch(self, epoch):
        self.told.append(epoch)

    def __len__(self):
        return 10

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.told[-1])
        return iter(torch.randperm(10, generator=generator).tolist())


class GroupsByEpoch(ByEpoch):
    def __len__(self):
        return 5

    def __iter__(self):
        order = list(super().__iter__())
        return iter([order[i : i + 2] for i in range(0, 10, 2)])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DataLoader(PAIRS, 2, sampler=ByEpoch()), lambda loader: loader.sampler),
        (
            lambda: DataLoader(PAIRS, batch_sampler=GroupsByEpoch()),
            lambda loader: loader.batch_sampler,
        ),
        (
            lambda: DataLoader(PAIRS, batch_sampler=BatchSampler(ByEpoch(), 2, drop_last=False)),
            lambda loader: loader.batch_sampler.sampler,
        ),
    ],
    ids=["sampler", "batch sampler", "sampler of a batch sampler"],
)
def test_what_shuffles_by_the_epoch_is_told_it_once(make, told):
    loader = make()
    whole = take(Loaded(loader), 10)
    assert told(loader).told == [0, 1]
    assert not same(whole[:5], whole[5:])
    assert same(take(Loaded(make()), 3, start=7), whole[7:])


class Guessing(GroupsByEpoch):
    def __len__(self):
        return 6  # one too many


def test_a_loader_whose_length_is_a_guess_is_refused_where_its_epoch_ends():
    split = Loaded(DataLoader(PAIRS, batch_sampler=Guessing()))
    assert len(take(split, 5)) == 5
    for start, count in ((0, 6), (5, 1), (11, 1)):
        with pytest.raises(InvalidTask, match="has 5 batches, and its length is 6; let len"):
            take(split, count, start=start)
    assert len(list(split.batches(2))) == 5  # one pass needs no length


@pytest.mark.parametrize("grouped", [True, False])
def test_a_sample_of_a_loader_is_collated_as_its_batches_are(grouped):
    def collate(given):
        inputs, targets = zip(*given) if grouped else given
        return {"x": torch.as_tensor(inputs) + 100}, torch.as_tensor(targets)

    split = Loaded(DataLoader(PAIRS, batch_size=2 if grouped else None, collate_fn=collate))
    inputs, targets = split.sample(3)
    assert inputs["x"].tolist() == ([103.0] if grouped else 103.0)
    assert targets.tolist() == ([3] if grouped else 3)


def test_a_pass_without_a_limit_yields_all_that_a_loader_does():
    groups = [(NUMBERS[:4], NUMBERS[:4]), (NUMBERS[4:], NUMBERS[4:])]
    split = Loaded(DataLoader(groups, batch_size=None))  # two items, ten samples
    assert torch.equal(torch.cat([targets for _, targets in split.batches(4)]), NUMBERS)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 12))
@settings(max_examples=50)
def test_batches_made_even_hold_the_same_samples_in_order(sizes, size):
    num = sum(sizes)
    whole = ({"a": torch.arange(num), "b": (torch.arange(num)[:, None],)}, torch.arange(num))
    ends = list(itertools.accumulate(sizes))
    given = [map_tensors(whole, lambda t, a=a, b=b: t[a:b]) for a, b in zip([0, *ends], ends)]
    batches = evened(given, size)
    found = [len(targets) for _, targets in batches]
    assert max(found) - min(found) <= 1
    assert max(found) <= max(size, 3)
    assert min(found) >= min(2, num)
    for i, tensor in enumerate(leaves(whole)):
        assert torch.equal(torch.cat([list(leaves(batch))[i] for batch in batches]), tensor)


def test_batches_that_cannot_be_put_together_stay():
    padded = [(torch.zeros(3, 5), torch.zeros(3)), (torch.zeros(1, 4), torch.zeros(1))]
    assert evened(padded, 2) == padded
    assert evened([], 2) == []


def test_what_is_sent_elsewhere_leaves_its_copies_behind():
    split = InMemory(NUMBERS, NUMBERS.long())
    split._near("meta")
    sent = pickle.loads(pickle.dumps(split))
    assert sent._copies == {}
    assert list(split._copies) == ["meta"]
    assert same(take(sent, 3), take(split, 3))


def test_an_accelerator_gets_its_copy_once():
    split = InMemory(NUMBERS, NUMBERS.long(), prepare=lambda x: x)
    split._near("meta")
    first = split._copies["meta"]
    assert first[0].device.type == "meta"
    assert split._near("meta") is first
    assert split._near("cpu")[0] is split.inputs


def test_a_pass_of_no_samples_has_no_batches() -> None:
    split = InMemory(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    assert list(split.batches(2, limit=0)) == []
