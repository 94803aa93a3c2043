"""Whether the code of a model calls a Sequential as a whole, or takes its items one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.space.forward import beside, run
from assay.train.modes import evaluating

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["Items", "called_whole"]


@dataclass(frozen=True)
class Items:
    """Items of a Sequential that stand nowhere else.

    Attributes:
        stack: The Sequential.
        choices: Choices among its items.
        label: The decision of one of them.
    """

    stack: nn.Module
    choices: tuple[nn.Module, ...]
    label: str


def called_whole(space: Space, sequentials: Sequence[Items]) -> list[bool]:
    """Run a path of a space's model through each place of each Sequential, and look.

    Args:
        space: It has an example. Its model is left as it is, with the path that is selected.
        sequentials: What to look at.
    Returns:
        For each, whether it ran and none of its choices ran without it.
    Raises:
        InvalidSpace: a path does not run on the example; names the module.
    """
    if not sequentials:
        return []
    selected = space.selected
    inputs = beside(space.model, space.example)
    watches = [_Watch(items) for items in sequentials]
    drawing = torch.random.fork_rng(devices=[])  # a forward may draw
    try:
        with torch.no_grad(), drawing, evaluating(space.model):
            for architecture in _leading_to(space, sequentials):
                space.select(architecture)
                run(space, space.model, inputs, architecture)
    finally:
        space.select(selected)
        for watch in watches:
            watch.end()
    return [watch.entered and not watch.apart for watch in watches]


def _leading_to(space: Space, sequentials: Sequence[Items]) -> list[Architecture]:
    """Return the architectures to run, the same ones each time."""
    conditions = (c for items in sequentials for c in space.choices[items.label].conditions)
    wanted = ({label: min(taken, key=repr) for label, taken in c} for c in conditions)
    points = (space.complete(options, lambda choice: choice.options[-1]) for options in wanted)
    return list(dict.fromkeys(points))


class _Watch:
    """Hooks that tell how a Sequential is called."""

    def __init__(self, items: Items) -> None:
        self.entered = self.apart = False
        self._runs = 0
        self._hooks = [
            items.stack.register_forward_pre_hook(self._enter),
            items.stack.register_forward_hook(self._leave),
            *(choice.register_forward_pre_hook(self._step) for choice in items.choices),
        ]

    def _enter(self, *_: Any) -> None:
        self.entered = True
        self._runs += 1

    def _leave(self, *_: Any) -> None:
        self._runs -= 1

    def _step(self, *_: Any) -> None:
        self.apart |= not self._runs

    def end(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
