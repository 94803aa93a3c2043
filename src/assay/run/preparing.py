"""Preparing an estimator so that a kill loses seconds: state saved on the way, taken up again."""

from __future__ import annotations

import time
from pathlib import Path

from assay.contracts import Context, Estimator
from assay.cost import Budget, Cost
from assay.estimators.training import Stretch
from assay.run.steps import Step
from assay.run.watch import Watch
from assay.train.files import load_tensors, save_tensors

__all__ = ["prepare"]

_SAVE_EVERY_S = 5.0


def prepare(
    estimator: Estimator,
    ctx: Context,
    step: Step,
    steps: int,
    *,
    out: Path,
    name: str,
    watch: Watch | None = None,
) -> None:
    """Prepare an estimator for `steps` steps in all, from where an earlier run left it.

    Args:
        estimator: Fresh; what an earlier run saved is loaded.
        ctx: What it may use.
        step: Under way; its pointer says what was saved.
        steps: Of training, as `Estimator.prepare` understands them.
        out: Folder of the study.
        name: How files of its state are called.
        watch: Follows what is learned meanwhile; None where nothing is.
    """
    if step.pointer:
        estimator.load_state_dict(load_tensors(out / step.pointer))
    saved, spent = time.monotonic(), Cost()
    for cost in estimator.prepare(ctx, Budget(steps=steps)):
        spent += cost
        step.done = min(steps, step.done + _steps_of(cost, ctx))
        if watch is not None:
            watch.look(step)
        step.tell()
        if time.monotonic() - saved >= _SAVE_EVERY_S:
            _save(estimator, ctx, step, spent, out, name)
            if watch is not None:
                watch.keep("step", steps)
            saved, spent = time.monotonic(), Cost()
    if not step.finished:
        step.done = steps
        _save(estimator, ctx, step, spent, out, name)
    if watch is not None:  # of an earlier run too, which may have been killed just before
        watch.look(step)
        watch.keep("step", steps)


def _steps_of(cost: Cost, ctx: Context) -> int:
    """Return how many steps a cost is of; where it does not say, each batch counts as one."""
    return cost.steps if isinstance(cost, Stretch) else cost.samples // ctx.recipe.batch_size


def _save(
    estimator: Estimator, ctx: Context, step: Step, spent: Cost, out: Path, name: str
) -> None:
    """Write the state under a new name, then book it and what was spent at once."""
    old, new = step.pointer, f"weights/{name}-{step.done}.safetensors"
    if new == old:  # something was done, but no step was counted
        new = f"weights/{name}-{step.done}-more.safetensors"
    save_tensors(out / new, dict(estimator.state_dict()))
    step.checkpoint(pointer=new, samples=spent.samples, macs=spent.macs, device=ctx.device)
    if old:
        (out / old).unlink(missing_ok=True)
