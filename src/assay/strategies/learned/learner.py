"""What paths that learn have in common: a distribution, when it moves and on what; its state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from assay.architecture import Architecture
from assay.contracts import Context, Mix
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.train.files import under
from assay.train.splits import Stream
from assay.train.task import Task
from assay.weights.supernet import Supernet

__all__ = ["Learner"]


class Learner(ABC):
    """Paths that come from a distribution over architectures, which moves while they train.

    A supernet's estimator calls `begin` before it trains, and the supernet `learn` before each of
    its steps. A subclass says which paths a step takes (`passes`), and how a batch of validation
    samples moves the distribution (`_move`).

    Args:
        warmup: Share of the steps before the distribution is moved for the first time.
        every: Weight steps for each move.
        batch: Validation samples of a move.
    """

    def __init__(self, *, warmup: float, every: int, batch: int) -> None:
        self._warmup = warmup
        self._every = every
        self._batch = batch
        self._alphas: Alphas | None = None
        self._loaded: Mapping[str, Any] = {}
        self._valid = Stream()
        self._seed = 0
        self._first = 0

    # --- what a supernet asks -----------------------------------------------------------------

    def begin(self, ctx: Context, space: Space, steps: int) -> None:
        """Begin to learn over a space; what was loaded is taken up.

        Args:
            ctx: Names the seed.
            space: Of the supernet.
            steps: Weight steps in all.
        """
        self._seed = ctx.seed
        self._first = math.ceil(self._warmup * steps)
        self._valid = Stream()
        self._alphas = Alphas(space)
        self._settle(ctx, space)
        if self._loaded:
            self.load_state_dict(self._loaded)

    def hasten(self) -> None:
        """Leave the warm-up out: for whoever times the steps."""
        self._first = 0

    def warming(self, step: int) -> bool:
        """Whether a step comes before the distribution counts."""
        return self._alphas is None or step < self._first

    def learn(self, supernet: Supernet, task: Task, step: int) -> None:
        """Move the distribution, if that is due before this weight step."""
        if step < self._first or (step - self._first) % self._every:
            return
        number = (step - self._first) // self._every
        batches = self._valid
        inputs, targets = batches.at(number, task.valid, self._batch, self._seed, supernet.device)
        self._move(supernet, task, inputs, targets, step)

    def _draws(self, step: int) -> np.random.Generator:
        return derive(self._seed, "learned", step)

    # --- what a subclass says -----------------------------------------------------------------

    @abstractmethod
    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return the paths or mixes of a weight step."""

    @abstractmethod
    def _settle(self, ctx: Context, space: Space) -> None:
        """Make what is kept beside the logits."""

    @abstractmethod
    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        """Move the logits."""

    @abstractmethod
    def _more_state(self) -> dict[str, Any]:
        """Return what is kept beside the logits: name -> tensor or JSON value."""

    @abstractmethod
    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Take up what `_more_state` returned."""

    # --- what is known ------------------------------------------------------------------------

    @property
    def known(self) -> Alphas:
        """The distribution as it is.

        Raises:
            InvalidSetting: no supernet has begun to train.
        """
        if self._alphas is None:
            raise InvalidSetting(
                "nothing was learned yet: this strategy needs an estimator that trains a supernet, "
                "such as 'one-shot'"
            )
        return self._alphas

    def over(self, space: Space) -> Alphas:
        """Return the distribution over a space with the decisions that it was learned on."""
        found = Alphas(space)
        if self._alphas is not None:
            found.load_state_dict(self._alphas.state_dict())
        elif self._loaded:
            found.load_state_dict(under("logits.", self._loaded))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the logits, and what is kept beside them."""
        if self._alphas is None:
            return dict(self._loaded)
        logits = {f"logits.{label}": v for label, v in self._alphas.state_dict().items()}
        return {**logits, **{f"more.{name}": v for name, v in self._more_state().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._loaded = dict(state)
        if self._alphas is not None and state:
            self._alphas.load_state_dict(under("logits.", state))
            self._take_up(under("more.", state))
