"""Small data and networks that the tests of training share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from assay.cost import derive
from assay.train.task import Task


def blobs(num: int = 60, classes: int = 3, features: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Points around as many centres as there are classes, `[num, features]`, and their classes."""
    rng = derive(0, "blobs")
    labels = np.arange(num) % classes
    centres = 3.0 * np.eye(classes, features)
    return centres[labels] + 0.3 * rng.normal(size=(num, features)), labels


def pictures(num: int = 40, classes: int = 4, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[num, 3, size, size]`; the class is the bright quarter."""
    rng = derive(0, "pictures")
    labels = np.arange(num) % classes
    images = rng.integers(0, 60, (num, 3, size, size), dtype=np.uint8)
    half = size // 2
    for image, label in zip(images, labels):
        row, column = divmod(int(label), 2)
        image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 150
    return images, labels


class Pairs(Dataset):
    """A map-style data set over two sequences; draws, where asked, as users' transforms do."""

    def __init__(self, inputs, targets, draw=None):
        self.inputs, self.targets, self.draw = inputs, targets, draw

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if self.draw is None:
            return self.inputs[index], self.targets[index]
        return self.inputs[index] + self.draw(), self.targets[index]


class Quarters(nn.Module):
    """A small image network with what makes exact resuming hard: batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.body(x), 2)
        return self.head(self.drop(pooled.flatten(1)))


def seeded(make, seed: int = 0):
    """Make a network from a seed, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def picture_task(**options) -> Task:
    return Task.from_arrays(*pictures(), valid=0.2, test=0.2, **options)


def blob_task(**options) -> Task:
    return Task.from_arrays(*blobs(), valid=0.2, test=0.2, **options)
