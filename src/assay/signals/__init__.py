"""Signals: what a network's weights at initialisation tell of its worth, without any training."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, InvalidSetting, NotFinite, nearest, reason

if TYPE_CHECKING:
    from torch import nn

    from assay.signals.probe import Probe
    from assay.train.task import Task

__all__ = ["SIGNALS", "SIZES", "attempt", "measure"]

SIGNALS: Mapping[str, str] = {
    "params": "assay.signals.size:params",
    "macs": "assay.signals.size:macs",
    "depth": "assay.signals.size:depth",
    "snip": "assay.signals.gradients:snip",
    "grad_norm": "assay.signals.gradients:grad_norm",
    "grasp": "assay.signals.gradients:grasp",
    "fisher": "assay.signals.gradients:fisher",
    "zico": "assay.signals.gradients:zico",
    "synflow": "assay.signals.data_free:synflow",
    "zen": "assay.signals.data_free:zen",
    "jacob_cov": "assay.signals.kernels:jacob_cov",
    "naswot": "assay.signals.kernels:naswot",
    "expressivity": "assay.signals.features:expressivity",
    "progressivity": "assay.signals.features:progressivity",
    "trainability": "assay.signals.features:trainability",
}
"""Name -> "module:function". Higher is better, as each paper claims it; AZ-NAS's complexity is
`macs`."""

SIZES = frozenset({"params", "macs", "depth"})
"""The signals that are the same whatever the weights."""


def measure(
    network: nn.Module, names: Sequence[str], *, batch: Any, task: Task, seed: int = 0
) -> dict[str, float]:
    """Measure signals of a network, computing once what several of them need.

    The network keeps its weights, gradients, buffers and modes, torch's generators their state. A
    signal does not depend on which others are asked for.

    Args:
        network: At initialisation, on the batch's device.
        names: Keys of `SIGNALS`.
        batch: `(inputs, targets)`, each `[N, ...]`, of 4 samples or more.
        task: Gives the loss.
        seed: Names what is drawn.
    Raises:
        InvalidSetting: an unknown name, too small a batch, or a signal that is not defined for
            such a network, or at which its code fails.
        NotFinite: a signal that is defined, but not finite here.
    Example:
        >>> import torch
        >>> from assay.testing import tiny_task
        >>> task, net = tiny_task(), torch.nn.Linear(6, 3)
        >>> measure(net, ["params", "macs"], batch=next(task.valid.batches(8)), task=task)
        {'params': 21.0, 'macs': 18.0}
    """
    values, refused = attempt(network, names, batch=batch, task=task, seed=seed)
    for refusal in refused.values():
        raise refusal
    return values


def attempt(
    network: nn.Module, names: Sequence[str], *, batch: Any, task: Task, seed: int = 0
) -> tuple[dict[str, float], dict[str, AssayError]]:
    """Measure the signals that can be; see `measure`.

    Returns:
        The signals that are defined and finite here, and for each of the others the error that
        says why it is not.
    Raises:
        InvalidSetting: an unknown name, or too small a batch.
        InvalidTask: the network's outputs do not fit the targets.
    """
    import torch

    from assay.signals.probe import Probe

    for name in names:
        if name not in SIGNALS:
            raise InvalidSetting(f"unknown signal {name!r}; {nearest(name, SIGNALS)}")
    values: dict[str, float] = {}
    refused: dict[str, AssayError] = {}
    with Probe(network, batch, task, seed).ready() as probe:
        for name in names:
            try:
                values[name] = _value(name, probe)
            except (InvalidSetting, NotFinite) as refusal:
                # A traceback would keep the network and its graph for as long as the refusal.
                refused[name] = refusal.with_traceback(None)
            except (AssayError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # signals run a user's code in ways it was not written for
                why = " ".join(reason(error).split())
                refused[name] = InvalidSetting(
                    f"the signal {name!r} cannot run this network ({why}); leave it out"
                )
    return values, refused


def _value(name: str, probe: Probe) -> float:
    module, _, function = SIGNALS[name].partition(":")
    value = float(getattr(importlib.import_module(module), function)(probe))
    if not math.isfinite(value):
        raise NotFinite(
            f"the signal {name!r} is {value} for this network: nothing passes through a part of "
            "it, or something overflows; leave the signal out, or take such a network for the worst"
        )
    return value
