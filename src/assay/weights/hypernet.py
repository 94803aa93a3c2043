"""A hypernetwork: a small network that writes the weights of whichever architecture is asked for.

Inside choices, the weights of convolutions and linear layers are no parameters but the output of a
generator that reads the architecture. Everything else (stem, head, norms, biases) is shared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSpace, UnsupportedLayer
from assay.space.choices import Depth, OneOf
from assay.space.slicing import OpenLayer, take
from assay.space.space import Space
from assay.space.structure import Condition, reached
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.optimizer import PathOptimizer

__all__ = ["Generated", "Generator", "Target", "TileGenerator", "drawn", "normalised", "targets"]

_WRITTEN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TILE = 256
_ABSENT = object()


@dataclass(frozen=True)
class Target:
    """A layer whose weight is generated.

    Attributes:
        path: Its module path.
        layer: The layer; its own weight lies idle.
        open: How it shrinks, if it holds open sizes.
        conditions: It runs where one of these holds.
    """

    path: str
    layer: nn.Module
    open: OpenLayer | None
    conditions: list[Condition] = field(default_factory=list)

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight at the largest sizes."""
        return self.layer._parameters["weight"].shape  # type: ignore[union-attr]


class Generator(nn.Module):
    """Makes raw weights from an architecture; `Generated` slices and normalises them.

    Attributes:
        targets: The layers it can make weights for.
    """

    targets: tuple[Target, ...]

    def forward(self, architecture: Architecture, active: Sequence[Target]) -> list[Tensor]:
        """Return a raw weight of the target's `shape` for each of the active targets."""
        raise TypeError(f"{type(self).__name__} generates nothing")  # pragma: no cover - abstract


def targets(space: Space, paths: Sequence[str] | None = None) -> tuple[Target, ...]:
    """Return the layers of a space whose weights a hypernetwork is to write.

    These are the convolutions and linear layers inside a choice or with an open size. A weight
    that two layers share is left to be an ordinary parameter.

    Args:
        space: The space.
        paths: Only these layers; None for all.
    Raises:
        InvalidSpace: there is none.
        UnsupportedLayer: one of them has an open kernel.
    """
    found = _Finder(space).run()
    chosen = tuple(t for t in found if paths is None or t.path in paths)
    if not chosen:
        raise InvalidSpace(
            f"hypernet has no weight to write in {space!r}: no convolution or linear layer lies in "
            "a choice; use the estimator one-shot"
        )
    for target in chosen:
        if target.open is not None and any(r.kind == "Kernel" for r in target.open.roots):
            raise UnsupportedLayer(
                f"hypernet cannot generate weights for Kernel choices in {target.path}; make them "
                "options of a OneOf, or use the estimator one-shot"
            )
    return chosen


class _Finder:
    def __init__(self, space: Space) -> None:
        self._model = space.model
        structure = space.structure
        self._labels = {id(m): la for la, ms in structure.modules.items() for m in ms}
        self._open = {id(layer.layer): layer for layer, _ in structure.layers}
        self._holders = Counter(id(m._parameters.get("weight")) for m in space.model.modules())

    def run(self) -> list[Target]:
        found: dict[int, Target] = {}
        for path, layer in self._model.named_modules(remove_duplicate=False):
            weight = layer._parameters.get("weight")
            if not isinstance(layer, _WRITTEN) or weight is None or self._holders[id(weight)] > 1:
                continue
            condition, opened = self._condition(path), self._open.get(id(layer))
            if condition or opened is not None:
                target = found.setdefault(id(layer), Target(path, layer, opened))
                target.conditions.append(condition)
        return list(found.values())

    def _condition(self, path: str) -> Condition:
        """Return the options that lead to a module path."""
        condition, module = list[Any](), self._model
        for name in path.split(".") if path else ():
            if isinstance(module, OneOf):
                condition.append((self._labels[id(module)], frozenset([name])))
            elif isinstance(module, Depth):
                deep = frozenset(d for d in module.options if int(d) > int(name))  # type: ignore[arg-type]
                condition.append((self._labels[id(module)], deep))
            module = module._modules[name]  # type: ignore[assignment]
        return tuple(condition)


def normalised(weight: Tensor) -> Tensor:
    """Scale a weight `[out, ...]` so that its Frobenius norm is the square root of `out`.

    Then each output of independent inputs of variance one has, on average, variance one: what an
    initialisation scaled to the fan-in gives, at any size that the layer is sliced to.

    Source: the norm of Brock et al. 2017, "SMASH", arXiv:1708.05344, section 3.2; differs: it is
    brought to the square root of `out` instead of one.
    """
    flat = functional.normalize(weight.flatten(), dim=0)
    return flat.view(weight.shape) * math.sqrt(weight.shape[0])


