"""A measured quantity as a sum over decisions, so that its expectation has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture, Option
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.extremes import lowest
from assay.space.space import Space
from assay.space.structure import Choice
from assay.strategies.learned.alphas import Alphas, chance_taken

__all__ = ["Expected"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_SAMPLES_PER_OPTION = 2


class Expected:
    """The expectation of a quantity under a distribution over architectures, differentiable.

    The quantity is taken for F_0 + sum over the decisions c taken of F_c(option), fitted by least
    squares to its values for random architectures, among them some for each option; so its
    expectation is

        E = F_0 + sum_c P(c is taken) sum_o p_c(o) F_c(o).

    Source: Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332, section 3.3.1; differs: the paper's F
    are those of a table for a block of fixed shape. Where widths are open a block's latency depends
    on them, and the sum is an approximation: `error` says how good.

    Args:
        space: The space.
        measure: The quantity of an architecture, such as a latency table's milliseconds.
        seed: Names the architectures it is fitted to.
    Attributes:
        base: F_0.
        costs: Label -> F_c `[number of options]`.
        values: Of the architectures measured, `[number of architectures]`.
        error: Root mean squared error of the sum on the half of them that it was not fitted to, as
            a share of their mean.
    Raises:
        InvalidSetting: the quantity is 0 wherever it was measured.
    """

    def __init__(
        self, space: Space, measure: Callable[[Architecture], float], *, seed: int = 0
    ) -> None:
        self._space = space
        self._measure = measure
        rng = derive(seed, "expected")
        every = [(choice, option) for choice in space.choices.values() for option in choice.options]
        points = [_taking(space, *one, rng) for one in 2 * _SAMPLES_PER_OPTION * every]
        num = len(points) // 2
        rows, self.values = _rows(space, points), np.array([measure(a) for a in points], float)
        self._least = points[int(self.values.argmin())]
        if not self.values.any():
            raise InvalidSetting(
                f"the quantity in the loop is 0 for all of {len(points)} random architectures; "
                "give another strategy.quantity, or '' for none"
            )
        fitted, held = slice(num), slice(num, None)
        found = np.linalg.lstsq(rows[fitted], self.values[fitted])[0]  # of all solutions the least
        self.base, self.costs = float(found[-1]), dict[str, Tensor]()
        at = 0
        for label, choice in space.choices.items():
            self.costs[label] = torch.from_numpy(found[at : at + len(choice.options)].copy())
            at += len(choice.options)
        gaps = rows[held] @ found - self.values[held]
        self.error = float(np.sqrt(np.mean(gaps**2)) / np.mean(np.abs(self.values)))

    def __call__(self, alphas: Alphas) -> float:
        """Return the expectation."""
        return self.by_option(alphas)[0]

    def by_option(self, alphas: Alphas) -> tuple[float, dict[str, Tensor]]:
        """Return the expectation, and what it is where a decision is taken, by its options.

        E is linear in each p_c, and dE/dp_c(o) / P(c is taken) = C_c(o), which is F_c(o) and what
        is expected of the decisions that o leads to; and something that all options of c have
        alike, so that only differences mean anything. Of a decision that cannot be taken it is no
        number.

        Returns:
            E; label -> C_c `[number of options]`.
        """
        p = {k: alphas.probabilities(k).detach().requires_grad_() for k in self.costs}
        taken = {label: chance_taken(self._space, label, p) for label in p}
        terms = [taken[label] * (p[label] * cost).sum() for label, cost in self.costs.items()]
        total = self.base + torch.stack(terms).sum()
        slopes = torch.autograd.grad(total, list(p.values()))
        costs = {label: slope / taken[label].detach() for label, slope in zip(p, slopes)}
        return float(total.detach()), costs

    def cheapest(self) -> Architecture:
        """Return what has least of the quantity itself, as far as one decision at a time finds it.

        It begins with the best of those measured; see `lowest` for where that is exact.
        """
        return lowest(self._space, self._measure, self._least, lambda choice: choice.options[0])


def _taking(space: Space, choice: Choice, option: Option, rng: np.random.Generator) -> Architecture:
    """Draw an architecture with an option of a decision, however seldom draws would lead to it."""

    def any_of(options: Sequence[Option]) -> Option:
        return options[int(rng.integers(len(options)))]

    way = choice.conditions[int(rng.integers(len(choice.conditions)))]
    fixed = {
        label: any_of([o for o in space.choices[label].options if o in options])
        for label, options in way
    }
    return space.complete({**fixed, choice.label: option}, lambda c: any_of(c.options))


def _rows(space: Space, points: Sequence[Architecture]) -> Array:
    encoded = np.stack([space.encode(a) for a in points])
    return np.column_stack([encoded, np.ones(len(points))])
