"""Transactions that write to a study: all of one is there or nothing, and what stops it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from assay.errors import Unwritable

__all__ = ["writing"]


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Within: a transaction, of which all is written or nothing.

    Args:
        engine: Of the study's database.
    Raises:
        Unwritable: the database takes no more.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise Unwritable(
            f"the study cannot be written ({error.orig}); make room for it, then run the same "
            "again to go on"
        ) from error
