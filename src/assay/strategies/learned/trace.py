"""What was known on the way of a learning, at moments spread evenly over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from assay.contracts import Learning

__all__ = ["Trace"]

_MOST = 80


class Trace:
    """Keeps what was known at every k-th step; k grows, so that these are never many.

    Which steps are kept depends on the steps offered alone, so a learning that was interrupted
    leaves the same trace.

    Args:
        steps: In all; 0 where nobody knows.
    """

    def __init__(self, steps: int = 0) -> None:
        self._every = max(1, math.ceil(steps / _MOST))
        self.kept: list[Learning] = []

    def due(self, step: int) -> bool:
        """Whether what is known at this step would be kept."""
        return step % self._every == 0

    def keep(self, known: Learning) -> None:
        """Keep what is known at a step that is due."""
        self.kept.append(known)
        while len(self.kept) > _MOST:
            self._every *= 2
            self.kept = [k for k in self.kept if self.due(k.step)]

    def up_to(self, now: Learning) -> Sequence[Learning]:
        """Return what was kept, and what is known now."""
        return [*(k for k in self.kept if k.step < now.step), now]

    def to_json(self) -> list[Any]:
        """Return what was kept as JSON."""
        return [asdict(k) for k in self.kept]

    def load(self, kept: Sequence[Any]) -> None:
        """Take up what `to_json` returned."""
        self.kept = []
        for known in kept:
            self.keep(Learning(**known))
