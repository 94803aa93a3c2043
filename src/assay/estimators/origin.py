"""Which space and task an estimator's state belongs to."""

from __future__ import annotations

from assay.contracts import Context
from assay.errors import InvalidStudy

__all__ = ["same_origin"]


def same_origin(ctx: Context, saved: str, name: str) -> str:
    """Return what names the context's space and task, to be saved with what is prepared there.

    Args:
        ctx: What the estimator is used on.
        saved: The origin that came with a loaded state; "" for none.
        name: The estimator's, for the message.
    Raises:
        InvalidStudy: the loaded state is of another space or task; the message says which.
    """
    own = (ctx.space.fingerprint, ctx.task.fingerprint)
    used = (f"space than {ctx.space!r}", f"task than {ctx.task.name!r}")
    other = [
        f"another {what} (fingerprint {theirs[:8]}, not {mine[:8]})"
        for what, theirs, mine in zip(used, saved.split(), own)
        if theirs != mine
    ]
    if other:
        raise InvalidStudy(
            f"the saved {name} was prepared on {' and '.join(other)}; use what its study used, or "
            "prepare anew"
        )
    return " ".join(own)
