"""Augmentation of whole batches on the device they train on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ShiftAndFlip"]


@dataclass(frozen=True)
class ShiftAndFlip:
    """Shifts each image by up to `shift` pixels and flips every other one, on the images' device.

    What a shift uncovers is 0, which is the mean of images that are normalised. A random shift is
    the same as a random crop of the padded image.

    Args:
        shift: Largest shift along each axis, in pixels.
        flip: Whether to mirror left and right with chance one half.
    """

    shift: int = 2
    flip: bool = False

    def scaled(self, factor: float) -> ShiftAndFlip:
        """Return the augmentation that does the same to images of a share of the side."""
        return replace(self, shift=round(factor * self.shift))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: `[N, C, H, W]`, floats.
            generator: On the CPU, whatever the device of the images.
        """
        n, _, height, width = images.shape
        if self.shift:
            padded = F.pad(images, [self.shift] * 4)
            offsets = torch.randint(0, 2 * self.shift + 1, (2, n, 1), generator=generator)
            rows = (offsets[0] + torch.arange(height)).to(images.device)  # [N, H]
            columns = (offsets[1] + torch.arange(width)).to(images.device)  # [N, W]
            sample = torch.arange(n, device=images.device)[:, None, None]
            # Advanced indices around the channel slice come first: [N, H, W, C].
            images = padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.flip:
            flipped = torch.rand(n, generator=generator) < 0.5
            mirrored = flipped.to(images.device)[:, None, None, None]
            images = torch.where(mirrored, images.flip(3), images)
        return images.contiguous()
