"""What ENAS searches in its paper, trained by it. For DARTS see tests/zoo/test_darts.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.contracts import Context, History
from assay.cost import Budget, derive
from assay.estimators.one_shot import OneShot
from assay.executors.inline import Inline
from assay.space.space import Space
from assay.strategies.learned.controller import Controller
from assay.strategies.learned.enas import ENAS
from assay.train.arrays import in_memory
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.zoo.enas import macro, micro

SPACES = {
    "enas-macro": lambda: macro(num_classes=2, layers=3, channels=2),
    "enas-micro": lambda: micro(num_classes=2, nodes=2, channels=2),
}


def of_shades(space: Space) -> Context:
    """Return a context of 110 images `[1, 8, 8]` of two classes, bright and dark."""
    rng = derive(0, "shades")
    y = rng.integers(0, 2, 110)
    x = rng.normal(size=(110, 1, 8, 8)) + 2.0 * y[:, None, None, None]
    x, y = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    splits = in_memory((x[:60], y[:60]), (x[60:100], y[60:100]), (x[100:], y[100:]))
    task = Task.of_classes(*splits, augment=None, name="shades")
    return Context(space, task, Recipe(batch_size=16), Inline(), "cpu", 0, History(space))


@pytest.mark.parametrize("name", SPACES)
def test_enas_trains_its_controller_on_its_own_spaces(name: str) -> None:
    """All of it: embeddings, the LSTM, the heads of operations, the attention over what is read."""
    ctx = of_shades(SPACES[name]())
    strategy = ENAS(warmup=0.0, every=1, hidden=8, paths_each=2, batch=16)
    estimator = OneShot(paths=strategy.paths, states=1)
    list(estimator.prepare(ctx, Budget(steps=2)))
    before = Controller(ctx.space, hidden=8, layers=1, seed=ctx.seed).state_dict()
    after = strategy.paths.known.state_dict()
    assert after.keys() == before.keys()
    assert [name for name in after if torch.equal(after[name], before[name])] == []
    asked = strategy.ask(ctx.history, 3, rng=derive(0, "ask"))
    assert all(ctx.space.contains(proposal.architecture) for proposal in asked)
    scores = [estimate.score for estimate in estimator.estimate(ctx, asked)]
    assert np.isfinite(scores).all()
