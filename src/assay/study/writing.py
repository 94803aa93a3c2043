"""Transactions that write to a study: all of one is there or nothing, and what stops it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from assay.errors import Unwritable

__all__ = ["writing"]


@contextmanager
def writing(engine: Engine, *, flushed: bool = False) -> Iterator[Connection]:
    """Within: a transaction, of which all is written or nothing.

    Args:
        engine: Of the study's database.
        flushed: Whether it, and with it all before, also outlives a loss of power. SQLite, which
            writes ahead, then waits for the disk; a server does so by itself.
    Raises:
        Unwritable: the database takes no more.
    """
    try:
        with engine.connect() as connection, _flushing(connection, flushed), connection.begin():
            yield connection
    except OperationalError as error:
        raise Unwritable(
            f"the study cannot be written ({error.orig}); make room for it, then run the same "
            "again to go on"
        ) from error


@contextmanager
def _flushing(connection: Connection, flushed: bool) -> Iterator[None]:
    """Within: SQLite flushes what is committed, if it is to."""
    if not flushed or connection.dialect.name != "sqlite":
        yield
        return
    _synchronous(connection, "FULL")
    try:
        yield
    finally:
        _synchronous(connection, "NORMAL")  # the pool gives the connection to others


def _synchronous(connection: Connection, level: str) -> None:
    connection.exec_driver_sql(f"PRAGMA synchronous={level}")
    connection.commit()  # of what SQLAlchemy took for the first statement of a transaction
