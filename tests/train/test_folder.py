from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from assay.errors import InvalidTask
from assay.train.folder import read_folder
from assay.train.task import Task

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def photos(tmp_path):
    for name, colour in (("cat", RED), ("dog", BLUE)):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("RGB", (12 + i, 10), colour).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_classes_are_the_folders_in_the_order_of_their_names(photos):
    (photos / ".cache").mkdir()
    (photos / "notes.txt").write_text("not a class")
    (photos / "cat" / "notes.txt").write_text("not a picture")
    images, labels, names = read_folder(photos, size=6)
    assert (images.shape, images.dtype, names) == ((16, 6, 6, 3), np.uint8, ["cat", "dog"])
    assert labels.tolist() == [0] * 8 + [1] * 8
    assert np.array_equal(images[labels == 0], np.broadcast_to(RED, (8, 6, 6, 3)))
    assert np.array_equal(images[labels == 1], np.broadcast_to(BLUE, (8, 6, 6, 3)))


def one(folder, image, name="0.png", **options):
    """Read one picture back, of a class beside another."""
    for other in ("a", "b"):
        (folder / other).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / other / "z.png")
    image.save(folder / "a" / name, **options)
    return read_folder(folder, size=4)[0][0]


def test_the_centre_square_is_kept(tmp_path):
    wide = Image.new("RGB", (12, 4), BLUE)
    wide.paste(RED, (4, 0, 8, 4))
    assert np.array_equal(one(tmp_path, wide), np.broadcast_to(RED, (4, 4, 3)))


def test_a_photo_is_turned_upright(tmp_path):
    top = Image.new("RGB", (4, 4), BLUE)
    top.paste(RED, (0, 0, 4, 2))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down, says the camera
    turned = one(tmp_path, top, exif=exif.tobytes())
    assert turned[0, 0].tolist() == list(BLUE)
    assert turned[3, 3].tolist() == list(RED)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), [255, 255, 255]),
        (Image.new("LA", (4, 4), (40, 255)), [40, 40, 40]),
        (Image.new("L", (4, 4), 77), [77, 77, 77]),
        (Image.fromarray(np.full((4, 4), 200 * 256, np.uint16)), [200, 200, 200]),
    ],
    ids=["transparent", "grey with alpha", "grey", "16 bits"],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, image, expected):
    assert one(tmp_path, image)[2, 2].tolist() == expected


def test_a_palette_with_transparency_becomes_rgb(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert one(tmp_path, palette, transparency=b"\xff\xff")[0, 0].tolist() == [9, 8, 7]


def broken(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n no more")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("spoil", [broken, cut_short])
def test_a_broken_picture_is_named(photos, spoil):
    spoil(photos / "dog" / "3.png")
    with pytest.raises(
        InvalidTask, match=r"dog/3\.png cannot be read as an image .*repair or remo"
    ):
        read_folder(photos, size=6)


def test_what_is_no_folder_of_classes_is_refused(photos, tmp_path):
    with pytest.raises(InvalidTask, match="nowhere is no folder; give one with a sub-folder"):
        read_folder(tmp_path / "nowhere", size=6)
    with pytest.raises(InvalidTask, match="size=0 must be at least 1 pixel"):
        read_folder(photos, size=0)
    with pytest.raises(InvalidTask, match="cat has 0 sub-folders; classification needs one for"):
        read_folder(photos / "cat", size=6)
    (photos / "fish").mkdir()
    with pytest.raises(InvalidTask, match="fish holds no image; add some or remove the class"):
        read_folder(photos, size=6)


def test_a_task_of_a_folder(photos):
    task = Task.from_folder(photos, size=5, valid=0.25, test=0.25)
    assert (len(task.train), len(task.valid), task.num_classes) == (8, 4, 2)
    assert task.class_names == ("cat", "dog")
    assert task.name == photos.name
    assert task.example(2).shape == (2, 3, 5, 5)
    assert task.describe()["class_names"] == ["cat", "dog"]
