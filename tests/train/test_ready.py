from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from assay.errors import InvalidSetting, InvalidTask
from assay.train import ready
from assay.train.augment import ShiftAndFlip
from assay.train.ready import checked_options, load_task
from assay.train.task import Task
from tests.train.test_sources import cifar, idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SHARED = Path(__file__).parents[3] / "shared" / "data"
IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def fashion_files(folder: Path) -> Path:
    """Write a small Fashion-MNIST: 40 pictures to train and 20 to test, four of them a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for (images, labels), num in ((IDX[:2], 40), (IDX[2:], 20)):
        y = (np.arange(num) % 10).astype(np.uint8)
        x = np.broadcast_to(y[:, None, None] * 25, (num, 28, 28)).astype(np.uint8)
        (folder / f"{images}-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{labels}-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    return folder


def cifar_files(folder: Path) -> dict[str, bytes]:
    """Return a small CIFAR-10: in each file two pictures of each class."""
    rows = b"".join(cifar(2, label=k) for k in range(10))
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(rows)
    return dict.fromkeys(names, rows)


def test_digits_come_with_the_install():
    task = load_task("digits")
    assert (len(task.train), len(task.valid), task.num_classes) == (1151, 287, 10)
    assert len(task.open_test()) == 359
    assert task.example(3).shape == (3, 1, 8, 8)
    assert task.train.inputs.dtype == torch.uint8
    assert task.train.inputs.max() == 255
    assert task.augment == ShiftAndFlip(shift=1)
    assert task.fingerprint == load_task("digits", seed="0").fingerprint
    assert task.fingerprint != load_task("digits", seed=1).fingerprint


def test_fashion_mnist_of_a_folder(tmp_path):
    task = load_task("fashion-mnist", folder=fashion_files(tmp_path), valid="10")
    assert (len(task.train), len(task.valid), len(task.open_test())) == (30, 10, 20)
    assert sorted(task.valid.targets.tolist()) == list(range(10))  # each class alike
    assert task.class_names[9] == "Ankle boot"
    assert task.example().shape == (1, 1, 28, 28)


def test_fashion_mnist_of_debian(needs):
    needs(f"{DEBIAN} has Fashion-MNIST", DEBIAN.is_dir())
    task = load_task("fashion-mnist")
    assert (len(task.train), len(task.valid), len(task.open_test())) == (54000, 6000, 10000)
    statistics = task.describe()["normalised"]
    assert statistics["mean"] == [pytest.approx(72.94, abs=0.2)]  # 0.2860 x 255, as is well known
    assert statistics["deviation"] == [pytest.approx(90.02, abs=0.2)]  # 0.3530 x 255
    assert torch.bincount(task.valid.targets).tolist() == [600] * 10


def test_fashion_mnist_is_downloaded_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(ready, "_DEBIAN", tmp_path / "none")
    monkeypatch.setattr(ready, "FASHION_URL", fashion_files(tmp_path / "far").as_uri())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    task = load_task("fashion-mnist", valid=10)
    assert (
        task.fingerprint
        == load_task("fashion-mnist", valid=10, folder=tmp_path / "far").fingerprint
    )
    monkeypatch.setattr(ready, "FASHION_URL", "file:///nowhere")  # not asked a second time
    assert load_task("fashion-mnist", valid=10).fingerprint == task.fingerprint


def test_cifar10_is_downloaded_or_of_a_folder(tmp_path, monkeypatch):
    files = cifar_files(tmp_path / "near")
    with tarfile.open(tmp_path / "far.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    near = load_task("cifar10", folder=str(tmp_path / "near"), valid=20)
    assert (len(near.train), len(near.valid), len(near.open_test())) == (80, 20, 20)
    assert near.class_names[0] == "airplane"
    monkeypatch.setattr(ready, "CIFAR10_URL", (tmp_path / "far.tar.gz").as_uri())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_task("cifar10", valid=20).fingerprint == near.fingerprint
    monkeypatch.setattr(ready, "CIFAR10_URL", "file:///nowhere")
    assert load_task("cifar10", valid=20).fingerprint == near.fingerprint


def test_cifar10_of_real_pictures(tmp_path):
    source = SHARED / "cifar10_jpegbytes_test.npz"
    if not source.is_file():
        pytest.skip(f"{source} is not here; it lies beside the project's own checkout only")
    data = np.load(source, allow_pickle=False)
    for part, name in enumerate(cifar_files(tmp_path)):
        rows = []
        for i in range(100 * part, 100 * part + 100):
            jpeg = data["blob"][data["off"][i] : data["off"][i + 1]].tobytes()
            pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
            rows.append(bytes([data["y"][i]]) + pixels.transpose(2, 0, 1).tobytes())
        (tmp_path / name).write_bytes(b"".join(rows))
    task = load_task("cifar10", folder=tmp_path, valid=100)
    assert (len(task.train), len(task.valid)) == (400, 100)
    mean, deviation = task.describe()["normalised"].values()
    assert mean == pytest.approx([125.3, 123.0, 113.9], abs=8)  # of the whole set, as is well known
    assert deviation == pytest.approx([63.0, 62.1, 66.7], abs=5)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("digit", {}, InvalidSetting, "unknown task 'digit'; did you mean 'digits'?"),
        ("imagenet", {}, InvalidSetting, "there are: cifar10, digits, fashion-mnist"),
        ("digits", {"sed": 1}, InvalidSetting, r"unknown option task\.sed; did you mean 'seed'"),
        ("digits", {"seed": "one"}, InvalidSetting, r"seed='one' does not fit int: .*integer"),
        ("fashion-mnist", {"folder": "/nowhere"}, InvalidTask, "/nowhere has no train-images-idx3"),
        ("cifar10", {"folder": "/nowhere"}, InvalidTask, "data_batch_1.bin is missing"),
    ],
)
def test_what_there_is_not_is_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        load_task(name, **options)


def test_more_validation_pictures_than_there_are_are_refused(tmp_path):
    folder = fashion_files(tmp_path)
    with pytest.raises(InvalidSetting, match=r"task\.valid=40 must be 1 to 39"):
        load_task("fashion-mnist", folder=folder, valid=40)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    folder = fashion_files(tmp_path)
    labels = folder / f"{IDX[1]}-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(7, np.uint8))))
    with pytest.raises(InvalidTask, match=r"images \(40, 28, 28\) with labels \(7,\)"):
        load_task("fashion-mnist", folder=folder)


def test_text_is_read_as_the_type_of_the_option():
    read = checked_options(Task.from_folder, {"valid": "0.2", "seed": "3"})
    assert read == {"valid": 0.2, "seed": 3}
    with pytest.raises(InvalidSetting, match=r"unknown option task\.vaild; did you mean 'valid'"):
        checked_options(Task.from_folder, {"vaild": 1})
