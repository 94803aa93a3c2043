"""A space, a task and a history that are small enough to test on and large enough to be real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.contracts import Context, Estimate, History, Trial, TrialState
from assay.cost import Cost, derive
from assay.executors.inline import Inline
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["TinyNet", "tiny_context", "tiny_history", "tiny_space", "tiny_task"]

_FEATURES, _CLASSES, _CHANNELS = 6, 3, 8


class TinyNet(nn.Module):
    """Options, nested in an open depth, and an open width: features `[N, 6]` to 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        width = Width(4, 6, 8)
        self.stem = nn.Linear(_FEATURES, _CHANNELS)
        self.body = Depth(*[_block() for _ in range(5)], min=1)
        self.neck = nn.Sequential(nn.Linear(_CHANNELS, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[N, 3]` of features `[N, 6]`."""
        logits: Tensor = self.head(self.neck(self.body(self.stem(x))))
        return logits


def _block() -> OneOf:
    thin = nn.Sequential(nn.Linear(_CHANNELS, 2), nn.Linear(2, _CHANNELS))
    return OneOf(
        wide=nn.Sequential(nn.Linear(_CHANNELS, _CHANNELS), nn.ReLU()), thin=thin, tanh=nn.Tanh()
    )


def tiny_space() -> Space:
    """Return a fresh space of 1,089 architectures, with its example input `[2, 6]`."""
    return Space(TinyNet, example=torch.zeros(2, _FEATURES))


def tiny_task(samples: int = 150) -> Task:
    """Return a task that a tiny network can learn: the class is the largest of three features.

    Args:
        samples: Of all three splits together.
    """
    features = derive(0, "tiny task").normal(size=(samples, _FEATURES)).astype(np.float32)
    return Task.from_arrays(features, features[:, :_CLASSES].argmax(1), name="tiny")


def tiny_context(
    *, history: History | None = None, recipe: Recipe | None = None, seed: int = 0
) -> Context:
    """Return a context with a fresh tiny space (or the history's), on the CPU, run inline.

    Args:
        history: All trials so far; None for none, of a fresh space.
        recipe: How weights are trained.
        seed: Of the study.
    """
    past = History(tiny_space()) if history is None else history
    how = recipe if recipe is not None else Recipe(batch_size=16, epochs=1)
    return Context(past.space, tiny_task(), how, Inline(), "cpu", seed, past)


def tiny_history(
    space: Space,
    num: int,
    *,
    states: Sequence[TrialState] = ("scored", "infeasible", "scored", "failed"),
    objectives: int = 2,
    seed: int = 0,
) -> History:
    """Return a history of distinct random architectures, in states that repeat in turn.

    Args:
        space: The space; must have more than `num` architectures.
        num: Trials.
        states: Of trials 0, 1, ...; over again when they are used up.
        objectives: Values of each scored trial, random.
        seed: Names the draws.
    """
    rng = derive(seed, "tiny history")
    history = History(space)
    while len(history) < num:
        point = space.canonical(space.sample(rng))
        if history.seen(point) is None:
            history.append(_trial(len(history), point, states, rng, objectives))
    return history


def _trial(
    number: int, point: Any, states: Sequence[TrialState], rng: np.random.Generator, width: int
) -> Trial:
    state = states[number % len(states)]
    values = tuple(float(v) for v in rng.normal(size=width))
    measured = {"latency_ms": float(rng.uniform(0.1, 1.0)), "macs": float(rng.integers(1000))}
    if state == "scored":
        estimate = Estimate(values[0], {"loss": -values[0]}, Cost(0.01, 32, device="cpu"))
        return Trial(number, point, state, estimate, measured, values)
    over = float(rng.uniform(0.01, 2.0)) if state == "infeasible" else 0.0
    error = "Traceback ...\nValueError: made to fail" if state == "failed" else None
    return Trial(number, point, state, measured=measured, violation=over, error=error)
