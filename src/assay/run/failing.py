"""What is kept of a failure, and which failures may pass by themselves."""

from __future__ import annotations

import torch

from assay.errors import AssayError, WorkerDied

__all__ = ["may_pass", "reason"]

_PASSING = (MemoryError, torch.OutOfMemoryError, WorkerDied)


def may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: a lack of memory, or a process that was killed.

    What may pass is not kept as a result; the next call on the same folder tries again.
    """
    return isinstance(error, _PASSING)


def reason(error: BaseException) -> str:
    """Return an error as one says it: by its message, after its class where it is not Assay's."""
    said = str(error)
    if isinstance(error, AssayError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
