"""The largest and the smallest architecture by MACs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from assay.architecture import Architecture, Option
from assay.space.forward import beside, run
from assay.space.structure import Choice
from assay.train.modes import evaluating

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["extreme", "lowest"]

_Count: TypeAlias = Callable[[Architecture], int]


def extreme(space: Space, sign: int, example: Any) -> Architecture:
    """Return the architecture with most (sign +1) or fewest (-1) multiply-accumulates.

    Sizes and depths begin at their extreme, see `lowest` for the rest.

    Args:
        space: The space; its selected path is undone.
        sign: +1 or -1.
        example: Input `[N, ...]`, on any device; None counts every layer at one position.
    Raises:
        InvalidSpace: a path does not run on the example; names the module.
    """

    def default(choice: Choice) -> Option:
        if choice.kind in ("OneOf", "Inputs"):
            return choice.options[0]
        return max(choice.options) if sign > 0 else min(choice.options)

    with _at_one_position(space) if example is None else _on_example(space, example) as count:
        return lowest(space, lambda a: -sign * count(a), space.complete({}, default), default)


def lowest(
    space: Space,
    cost: Callable[[Architecture], float],
    start: Architecture,
    default: Callable[[Choice], Option],
) -> Architecture:
    """Return an architecture of least cost: one decision at a time takes its best option.

    An option is judged with the decisions that it opens at their best, which is found when they
    are opened for the first time. Exact where decisions add up, as in chains, however they nest.

    Args:
        space: The space.
        cost: Of an architecture; each is asked about once.
        start: What is improved, until no decision improves it.
        default: Gives the option with which a decision that is opened begins.
    """
    once = functools.cache(cost)  # the last round asks again for most of what it tries
    settled: dict[str, Option] = {}  # what a decision took when it was last improved

    def begin(choice: Choice) -> Option:
        return settled[choice.label] if choice.label in settled else default(choice)

    def improve(best: Architecture, labels: Sequence[str]) -> Architecture:
        least, improved = once(best), True
        while improved:
            improved = False
            for label in labels:
                for option in space.choices[label].options if label in best else ():
                    rival = space.complete({**best, label: option}, begin)
                    if opened := [la for la in rival if la not in best and la not in settled]:
                        rival = improve(rival, opened)
                    value = once(rival)
                    if value < least:
                        best, least, improved = rival, value, True
        settled.update((label, best[label]) for label in labels if label in best)
        return best

    return improve(start, list(space.choices))


@contextmanager
def _at_one_position(space: Space) -> Iterator[_Count]:
    """Count the weights of all convolutions and linear layers that an architecture keeps."""

    def count(architecture: Architecture) -> int:
        layers = [m for m in space.build(architecture).modules() if _multiplies(m)]
        return sum(getattr(m, "weight").numel() for m in layers)  # noqa: B009 - any layer's

    yield count


@contextmanager
def _on_example(space: Space, example: Any) -> Iterator[_Count]:
    """Count while the supernet runs; it is made ready once, for the hundreds of runs of a walk."""
    total = 0
    inputs = beside(space.model, example)

    def add(layer: Any, _args: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    def count(architecture: Architecture) -> int:
        nonlocal total
        total = 0
        space.select(architecture)
        with torch.no_grad():
            run(space, space.model, inputs, architecture)
        return total

    hooks = [m.register_forward_hook(add) for m in space.model.modules() if _multiplies(m)]
    try:
        with evaluating(space.model):
            yield count
    finally:
        space.select(None)
        for hook in hooks:
            hook.remove()


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
