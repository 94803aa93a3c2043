from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import InvalidTask
from assay.train.arrays import Normalise, divide, in_memory, stratified

IMAGES = np.zeros((20, 3, 8, 8), np.uint8)
LABELS = np.arange(20) % 2


def split(images=IMAGES, labels=LABELS, *, seed=0, valid=0.2, test=0.2, **options):
    return divide(images, labels, seed=seed, valid=valid, test=test, **options)


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=80),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.integers(0, 5),
)
@settings(max_examples=40)
def test_each_sample_is_in_one_part_and_each_class_is_divided_alike(extra, valid, test, seed):
    labels = torch.tensor([*[k for k in range(4) for _ in range(6)], *extra])
    parts = stratified(labels, (valid, test), seed)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    for k in range(4):
        of_class = int((labels == k).sum())
        for part, share in zip(parts[1:], (valid, test)):
            assert int((labels[part] == k).sum()) == max(1, round(share * of_class))
    again = stratified(labels, (valid, test), seed)
    assert all(torch.equal(a, b) for a, b in zip(parts, again))


def test_another_seed_divides_otherwise():
    labels = torch.arange(40) % 2
    one, other = (stratified(labels, (0.25,), seed)[1] for seed in (0, 1))
    assert sorted(one.tolist()) != sorted(other.tolist())


def test_normalised_training_images_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 9, (5000, 2, 5, 5)) * [[[[1]], [[20]]]]).astype(np.uint8)
    train, valid, _ = split(images, np.arange(5000) % 2)
    batch, _ = next(train.batches(len(train)))
    assert batch.dtype == torch.float32
    assert batch.mean((0, 2, 3)).abs().max() < 1e-5
    assert (batch.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert valid.prepare is train.prepare


def test_statistics_are_those_of_the_whole_split_in_closed_form():
    inputs = torch.arange(5001, dtype=torch.float32).reshape(-1, 1) + 1e6
    statistics = Normalise(inputs)
    assert float(statistics.mean) == 1e6 + 2500
    assert float(statistics.deviation) == pytest.approx(((5001**2 - 1) / 12) ** 0.5, rel=1e-6)


def test_a_feature_that_does_not_vary_is_only_shifted():
    inputs = torch.tensor([[1.0, 1e6 + 5], [3.0, 1e6 + 5]])
    statistics = Normalise(inputs)
    assert statistics(inputs).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert statistics(torch.tensor([[2.0, 1e6 + 6]])).tolist() == [[0.0, 1.0]]
    assert statistics.describe() == {"mean": [2.0, 1e6 + 5], "deviation": [1.0, 1.0]}


def test_every_channel_is_described():
    inputs = torch.arange(600.0).reshape(3, 200)
    assert Normalise(inputs).describe()["mean"] == [200.0 + i for i in range(200)]


def test_normalised_images_have_torchs_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        batch = Normalise(torch.zeros(2, 1))(torch.ones(2, 1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert (batch.dtype, batch.tolist()) == (torch.float64, [[1.0], [1.0]])


def test_without_normalising_bytes_become_0_to_1():
    ones = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 1])
    train, *_ = in_memory(ones, ones, ones, normalise=False)
    assert next(train.batches(2))[0].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((20, 3, 8, 8), None, (3, 8, 8)),
        ((20, 8, 8, 3), None, (3, 8, 8)),
        ((20, 8, 9), None, (1, 8, 9)),
        ((20, 8, 9), "NHW", (1, 8, 9)),
        ((20, 12, 8, 9), "NCHW", (12, 8, 9)),
        ((20, 12, 8, 9), "NHWC", (9, 12, 8)),
        ((20, 3, 8, 3), "NHWC", (3, 3, 8)),
        ((20, 7), None, (7,)),
        ((20, 2, 3, 4, 5), None, (2, 3, 4, 5)),
    ],
)
def test_images_are_brought_to_channels_first(shape, layout, expected):
    images = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    train, *_ = split(images, layout=layout)
    assert next(train.batches(2))[0].shape == (2, *expected)
    if layout == "NHWC":
        whole = np.sort(
            np.concatenate([s.inputs.numpy().ravel() for s in split(images, layout=layout)])
        )
        assert np.array_equal(whole, images.ravel().astype(np.float32))


def with_nan():
    images = np.zeros((20, 4), np.float32)
    images[13, 2] = np.nan
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((20, 12, 8, 9))}, "can be NCHW or NHWC; say which by layout="),
        ({"images": np.zeros((20, 3, 8, 4))}, "can be NCHW or NHWC; say which by layout="),
        ({"layout": "NHW"}, r"layout='NHW' does not fit images of shape \(20, 3, 8, 8\)"),
        ({"layout": "CHW"}, "layout='CHW' does not fit"),
        ({"images": np.zeros((20, 7)), "layout": "NCHW"}, "layout='NCHW' does not fit"),
        ({"images": with_nan()}, "image 13 holds NaN or infinite pixels; clean or drop it"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "from one image nothing can be learned"),
        ({"images": IMAGES[:9]}, "9 images but 20 labels; give one label for each image"),
        ({"images": "digits"}, "the images cannot be read as one array of numbers"),
        ({"labels": LABELS - 1}, "label -1 of sample 0 is out of range; begin at 0"),
        ({"labels": LABELS * 2}, r"class 1 of 0..2 is empty: no sample has it"),
        ({"labels": LABELS * 0}, "all labels are 0; classification needs two or more classes"),
        ({"labels": LABELS * 0.5}, "give integer classes"),
        ({"labels": LABELS * 10**12}, "class 1 of 0..1000000000000 is empty"),
        ({"labels": np.arange(20) // 19}, "class 1 has 1 samples, too few for 3 splits"),
        ({"valid": 0.6, "test": 0.4}, "must leave samples to train on"),
        ({"valid": 0.0}, "must leave samples to train on"),
    ],
)
def test_bad_data_is_refused_in_one_line(changes, message):
    with pytest.raises(InvalidTask, match=message) as raised:
        split(**changes)
    assert "\n" not in str(raised.value)
