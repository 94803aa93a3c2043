"""Whether two networks compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from assay.errors import AssayError
from assay.train.splits import leaves
from assay.train.task import call_model

__all__ = ["assert_same_function", "judging"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 3e-2


@contextmanager
def judging(*models: nn.Module) -> Iterator[None]:
    """Within: eval mode and no gradients; after: every module in the mode it had."""
    modes = [(m, m.training) for model in models for m in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def assert_same_function(
    before: nn.Module, after: nn.Module, example: Any, *, tolerance: float | None = None
) -> None:
    """Refuse a network whose output is not that of another one, both in eval mode.

    The largest absolute difference counts, so that errors of opposite sign do not cancel.

    Args:
        before: The network that was grown; left as it is.
        after: What it became; left as it is.
        example: Inputs `[N, ...]` of both, a tensor, tuple or dict.
        tolerance: Largest difference, relative to the largest output above 1; by default 1e-9 for
            float64, 1e-4 for float32, 3e-2 for shorter ones.
    Raises:
        AssayError: the outputs differ by more, in shape or in number; the message says by how much.
    """
    with judging(before, after):
        wanted, found = (list(leaves(call_model(m, example))) for m in (before, after))
    if [w.shape for w in wanted] != [f.shape for f in found]:
        raise AssayError(
            f"a morph changed the output from {[list(w.shape) for w in wanted]} to "
            f"{[list(f.shape) for f in found]}; do not use this network"
        )
    for w, f in zip(wanted, found):
        limit = _TOLERANCE.get(w.dtype, _COARSE) if tolerance is None else tolerance
        difference = float((w.double() - f.double()).abs().max()) if w.numel() else 0.0
        scale = max(1.0, float(w.abs().max())) if w.numel() else 1.0
        if not difference <= limit * scale:
            raise AssayError(
                f"a morph changed the function: outputs of up to {scale:.3g} differ by "
                f"{difference:.3g}, more than {limit:g} of that; do not use this network"
            )
