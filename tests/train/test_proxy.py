"""A task made cheaper: which samples are kept, and what the images become."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from assay.cost import derive
from assay.errors import InvalidSetting, TestSplitClosed
from assay.train.augment import ShiftAndFlip
from assay.train.proxy import halved, proxy_task
from assay.train.task import Task


def images_task(num=120, side=8):
    rng = derive(0, "images")
    images = rng.integers(0, 256, size=(num, 1, side, side), dtype=np.uint8)
    labels = np.repeat(np.arange(3), num // 3)
    return Task.from_arrays(images, labels, name="images")


def features(num):
    return torch.arange(num, dtype=torch.float32)[:, None], torch.zeros(num)


def test_nothing_made_smaller_is_the_task_itself():
    task = images_task()
    assert proxy_task(task) is task


@pytest.mark.parametrize("share", [0.5, 0.25, 0.01])
def test_a_share_of_the_data_has_the_same_share_of_each_class(share):
    task = images_task()
    small = proxy_task(task, data=share, seed=3)
    before, after = (torch.bincount(t.train.targets) for t in (task, small))
    assert after.tolist() == [max(1, round(share * int(n))) for n in before]
    assert len(small.valid) == len(task.valid)


def test_the_samples_kept_are_some_of_the_task_s_own_and_fixed_by_the_seed():
    task = images_task()
    one, again, other = (proxy_task(task, data=0.3, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    pool = {image.numpy().tobytes() for image in task.train.inputs}
    assert {image.numpy().tobytes() for image in one.train.inputs} <= pool


def test_images_are_averaged_over_areas_in_both_splits():
    task = images_task()
    small = proxy_task(task, resolution=0.5)
    (whole, _), (half, _) = next(task.valid.batches(4)), next(small.valid.batches(4))
    assert half.shape == (4, 1, 4, 4)
    torch.testing.assert_close(half, whole.reshape(4, 1, 4, 2, 4, 2).mean((3, 5)))
    (whole, _), (half, _) = (next(t.train.train_batches(4, seed=1)) for t in (task, small))
    torch.testing.assert_close(half, whole.reshape(4, 1, 4, 2, 4, 2).mean((3, 5)))


def test_what_is_no_image_keeps_its_shape():
    task = Task(features(20), features(6), loss=torch.nn.functional.mse_loss)
    small = proxy_task(task, resolution=0.5)
    assert next(small.valid.batches(6))[0].shape == (6, 1)


def test_a_data_set_is_cut_by_number_and_a_loader_is_refused():
    data = TensorDataset(*features(20))
    mse = torch.nn.functional.mse_loss
    assert len(proxy_task(Task(data, data, loss=mse), data=0.3).train) == 6
    with pytest.raises(InvalidSetting, match=r"share of 0\.3 .* Loaded"):
        proxy_task(Task(DataLoader(data, 4), data, loss=mse), data=0.3)


class Labelled(TensorDataset):
    """Tells its classes beside its samples, as data sets of torchvision do."""

    @property
    def targets(self):
        return self.tensors[1].tolist()


def test_a_data_set_that_tells_its_classes_is_cut_evenly():
    labels = torch.tensor([0] * 30 + [1] * 10)
    data = Labelled(torch.randn(40, 2), labels)
    kept = proxy_task(Task(data, data), data=0.2).train
    assert [int(y) for _, y in (kept.dataset[i] for i in range(len(kept)))] == [0] * 6 + [1] * 2


def test_a_proxy_has_no_test_split():
    small = proxy_task(images_task(), data=0.5)
    assert not small.has_test
    with pytest.raises(TestSplitClosed):
        _ = small.test


@pytest.mark.parametrize(("name", "value"), [("data", 0), ("data", 1.5), ("resolution", -1)])
def test_a_share_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidSetting, match=name):
        proxy_task(images_task(), **{name: value})


def test_an_augmentation_is_scaled_with_the_images():
    task = images_task()
    task.augment = ShiftAndFlip(shift=4, flip=True)
    assert proxy_task(task, resolution=0.5).augment == ShiftAndFlip(shift=2, flip=True)
    assert proxy_task(task, data=0.5).augment is task.augment


def test_an_augmentation_of_the_user_s_own_stays_and_may_be_left_out():
    task = images_task()
    task.augment = lambda inputs, generator: inputs
    assert proxy_task(task, resolution=0.5).augment is task.augment
    assert proxy_task(task, augment=False).augment is None
    assert proxy_task(task, augment=False).train is task.train


@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_halves_are_all_samples_once_and_of_each_class_alike(resolution):
    task = proxy_task(images_task(123), resolution=resolution, augment=False)
    halves = halved(task, seed=1)
    train, valid = (next(s.batches(1000)) for s in (halves.train, halves.valid))
    whole = next(task.train.batches(1000))
    assert abs(len(train[1]) - len(valid[1])) <= 3

    def listed(*batches):
        return sorted((x.numpy().tobytes(), int(y)) for b in batches for x, y in zip(*b))

    assert listed(train, valid) == listed(whole)
    counts = [torch.bincount(y, minlength=3) for _, y in (train, valid)]
    assert int((counts[0] - counts[1]).abs().max()) <= 1
    assert not torch.equal(next(halved(task, seed=2).train.batches(1000))[0], train[0])
    with pytest.raises(TestSplitClosed):
        _ = halves.test


def test_a_data_set_is_halved_by_number_and_what_cannot_be_is_refused():
    data, mse = TensorDataset(*features(21)), torch.nn.functional.mse_loss
    halves = halved(Task(data, data, loss=mse))
    numbers = [int(x) for s in (halves.train, halves.valid) for x in next(s.batches(99))[0]]
    assert (len(halves.train), sorted(numbers)) == (10, list(range(21)))
    with pytest.raises(InvalidSetting, match=r"share of 0\.5 .* Loaded"):
        halved(Task(DataLoader(data, 4), data, loss=mse))
    for num in (2, 3):
        for few in (features(num), TensorDataset(*features(num))):
            with pytest.raises(InvalidSetting, match=f"has {num} samples, too few for two halves"):
                halved(Task(few, data, loss=mse))


def test_a_regression_keeps_two_samples_however_small_the_share():
    task = Task(features(20), features(6), loss=torch.nn.functional.mse_loss)
    assert len(proxy_task(task, data=0.02).train) == 2


def test_smaller_images_of_a_loader_come_in_as_many_batches():
    data = TensorDataset(torch.zeros(16, 1, 4, 4), torch.zeros(16, 1, 4, 4))
    task = Task(DataLoader(data, 4), data, loss=torch.nn.functional.mse_loss)
    assert proxy_task(task, resolution=0.5).steps_per_epoch(16) == task.steps_per_epoch(16) == 4
    arrays = images_task()
    assert proxy_task(arrays, resolution=0.5).steps_per_epoch(16) == arrays.steps_per_epoch(16) == 6
