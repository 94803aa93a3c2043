"""SMASH's search: random ones, changes of the best of them, then steps that are kept if better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assay.architecture import Architecture
from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting

if TYPE_CHECKING:
    from assay.space.space import Space

__all__ = ["Smash"]


@dataclass(frozen=True)
class Smash:
    """Draws at random, perturbs the best, and climbs from there.

    The first `random` scored trials are random architectures. The next `around` are perturbations
    of the best of those. All that follow are perturbations of the best so far, which a better one
    replaces. Trials over a limit and failed ones count for nothing.

    Source: Brock et al. 2017, "SMASH", arXiv:1708.05344, section 4; differs: a perturbation that
    changed nothing changes one decision, the climb has no last step, and the children of one batch
    have the same parent.

    Args:
        random: Scored trials before the first perturbation.
        around: Scored trials around the best of the random ones.
        rate: Probability that a perturbation draws a decision anew.
    Raises:
        InvalidSetting: no random trial, a negative count, or a rate outside (0, 1].
    """

    random: int = 500
    around: int = 100
    rate: float = 0.05

    def __post_init__(self) -> None:
        if self.random < 1 or self.around < 0:
            raise InvalidSetting(
                f"smash with random={self.random}, around={self.around}: give at least 1 random "
                "trial, and 0 or more around the best"
            )
        if not 0.0 < self.rate <= 1.0:
            raise InvalidSetting(f"strategy.rate={self.rate} must be in (0, 1]")

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n random architectures or n perturbations, as far as the search has come."""
        scored = [trial for trial in history.ended() if trial.state == "scored"]
        if len(scored) < self.random:
            return [Proposal(history.space.sample(rng)) for _ in range(n)]
        parent = self._parent(scored)
        children = [self._perturbed(history.space, parent.architecture, rng) for _ in range(n)]
        return [Proposal(child, parent=parent.number) for child in children]

    def _parent(self, scored: Sequence[Trial]) -> Trial:
        climbing = len(scored) >= self.random + self.around
        known = scored if climbing else scored[: self.random]
        return max(known, key=lambda trial: (trial.objectives[0], -trial.number))

    def _perturbed(
        self, space: Space, point: Architecture, rng: np.random.Generator
    ) -> Architecture:
        """Draw each decision anew with probability `rate`; what this opens is drawn uniformly."""
        kept = {label: option for label, option in point.items() if rng.random() >= self.rate}
        drawn = space.complete(
            kept, lambda choice: choice.options[int(rng.integers(len(choice.options)))]
        )
        return space.mutate(point, rng) if drawn == point else drawn
