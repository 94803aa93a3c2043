"""What was written into: whoever shares a tensor with others can see it by torch's own count."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["times_written"]


def times_written(values: Any) -> list[int]:
    """Return how often each tensor was written into in place, as far as torch counts.

    Args:
        values: A tensor, or tuples, lists and dicts of anything; what is no tensor is passed over,
            and so is a tensor made in inference mode, of which torch keeps no count.
    Example:
        >>> import torch
        >>> x = torch.zeros(2)
        >>> times_written((x, 3)), times_written({"x": x.add_(1)})
        ([0], [1])
    """
    if isinstance(values, Tensor):
        return [] if values.is_inference() else [values._version]
    if isinstance(values, tuple | list | dict):
        items = values.values() if isinstance(values, dict) else values
        return [times for item in items for times in times_written(item)]
    return []
