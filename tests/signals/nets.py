"""Small networks in float64 whose signals are known, and how they are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.signals import measure
from assay.train.task import Task


def task(loss: Callable[[Any, Tensor], Tensor] = F.mse_loss) -> Task:
    data = (torch.zeros(4, 1), torch.zeros(4, 1))
    return Task(data, data, loss=loss)


def measured(
    name: str, network: nn.Module, inputs: Any, targets: Tensor | None = None, **settings: Any
) -> float:
    """Measure one signal; without targets on the mean of the outputs' squares."""
    if targets is None:
        first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
        targets = torch.zeros(len(first[0]) if isinstance(first, tuple) else len(first))
        settings.setdefault("loss", lambda output, _: output.square().mean())
    made = task(settings.pop("loss", F.mse_loss))
    return measure(network, [name], batch=(inputs, targets), task=made, **settings)[name]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def linear(*weights: Tensor) -> nn.Sequential:
    """Return a chain of linear layers of these weights `[out, in]`, without biases."""
    layers = [nn.Linear(w.shape[1], w.shape[0], bias=False).double() for w in weights]
    for layer, weight in zip(layers, weights):
        layer.weight.data.copy_(weight)
    return nn.Sequential(*layers)


def convs() -> nn.Sequential:
    """Return a chain of convolution, norm and ReLU, with biases, on images `[N, 2, 4, 4]`."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(4, 3),
    ).double()  # fmt: skip
