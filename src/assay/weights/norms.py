"""Batch-norm statistics of paths, kept beside the model and never in it.

The weights of a supernet serve all paths, but the statistics of its norms belong to one path.
Before a path is judged they are measured on training batches (in train mode, averaged
cumulatively), or each batch is normalised by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from assay.errors import InvalidSetting
from assay.train.frozen import frozen_norms

__all__ = ["NormMode", "Norms", "recalibrate"]

NormMode = Literal["recalibrate", "batch"]
"""Statistics measured for each path, or each batch's own."""

_SHADOWED = ("running_mean", "running_var", "num_batches_tracked", "training", "momentum")


class Norms:
    """Statistics of every norm under every key (the path, or the prefix that leads there).

    Args:
        model: Its batch and instance norms with running statistics are the ones meant, but for
            those that are frozen: they keep their own.
        key: Called at each norm's forward; statistics are kept under (norm, key()).
    """

    def __init__(self, model: nn.Module, key: Callable[[], Hashable]) -> None:
        self._norms = _gathering(model, _NormBase)
        self._key = key
        self._kept: dict[Hashable, tuple[Tensor, Tensor, Tensor]] = {}
        self._before: dict[int, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._norms)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within: norms use each batch's statistics and average them cumulatively, from none on.

        Raises:
            InvalidSetting: within, for a batch of one value for each channel.
        """
        self._kept = {}
        with self._hooked(self._measure):
            yield

    @contextmanager
    def using(self) -> Iterator[None]:
        """Within: norms use the statistics measured."""
        with self._hooked(self._use):
            yield

    @contextmanager
    def by_batch(self) -> Iterator[None]:
        """Within: norms use each batch's own statistics and keep none.

        Raises:
            InvalidSetting: within, for a batch of one value for each channel.
        """

        def by_batch(norm: Any, given: tuple[Tensor, ...]) -> None:
            batch = isinstance(norm, _BatchNorm)
            if batch:
                _refuse_single(given)
            self._shadow(norm, running_mean=None, running_var=None, training=not batch)

        with self._hooked(by_batch):
            yield

    def _measure(self, norm: Any, given: tuple[Tensor, ...]) -> None:
        batch = isinstance(norm, _BatchNorm)
        if batch:
            _refuse_single(given)
        mean, var, count = self._kept.setdefault(
            (id(norm), self._key()),
            (torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var),
             torch.zeros((), dtype=torch.long)),
        )  # fmt: skip
        if not batch:  # it does not average cumulatively by itself
            count += 1
        self._shadow(
            norm, running_mean=mean, running_var=var, num_batches_tracked=count,
            training=True, momentum=None if batch else 1 / int(count),
        )  # fmt: skip

    def _use(self, norm: Any, _: Any) -> None:
        mean, var, _count = self._kept[id(norm), self._key()]
        self._shadow(norm, running_mean=mean, running_var=var, training=False)

    def _shadow(self, norm: nn.Module, **values: Any) -> None:
        here = norm.__dict__
        self._before[id(norm)] = {name: here[name] for name in _SHADOWED if name in here}
        here.update(values)

    def _restore(self, norm: nn.Module, *_: Any) -> None:
        for name in _SHADOWED:
            norm.__dict__.pop(name, None)
        norm.__dict__.update(self._before.pop(id(norm), {}))

    @contextmanager
    def _hooked(self, before: Callable[[Any, Any], None]) -> Iterator[None]:
        hooks = [norm.register_forward_pre_hook(before) for norm in self._norms]
        hooks += [n.register_forward_hook(self._restore, always_call=True) for n in self._norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _gathering(model: nn.Module, kind: type[_NormBase]) -> list[Any]:
    """Return the norms of a kind with running statistics that are not frozen."""
    frozen = set(frozen_norms(model))
    return [
        m for m in model.modules()
        if isinstance(m, kind) and m.track_running_stats and m not in frozen
    ]  # fmt: skip


def _refuse_single(given: tuple[Tensor, ...]) -> None:
    """Refuse what a norm is given, `[N, C, ...]`, where each channel has one value only."""
    if given and given[0].ndim > 1 and given[0].numel() == given[0].shape[1]:
        raise InvalidSetting(
            f"a batch norm is given {list(given[0].shape)}: one value for each channel has no "
            "variance; judge and calibrate on splits of two samples or more, and make a DataLoader "
            "with drop_last=True where its last batch has one"
        )


def recalibrate(model: nn.Module, batches: Callable[[], Iterator[Any]]) -> None:
    """Measure the running statistics of a plain network's batch norms anew, in place.

    Those that are frozen keep theirs. Cumulative averages over the batches, norms in train mode,
    everything else in eval mode.

    Source: Guo et al. 2019, arXiv:1904.00420, section 3.3; differs: cumulative average in place of
    an exponential one, which forgets the first batches.

    Args:
        model: A network without choices; left in eval mode.
        batches: Makes an iterator of `(inputs, targets)`.
    """
    from assay.train.task import call_model

    norms = _gathering(model, _BatchNorm)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for inputs, _ in batches():
                call_model(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.eval()