class TileGenerator(Generator):
    """Writes weights in tiles of 256 values, each from its own vector and the architecture's code.

    With the code c (`Space.encode`) and the vector e_t of tile t,
    w_t = O relu(W relu(e_t + C c) + b): one small network for all layers, and one product for
    all tiles of an architecture.

    Source: Ha, Dai, Le 2016, "HyperNetworks", arXiv:1609.09106, section 3.1 (a vector for each
    tile); Brock et al. 2017, "SMASH", arXiv:1708.05344 (weights from the architecture); differs:
    both at once, and layers of any shape are cut into tiles of one size.

    Args:
        space: The space.
        hidden: Units of both hidden layers, and length of a tile's vector.
    Raises:
        InvalidSpace: the space has no weight to write.
        UnsupportedLayer: a layer to write has an open kernel.
    """

    def __init__(self, space: Space, hidden: int) -> None:
        super().__init__()
        self.targets = targets(space)
        self._space = space
        counts = [math.ceil(t.shape.numel() / _TILE) for t in self.targets]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        self._rows = {
            t.path: range(start, start + count)
            for t, start, count in zip(self.targets, starts, counts)
        }
        width = sum(len(choice.options) for choice in space.choices.values())
        self.tiles = nn.Embedding(sum(counts), hidden)
        nn.init.normal_(self.tiles.weight, std=hidden**-0.5)
        self.code = nn.Linear(width, hidden)
        nn.init.zeros_(self.code.weight)  # all architectures begin with the same weights
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, _TILE, bias=False)

    def forward(self, architecture: Architecture, active: Sequence[Target]) -> list[Tensor]:
        """Return a raw weight for each of the active targets."""
        like = self.code.weight
        code = torch.as_tensor(self._space.encode(architecture)).to(like)
        ranges = [self._rows[t.path] for t in active]
        rows = torch.tensor([row for rows in ranges for row in rows], device=like.device)
        # All parameters have one scale, so that Adam's steps are alike in proportion.
        vectors = self.tiles(rows) * math.sqrt(self.tiles.embedding_dim)
        hidden = functional.relu(vectors + self.code(code))
        values: Tensor = self.outer(functional.relu(self.inner(hidden)))
        parts = torch.split(values, [len(rows) for rows in ranges])
        return [
            part.flatten()[: target.shape.numel()].view(target.shape)
            for part, target in zip(parts, active)
        ]


def drawn(space: Space, seed: int, step: int) -> Architecture:
    """Return the architecture that a training step activates."""
    return space.sample(derive(seed, "paths", step), over="decisions")


class Generated(nn.Module):
    """The model of a space with generated weights; called like the model itself.

    A generated weight is cut to the sizes chosen, normalised, and multiplied by a gain that is a
    parameter of its layer. Gradients reach the generator, the gains and what the path shares.

    Source: Brock, Lim, Ritchie, Weston 2017, "SMASH: One-Shot Model Architecture Search through
    HyperNetworks", arXiv:1708.05344, section 3; differs: serves any space, a layer's scale is
    learned, and the architecture's code carries no noise.

    Args:
        space: The space; its model holds what is shared.
        generator: Makes the weights.
    """

    def __init__(self, space: Space, generator: Generator) -> None:
        super().__init__()
        self.space = space
        self.model = space.model
        self.generator = generator
        self.gains = nn.Parameter(torch.ones(len(generator.targets)))
        self._architecture: Architecture | None = None

    def select(self, architecture: Architecture) -> None:
        """Say which architecture the next forward computes."""
        self.space.select(architecture)
        self._architecture = architecture

    def weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """Generate what an architecture needs: module path -> weight at the sizes chosen."""
        numbered = [
            (i, target)
            for i, target in enumerate(self.generator.targets)
            if reached(target.conditions, architecture)
        ]
        active = [target for _, target in numbered]
        if not active:
            return {}
        sizes = self.space.sizes(architecture)
        gains = self.gains[[i for i, _ in numbered]].unbind()
        made: dict[str, Tensor] = {}
        for target, raw, gain in zip(active, self.generator(architecture, active), gains):
            cut = raw if target.open is None else take(raw, target.open.regions(sizes)["weight"])
            made[target.path] = gain * normalised(cut)
        return made

    @contextmanager
    def written(self) -> Iterator[None]:
        """Within: the layers of the selected architecture have generated weights.

        They stand in the layers' dicts, in front of the parameters, as the views of `Space.select`
        do; these come back after.
        """
        if self._architecture is None:
            raise RuntimeError("select an architecture first")
        weights = self.weights(self._architecture)
        layers = [(t.layer.__dict__, t.path) for t in self.generator.targets if t.path in weights]
        before = [here.get("weight", _ABSENT) for here, _ in layers]
        for here, path in layers:
            here["weight"] = weights[path]
        try:
            yield
        finally:
            for (here, _), known in zip(layers, before):
                here.pop("weight")
                if known is not _ABSENT:
                    here["weight"] = known

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Generate the weights of the selected architecture and run it."""
        with self.written():
            return self.model(*args, **kwargs)

    def trainer(self, task: Task, recipe: Recipe, *, steps: int, device: str, seed: int) -> Trainer:
        """Return the loop that trains generator and shared parameters, one architecture a step.

        Args:
            task: Training split, loss and augmentation.
            recipe: How.
            steps: Steps in all.
            device: Torch device.
            seed: Names every draw.
        """
        optimizer = PathOptimizer(self, recipe)

        def passes(step: int) -> Iterator[float]:
            self.select(drawn(self.space, seed, step))
            optimizer.activate(self.space.shadowed, self.space.values)
            yield 1.0

        return Trainer(
            self, task, recipe, steps=steps, device=device, seed=seed, passes=passes,
            optimizer=optimizer,
        )  # fmt: skip
