"""Runs of a study: each has a heartbeat, and what a killed one lost is booked by the next."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping

from sqlalchemy import Connection, Engine, func, insert, select, update

from assay.cost import Cost
from assay.study import schema
from assay.study.rows import cost_row

__all__ = ["Run", "begin"]

_HEARTBEAT_S = 0.5


class Run:
    """A run under way; its heart beats twice a second, in a thread of its own.

    Args:
        engine: Of the study's database.
        number: Of the run.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        self.number = number
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Let the heart beat."""
        self._thread.start()

    def stop(self, *, ended: bool) -> None:
        """Stop the heart.

        Args:
            ended: Whether the run came to its end; otherwise the next one counts what it lost.
        """
        self._stop.set()
        self._thread.join()
        if ended:
            self._write(ended=time.time())

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_S):
            self._write()

    def _write(self, **more: float) -> None:
        table = schema.sessions
        with self._engine.begin() as connection:
            connection.execute(
                update(table).where(table.c.id == self.number).values(heartbeat=time.time(), **more)
            )


def begin(engine: Engine, versions: Mapping[str, str]) -> Run:
    """Begin a run, and book what killed ones lost: their last heartbeat less what they booked.

    Args:
        engine: Of the study's database.
        versions: Of everything the run depends on.
    """
    now = time.time()
    with engine.begin() as connection:
        _book_lost(connection)
        values = {"started": now, "heartbeat": now, "versions": json.dumps(dict(versions))}
        result = connection.execute(insert(schema.sessions), values)
        number = int(result.inserted_primary_key[0])  # type: ignore[index]
    return Run(engine, number)


def _book_lost(connection: Connection) -> None:
    table, c = schema.sessions, schema.costs.c
    for row in connection.execute(select(table).where(table.c.ended.is_(None))).all():
        booked = connection.execute(
            select(func.coalesce(func.sum(c.wall_s), 0.0)).where(c.session == row.id)
        ).scalar_one()
        lost = Cost(max(0.0, row.heartbeat - row.started - booked))
        connection.execute(insert(schema.costs), cost_row(row.id, "lost", lost, kind="lost"))
        connection.execute(update(table).where(table.c.id == row.id).values(ended=row.heartbeat))
