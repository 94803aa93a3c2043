"""Which space an estimator's state belongs to."""

from __future__ import annotations

from assay.contracts import Context
from assay.errors import InvalidStudy

__all__ = ["same_space"]


def same_space(ctx: Context, saved: str, name: str) -> str:
    """Return the fingerprint of the context's space, to be saved with what is prepared on it.

    Args:
        ctx: What the estimator is used on.
        saved: The fingerprint that came with a loaded state; "" for none.
        name: The estimator's, for the message.
    Raises:
        InvalidStudy: the loaded state is of another space.
    """
    own = ctx.space.fingerprint
    if saved and saved != own:
        raise InvalidStudy(
            f"the saved {name} was prepared on another space than {ctx.space!r}: its fingerprint "
            f"is {saved[:8]}, not {own[:8]}; use the space of that study, or prepare anew"
        )
    return own
