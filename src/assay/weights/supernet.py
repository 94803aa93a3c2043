"""The model of a space as one set of shared weights: trained path by path, scored path by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from assay.architecture import Architecture, Option
from assay.contracts import Paths
from assay.cost import derive
from assay.space.fresh import reset
from assay.space.space import Space
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.optimizer import PathOptimizer
from assay.weights.paths import Uniform

__all__ = ["Supernet"]


class Supernet:
    """All architectures of a space in one set of weights.

    A training step activates one or more paths, accumulates their gradients and updates what they
    ran; the rest neither computes nor moves.

    Source: Guo et al. 2019, "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", arXiv:1904.00420; differs: sizes are slices of shared weights (Yu et al. 2018,
    "Slimmable Neural Networks", arXiv:1812.08928), and updates touch only the active slices.

    Args:
        space: The space; its model's weights are the supernet's.
        paths: Says which paths each step activates.
        device: Torch device that trains.
        seed: Names the initial weights and every draw.
    """

    def __init__(
        self, space: Space, *, paths: Paths | None = None, device: str = "cpu", seed: int = 0
    ) -> None:
        self.space = space
        self.paths = paths if paths is not None else Uniform()
        self.device = device
        self.seed = seed

    @property
    def module(self) -> torch.nn.Module:
        """The space's model, holding the shared weights."""
        return self.space.model

    def reset(self) -> None:
        """Draw the shared weights from the seed and move them to the device.

        The model of a space that was given an instance takes up those it came with.
        """
        reset(self.space, self.seed)
        self.module.to(self.device)

    def select(self, mix: Architecture | Mapping[str, Mapping[Option, Any]] | None) -> None:
        """Activate a path or mix, without rebuilding; None deactivates it. See `Space.select`."""
        self.space.select(mix)

    def trainer(self, task: Task, recipe: Recipe, *, steps: int) -> Trainer:
        """Return the loop that trains the shared weights; it can be interrupted at any step."""
        optimizer = PathOptimizer(self.module, recipe)
        learn = getattr(self.paths, "learn", None)

        def passes(step: int) -> Iterator[float]:
            if learn is not None:
                learn(self, task, step)
            rng = derive(self.seed, "paths", step)
            chosen = self.paths.passes(self.space, step, rng=rng)
            for mix in chosen:
                self.select(mix)
                optimizer.activate(self.space.shadowed, self.space.values)
                yield 1.0 / len(chosen)

        return Trainer(
            self.module, task, recipe, steps=steps, device=self.device, seed=self.seed,
            passes=passes, optimizer=optimizer,
        )  # fmt: skip

    def build(self, architecture: Architecture) -> torch.nn.Module:
        """Return the plain network of a path with the weights it has here."""
        return self.space.build(architecture)
