"""Random search: the baseline that every strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from assay.contracts import History, Proposal

__all__ = ["Random"]


@dataclass(frozen=True)
class Random:
    """Draws architectures without looking at the history.

    Args:
        over: "architectures" draws each equally often; "decisions" each decision's options.
    """

    over: Literal["architectures", "decisions"] = "architectures"

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n random proposals."""
        return [Proposal(history.space.sample(rng, over=self.over)) for _ in range(n)]
