"""Which layers an architecture runs, on which shapes: worked out fast, for every candidate.

The model's own forward runs on one example, but a module that was seen before with the same input
shapes and the same options inside answers from memory. So after a while only the code between
modules runs. It rests on this: what a module computes depends on the shapes of its inputs and on
the decisions inside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.hardware.count import Counts, count, tensors_in
from assay.space.build import build
from assay.space.choices import ChoiceModule
from assay.space.space import Space
from assay.train.splits import map_tensors
from assay.train.task import call_model

__all__ = ["PathCalls", "Unit", "shapes_of"]

_MOST_WAYS = 1024
_Shapes = tuple[Any, ...]


@dataclass(frozen=True)
class Unit:
    """One call of a layer, or of a Sequential of layers, in a forward.

    Attributes:
        key: What is computed: the layers with their settings, and the shapes of the inputs.
        path: Module path in the model with choices.
        shape: Of the output, such as (1, 16, 8, 8).
        counts: What the call takes.
    """

    key: str
    path: str
    shape: tuple[int, ...]
    counts: Counts


class PathCalls:
    """The units that each architecture of a space runs on an example.

    Args:
        space: The space; its model is copied and not touched.
        example: Inputs `[N, ...]`, or a tuple or dict of tensors; only their shapes matter.
    """

    def __init__(self, space: Space, example: Any) -> None:
        space.select(None)
        self._example = map_tensors(example, lambda t: torch.zeros_like(t, device="cpu"))
        self._space = Space(copy.deepcopy(space.model).cpu().eval())
        self._memory: dict[Any, tuple[tuple[Unit, ...], Any]] = {}
        self._architecture = Architecture()
        self._selected = False
        self._units: list[Unit] = []
        # The plain module behind each unit's key, and an input for it.
        self.modules: dict[str, tuple[nn.Module, Any]] = {}
        for path, module in self._space.model.named_modules():
            if path:
                module.__dict__["forward"] = self._watch(path, module)

    def of(self, architecture: Architecture) -> tuple[Unit, ...]:
        """Return the units of an architecture in the order in which they run."""
        self._architecture, self._selected, self._units = architecture, False, []
        for label, modules in self._space.structure.modules.items():
            for module in modules:
                mix = {architecture[label]: 1.0} if label in architecture else None
                module.__dict__["mix"] = mix
        with torch.no_grad():
            call_model(self._space.model, self._example)
        return tuple(self._units)

    def counts(self, architecture: Architecture) -> Counts:
        """Return what an architecture's units take together; see `Counts`."""
        return reduce(add, (unit.counts for unit in self.of(architecture)), Counts())

    def _watch(self, path: str, module: nn.Module) -> Callable[..., Any]:
        forward, whole = module.forward, _is_unit(module)
        labels = self._labels_inside(path)
        ways = prod(len(self._space.choices[la].options) for la in labels)
        remembers = ways <= _MOST_WAYS

        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = tuple(map(self._architecture.get, labels))
            key = (path, shapes_of(args), shapes_of(tuple(kwargs.items())), chosen)
            if (known := self._memory.get(key)) is not None:
                self._units.extend(known[0])
                return known[1]
            if remembers and not self._selected:
                self._space.select(self._architecture)
                self._selected = True
            start = len(self._units)
            output = forward(*args, **kwargs)
            if whole:
                self._units[start:] = [self._unit(path, module, args, output)]
            if remembers:
                self._memory[key] = (tuple(self._units[start:]), output)
            return output

        return call

    def _labels_inside(self, path: str) -> tuple[str, ...]:
        inside = [
            label
            for site, labels in self._space.sites.items()
            if site == path or site.startswith(path + ".")
            for label in labels
        ]
        return tuple(dict.fromkeys(inside))

    def _unit(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Unit:
        shadowed, values = self._space.shadowed, self._space.values
        for layer in shadowed:
            layer.unshadow()
        plain = build(module, self._space.structure, self._architecture)
        for layer in shadowed:
            layer.shadow(values)
        for inner in plain.modules():
            inner.__dict__.pop("forward", None)
        inputs = args[0] if len(args) == 1 else args
        text = " ".join(repr(plain).split())
        key = f"{text} on {shapes_of(args)}"
        self.modules.setdefault(key, (plain, inputs))
        shapes = [tuple(t.shape) for t in tensors_in(output)]
        return Unit(key, path, shapes[0] if shapes else (), count(plain, inputs))


def _is_unit(module: nn.Module) -> bool:
    """Whether a module is measured as one: a layer, or a Sequential of nothing else."""
    if isinstance(module, ChoiceModule):
        return False
    if type(module) is nn.Sequential:
        return len(module) > 0 and all(_is_unit(child) for child in module)
    return not list(module.children())


def shapes_of(value: Any) -> _Shapes:
    """Return what of an argument may matter: shapes and types of tensors, other values as such."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(shapes_of(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, shapes_of(item)) for key, item in value.items())
    return (repr(value),)
