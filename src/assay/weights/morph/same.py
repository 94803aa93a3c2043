"""Whether two networks compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from assay.errors import AssayError
from assay.train.modes import evaluating
from assay.train.splits import leaves
from assay.train.task import call_model

__all__ = ["InDouble", "assert_same_function", "judging"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 3e-2


@contextmanager
def judging(*models: nn.Module) -> Iterator[None]:
    """Within: eval mode and no gradients; after: every module in the mode it had."""
    with evaluating(*models), torch.no_grad():
        yield


class InDouble(TorchFunctionMode):
    """Within: what a forward casts to float32, or makes in it, is float64 as its weights are."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch on float64 in the place of float32."""
        if func is Tensor.float:
            func = Tensor.double
        return tree_map(
            _doubled, func(*tree_map(_doubled, args), **tree_map(_doubled, kwargs or {}))
        )


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype == torch.float32 else value
    return torch.float64 if value is torch.float32 else value


def assert_same_function(
    before: nn.Module, after: nn.Module, example: Any, *, tolerance: float | None = None
) -> None:
    """Refuse a network whose output is not that of another one, both in eval mode.

    The largest absolute difference counts, so that errors of opposite sign do not cancel. An
    infinity is the same as itself alone, and nothing is the same as NaN.

    Args:
        before: The network that was grown; left as it is.
        after: What it became; left as it is.
        example: Inputs `[N, ...]` of both, a tensor, tuple or dict.
        tolerance: Largest difference, relative to the largest finite output above 1; 1e-9 for
            float64 by default, 1e-4 for float32, 3e-2 for shorter ones.
    Raises:
        AssayError: the outputs differ by more, in shape or in number, or in what is no tensor; the
            message says by how much.
    """
    with judging(before, after):
        outputs: list[list[Any]] = [list(leaves(call_model(m, example))) for m in (before, after)]
    wanted, found = outputs
    forms = [[_form(leaf) for leaf in own] for own in outputs]
    if forms[0] != forms[1]:
        raise AssayError(
            f"a morph changed the output from {forms[0]} to {forms[1]}; do not use this network"
        )
    for w, f in zip(wanted, found):
        if not isinstance(w, Tensor):
            continue
        limit = _TOLERANCE.get(w.dtype, _COARSE) if tolerance is None else tolerance
        w, f = w.double(), f.double()
        difference = _largest((w - f)[w != f])  # without equal infinities, whose difference is NaN
        scale = max(1.0, _largest(w[w.isfinite()]))
        if not difference <= limit * scale:
            raise AssayError(
                f"a morph changed the function: outputs of up to {scale:.3g} differ by "
                f"{difference:.3g}, more than {limit:g} of that; do not use this network"
            )


def _form(leaf: Any) -> Any:
    """Return the shape of a tensor, or what is no tensor."""
    return list(leaf.shape) if isinstance(leaf, Tensor) else leaf


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
