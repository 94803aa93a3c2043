"""Which failures may pass by themselves."""

from __future__ import annotations

import torch

from assay.errors import WorkerDied

__all__ = ["may_pass"]

_PASSING = (MemoryError, torch.OutOfMemoryError, WorkerDied)


def may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: a lack of memory, or a process that was killed.

    What may pass is not kept as a result; the next call on the same folder tries again. The samples
    that `predictor` and `fused` learn from do keep it: there another architecture takes its place.
    """
    return isinstance(error, _PASSING)
