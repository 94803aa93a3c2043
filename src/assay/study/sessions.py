"""Runs of a study: each has a heartbeat, and what a killed one lost is booked by the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from sqlalchemy import Connection, Engine, StaticPool, func, insert, select, update

from assay.cost import Cost
from assay.errors import Unwritable
from assay.study import schema
from assay.study.rows import cost_row, to_json
from assay.study.writing import writing

__all__ = ["Run", "begin", "book"]

_HEARTBEAT_S = 0.5


class Run:
    """A run under way; its heart beats twice a second, in a thread with its own connection.

    A study in memory has one connection and dies with its process: there the heart only beats
    when the run is stopped.

    What counts is how long it worked: a machine that sleeps, or whose clock is set, meanwhile has
    not worked longer, and the heartbeat does not show it.

    Args:
        engine: Of the study's database.
        number: Of the run.
        started: Seconds since 1970.
    """

    def __init__(self, engine: Engine, number: int, started: float) -> None:
        self.number = number
        self._started = started
        self._since = time.perf_counter()
        self._engine = engine
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def now(self) -> float:
        """Return when it began and how long it has worked since, in seconds since 1970."""
        return self._started + time.perf_counter() - self._since

    def start(self) -> None:
        """Let the heart beat."""
        if not isinstance(self._engine.pool, StaticPool):
            self._thread.start()

    def stop(self, *, ended: bool) -> None:
        """Stop the heart after a last beat; of a run that was stopped before nothing changes.

        Args:
            ended: Whether the run came to its end; otherwise the next one counts what it lost.
        Raises:
            Unwritable: the database takes no more.
        """
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        now = self.now()
        self._write(heartbeat=now, **({"ended": now} if ended else {}))

    def _beat(self) -> None:
        while not self._stopped.wait(_HEARTBEAT_S):
            with suppress(Unwritable):  # there may be room again; the run's own writes tell of it
                self._write(heartbeat=self.now())

    def _write(self, **values: float) -> None:
        table = schema.sessions
        with writing(self._engine) as connection:
            connection.execute(update(table).where(table.c.id == self.number).values(values))


def begin(engine: Engine, versions: Mapping[str, str]) -> Run:
    """Begin a run, and book what killed ones lost: their last heartbeat less what they booked.

    Args:
        engine: Of the study's database.
        versions: Of everything the run depends on.
    Raises:
        Unwritable: the database takes no more.
    """
    now = time.time()
    with writing(engine) as connection:
        _book_lost(connection)
        values = {"started": now, "heartbeat": now, "versions": to_json(dict(versions))}
        result = connection.execute(insert(schema.sessions), values)
        number = int(result.inserted_primary_key[0])  # type: ignore[index]
    return Run(engine, number, now)


def book(connection: Connection, run: Run | None, costs: Mapping[str, Cost]) -> None:
    """Book costs of a run to steps; a booking is a sign of life, like a heartbeat.

    Args:
        connection: In a transaction.
        run: Whose costs; None outside one.
        costs: Step -> cost.
    """
    if not costs:
        return
    number = 0 if run is None else run.number
    rows = [cost_row(number, name, cost) for name, cost in costs.items()]
    connection.execute(insert(schema.costs), rows)
    if run is not None:
        table = schema.sessions
        connection.execute(update(table).where(table.c.id == number).values(heartbeat=run.now()))


def _book_lost(connection: Connection) -> None:
    table, c = schema.sessions, schema.costs.c
    for row in connection.execute(select(table).where(table.c.ended.is_(None))).all():
        booked_s = connection.execute(
            select(func.coalesce(func.sum(c.wall_s), 0.0)).where(c.session == row.id)
        ).scalar_one()
        lost_s = row.heartbeat - row.started - booked_s
        if lost_s > 0:
            cost = cost_row(row.id, "lost", Cost(lost_s), kind="lost")
            connection.execute(insert(schema.costs), cost)
        connection.execute(update(table).where(table.c.id == row.id).values(ended=row.heartbeat))
