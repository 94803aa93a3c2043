"""What a learning computes beside the training of weights: samples, and the MACs of what ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from assay.architecture import Architecture
from assay.contracts import Mix
from assay.cost import Cost
from assay.space.choices import Held
from assay.space.space import Space

__all__ = ["Macs", "Spent"]

Macs: TypeAlias = Callable[[Architecture | Mix], float]
"""Counts the multiply-accumulates of one sample's forward on a path or mix."""

_COUNTED = 8  # passes: of the later ones, which rarely repeat a mix, the mean is booked


class Spent:
    """Books the passes through a supernet's model, whoever calls it.

    The MACs of the first passes are counted; those after them are taken for as costly.
    """

    def __init__(self) -> None:
        self._first: list[tuple[int, list[tuple[Architecture | Mix, int]]]] = []
        self._more = 0  # samples of passes that are not counted
        self._left = _COUNTED
        self._counted = (0, 0.0)  # samples and MACs of the first passes

    @contextmanager
    def booking(self, space: Space) -> Iterator[None]:
        """Within: every pass through the model of a space is booked."""

        def book(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if model is not space.model:  # a network built of it, to be measured
                return
            samples = len(next(iter((*args, *kwargs.values()))))
            if self._left == 0:
                self._more += samples
                return
            self._left -= 1
            self._first.append((samples, _parts(space.selected or {})))

        hook = space.model.register_forward_pre_hook(book, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def take(self, macs: Macs) -> Cost:
        """Return what was booked since this was last asked, without its time.

        Args:
            macs: Of one sample's forward.
        """
        counted = [
            (samples, samples * sum(times * macs(mix) for mix, times in parts))
            for samples, parts in self._first
        ]
        num, cost = sum(n for n, _ in counted), sum(m for _, m in counted)
        self._counted = (self._counted[0] + num, self._counted[1] + cost)
        each = self._counted[1] / max(1, self._counted[0])
        found = Cost(samples=num + self._more, macs=round(cost + each * self._more))
        self._first, self._more = [], 0
        return found

    def to_json(self) -> list[float]:
        """Return what is known of the first passes, of which none is left to be taken."""
        return [self._left, *self._counted]

    def load(self, known: Sequence[float]) -> None:
        """Take up what `to_json` returned."""
        left, samples, macs = known
        self._left, self._counted = int(left), (int(samples), macs)


def _parts(selected: Architecture | Mix) -> list[tuple[Architecture | Mix, int]]:
    """Return what runs of a pass, and how often: a backward is two forwards.

    What is held computes without a graph, so it runs forward only.
    """
    if isinstance(selected, Architecture):
        return [(selected, 3 if torch.is_grad_enabled() else 1)]
    runs = {label: dict.fromkeys(options, 1.0) for label, options in selected.items()}
    if not torch.is_grad_enabled():
        return [(runs, 1)]
    back = {
        label: {o: 1.0 for o, weight in options.items() if not isinstance(weight, Held)}
        for label, options in selected.items()
    }
    return [(runs, 3)] if runs == back else [(runs, 1), (back, 2)]
