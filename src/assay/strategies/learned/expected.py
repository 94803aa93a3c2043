"""A measured quantity as a sum over decisions, so that its expectation has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas

__all__ = ["Expected"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_SAMPLES_PER_OPTION = 2


class Expected:
    """The expectation of a quantity under a distribution over architectures, differentiable.

    The quantity is taken for F_0 + sum over the decisions c taken of F_c(option), fitted by least
    squares to its values for random architectures; so its expectation is

        E = F_0 + sum_c P(c is taken) sum_o p_c(o) F_c(o).

    Source: Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332, section 3.3.1, equation 4; differs:
    the paper's F are those of a table for a block of fixed shape. Where widths are open a block's
    latency depends on them, and the sum is an approximation: `error` says how good.

    Args:
        space: The space.
        measure: The quantity of an architecture, such as a latency table's milliseconds.
        seed: Names the architectures it is fitted to.
    Attributes:
        base: F_0.
        costs: Label -> F_c `[number of options]`.
        error: Root mean squared error of the sum on as many other architectures, as a share of
            their mean.
    """

    def __init__(
        self, space: Space, measure: Callable[[Architecture], float], *, seed: int = 0
    ) -> None:
        self._space = space
        num = _SAMPLES_PER_OPTION * sum(len(c.options) for c in space.choices.values())
        rng = derive(seed, "expected")
        points = [space.sample(rng, over="decisions") for _ in range(2 * num)]
        rows, values = _rows(space, points), np.array([measure(a) for a in points])
        fitted, held = slice(num), slice(num, None)
        found = np.linalg.lstsq(rows[fitted], values[fitted])[0]  # of all solutions the least
        self.base, self.costs = float(found[-1]), dict[str, Tensor]()
        at = 0
        for label, choice in space.choices.items():
            self.costs[label] = torch.from_numpy(found[at : at + len(choice.options)].copy())
            at += len(choice.options)
        gaps = rows[held] @ found - values[held]
        self.error = float(np.sqrt(np.mean(gaps**2)) / abs(np.mean(values[held])))

    def of(self, architecture: Architecture) -> float:
        """Return the sum for one architecture; no measurement is asked for."""
        taken = (
            (self.costs[k], self._space.choices[k].options.index(o))
            for k, o in architecture.items()
        )
        return self.base + sum(float(cost[at]) for cost, at in taken)

    def __call__(self, alphas: Alphas) -> Tensor:
        """Return the expectation, a float64 scalar; differentiable where the logits are."""
        total = torch.tensor(self.base, dtype=torch.float64)
        for label, cost in self.costs.items():
            total = total + alphas.reached(label) * (alphas.probabilities(label) * cost).sum()
        return total


def _rows(
    space: Space, points: Sequence[Architecture]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    encoded = np.stack([space.encode(a) for a in points])
    return np.column_stack([encoded, np.ones(len(points))])
