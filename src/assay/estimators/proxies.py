"""The space and the task made cheap, as the estimators that train or measure networks use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.contracts import Context
from assay.cost import derive
from assay.errors import InvalidSetting, InvalidSpace
from assay.space.forward import beside, run
from assay.space.space import Space
from assay.train.proxy import proxy_task
from assay.train.splits import leaves
from assay.train.task import Task

__all__ = ["augments", "proxies", "repeats"]

_LARGE = 32
_SMALLER = 0.5
_TRIED = 3  # architectures that are run on smaller images before any is trained on them
_OFTEN = 5


def proxies(
    ctx: Context,
    *,
    variant: Mapping[str, Any] | None = None,
    resolution: float = 0.0,
    data: float = 1.0,
    proxy: Task | None = None,
    augment: bool = True,
) -> tuple[Space, Task]:
    """Return the space whose networks stand for those of the context, and the task they are given.

    Args:
        ctx: The space and task proper.
        variant: Options that make the networks smaller; None for those that the space names itself.
        resolution: Share of the side of images; 0 for one half from 32 pixels on, where networks of
            the space take such images and return the same shapes, and else all.
        data: Share of the training samples.
        proxy: Another task in place of the context's; the space is made anew for its inputs.
        augment: Whether training batches are augmented.
    Raises:
        InvalidSetting: a space without such a variant, data that cannot be cut, or a resolution
            that its networks cannot take or inputs have not.
    """
    task = ctx.task if proxy is None else proxy
    if 0 < resolution < 1 and not _shape(task):
        raise InvalidSetting(f"resolution={resolution} needs images [N, C, H, W]; leave it out")
    options = dict(ctx.space.cheap if variant is None else variant)
    if proxy is not None:
        options |= {"input_shape": _shape(proxy), "num_classes": proxy.num_classes}
    space = ctx.space.variant(**options) if options else ctx.space
    share = resolution or (_SMALLER if min(_shape(task)[1:], default=0) >= _LARGE else 1.0)
    cheap = proxy_task(task, data=data, resolution=share, augment=augment, seed=ctx.seed)
    if share == 1 or not (why := _misfit(space, task, cheap, ctx.seed)):
        return space, cheap
    if resolution:
        raise InvalidSetting(f"resolution={resolution}: {why}; give resolution=1")
    return space, proxy_task(task, data=data, augment=augment, seed=ctx.seed)


def augments(ctx: Context, steps: int, *, data: float = 1.0, proxy: Task | None = None) -> bool:
    """Whether a training of so many steps sees its samples often enough to need augmentation.

    What is seen a few times is not learned by heart, and augmenting it only slows learning down,
    which a proxy can afford least.
    """
    return _views(ctx, steps, data, proxy) > _OFTEN


def repeats(ctx: Context, steps: int, *, data: float = 1.0, proxy: Task | None = None) -> bool:
    """Whether a training of so many steps sees samples again.

    Up to there each training loss is that of samples not seen before, as on validation.
    """
    return _views(ctx, steps, data, proxy) > 1


def _misfit(space: Space, task: Task, cheap: Task, seed: int) -> str:
    """Say why networks of a space cannot do a task on smaller images; "" where they can.

    A layer for a fixed number of inputs cannot, nor can a network with an output for each pixel.
    """
    rng = derive(seed, "smaller images")
    for _ in range(_TRIED):
        point = space.sample(rng)
        network = space.build(point).eval()
        whole = _outputs(space, network, task, point)
        try:
            small = _outputs(space, network, cheap, point)
        except InvalidSpace as error:
            return f"on smaller images {error}"
        if small != whole:
            return f"on smaller images networks return {small} in place of {whole}"
    return ""


def _outputs(
    space: Space, network: nn.Module, task: Task, point: Architecture
) -> list[tuple[int, ...]]:
    """Return the shapes that a network returns for two inputs of a task."""
    with torch.no_grad():
        told = run(space, network, beside(network, task.example(2)), point)
    return [tuple(output.shape) for output in leaves(told)]


def _views(ctx: Context, steps: int, data: float, proxy: Task | None) -> float:
    """Return how often so many steps see each sample."""
    task = ctx.task if proxy is None else proxy
    return steps / (data * task.steps_per_epoch(ctx.recipe.batch_size))  # a loader has its own size


def _shape(task: Task) -> tuple[int, ...]:
    """Return the shape of one input without its batch, () for what is no batch of images."""
    first = next(leaves(task.example(1)))
    return tuple(first.shape[1:]) if first.ndim == 4 else ()
