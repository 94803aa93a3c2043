from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.train.augment import ShiftAndFlip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move an image `[C, H, W]` pixel by pixel, zero where nothing moves to."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


@given(st.integers(0, 2), st.booleans(), st.integers(0, 20))
@settings(max_examples=20)
def test_each_image_is_one_of_the_shifts_and_flips_that_there_are(shift, flip, seed):
    images = torch.rand(6, 2, 4, 5, generator=generator(seed))
    out = ShiftAndFlip(shift, flip)(images, generator(seed))
    assert out.is_contiguous()
    for image, changed in zip(images, out):
        span = range(-shift, shift + 1)
        possible = [shifted(image, down, right) for down in span for right in span]
        possible += [p.flip(2) for p in possible] if flip else []
        assert any(torch.equal(changed, p) for p in possible)


def test_images_are_moved_one_by_one_and_all_ways():
    images = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3).repeat(400, 1, 1, 1)
    out = ShiftAndFlip(shift=1, flip=True)(images, generator())
    assert len(out.flatten(1).unique(dim=0)) == 18  # 3 x 3 shifts, flipped or not
    mirrored = sum(bool(torch.equal(o, i.flip(2))) for o, i in zip(out, images))
    assert 5 <= mirrored <= 45  # of 400 x 1/9 x 1/2 = 22


def test_the_generator_alone_decides():
    images = torch.rand(8, 1, 4, 4, generator=generator(9))
    augment = ShiftAndFlip(1, flip=True)
    torch.manual_seed(1)
    first = augment(images, generator())
    torch.manual_seed(2)
    assert torch.equal(augment(images, generator()), first)
    assert not torch.equal(augment(images, generator(1)), first)


def test_nothing_asked_nothing_changed():
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(ShiftAndFlip(0)(images, generator()), images)


def test_only_batches_of_images_are_taken():
    with pytest.raises(ValueError, match="not enough values"):
        ShiftAndFlip()(torch.zeros(4, 7), generator())
