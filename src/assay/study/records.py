"""What a study keeps beside its trials: measurements, failures, finalists, documents, costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError

from assay.cost import Cost
from assay.errors import InvalidStudy
from assay.study import schema, sessions
from assay.study.rows import to_json
from assay.study.writing import writing

__all__ = ["Records"]

_PART = 2**32


class Records:
    """Rows of an open database, each written in one transaction before the method returns.

    Args:
        engine: Of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _session(self) -> sessions.Run | None:
        """The run that writes; None outside one."""
        return None

    # --- measurements and failures ------------------------------------------------------------

    def add_measurement(
        self,
        architecture: str | None,
        quantity: str,
        value: float,
        *,
        source: str,
        trial: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one measured figure.

        Args:
            architecture: JSON of what was measured.
            quantity: Name with its unit, such as "latency_ms".
            value: In that unit.
            source: "counted", "table" or "measured".
            trial: Number of the trial it belongs to.
            detail: Spread, settings and the like.
        """
        row = {
            "architecture": architecture, "trial": trial, "quantity": quantity, "value": value,
            "source": source, "detail": to_json(dict(detail or {})),
        }  # fmt: skip
        self._insert(schema.measurements, row)

    def measurements(
        self, quantity: str | None = None, source: str | None = None
    ) -> list[Row[Any]]:
        """Return measured figures in order, all or of one quantity and source."""
        table = schema.measurements
        query = select(table).order_by(table.c.id)
        if quantity is not None:
            query = query.where(table.c.quantity == quantity)
        if source is not None:
            query = query.where(table.c.source == source)
        return self._all(query)

    def add_failure(self, phase: str, trial: int | None, error: str, traceback: str) -> None:
        """Keep what went wrong, with its traceback."""
        row = {"phase": phase, "trial": trial, "error": error, "traceback": traceback}
        self._insert(schema.failures, row)

    def failures(self) -> list[Row[Any]]:
        """Return all failures in order: id, phase, trial, error, traceback."""
        return self._all(select(schema.failures).order_by(schema.failures.c.id))

    # --- finalists and documents --------------------------------------------------------------

    def save_finalist(
        self,
        key: str,
        *,
        seed: int,
        architecture: str,
        state: str,
        metrics: Mapping[str, float],
        weights: str,
        steps: int,
        trial: int | None = None,
        cost: Cost | None = None,
    ) -> None:
        """Write how far a finalist is, replacing what was known, and book its cost.

        It outlives a loss of power: the file that was named before may go.

        Args:
            key: Names it.
            seed: Of its training.
            architecture: JSON.
            state: "running", "done" or "failed".
            metrics: Figures so far.
            weights: File of its training state, relative to the study's folder.
            steps: Taken so far.
            trial: Number of its trial; None if it is trained for comparison.
            cost: Booked to the step "finalists".
        """
        row = {
            "key": key, "trial": trial, "seed": seed, "architecture": architecture,
            "state": state, "metrics": to_json(dict(metrics)), "weights": weights,
            "steps": steps,
        }  # fmt: skip
        with writing(self._engine, flushed=True) as connection:
            self._replace(connection, schema.finalists, [row])
            costs = {} if cost is None else {"finalists": cost}
            sessions.book(connection, self._session, costs)

    def finalists(self) -> list[dict[str, Any]]:
        """Return every finalist: key, trial, seed, architecture, state, metrics, weights, steps."""
        rows = self._all(select(schema.finalists).order_by(schema.finalists.c.key))
        return [{**row._mapping, "metrics": json.loads(row.metrics)} for row in rows]

    def finalist(self, key: str) -> dict[str, Any] | None:
        """Return one finalist, or None."""
        return next((row for row in self.finalists() if row["key"] == key), None)

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key, replacing the one there."""
        with writing(self._engine) as connection:
            self._replace(connection, schema.documents, [{"key": key, "value": to_json(value)}])

    def get(self, key: str) -> Any:
        """Return the JSON value under a key, or None."""
        table = schema.documents
        rows = self._all(select(table.c.value).where(table.c.key == key))
        return json.loads(rows[0].value) if rows else None

    # --- costs --------------------------------------------------------------------------------

    def book(self, phase: str, cost: Cost) -> None:
        """Book a cost to a step."""
        with writing(self._engine) as connection:
            sessions.book(connection, self._session, {phase: cost})

    def ledger(self) -> dict[str, Cost]:
        """Return what each step cost, over all runs; "lost" is what killed runs did not book."""
        c = schema.costs.c
        query = select(
            c.phase, func.sum(c.wall_s), *_sums(c.samples), *_sums(c.macs), func.max(c.device)
        ).group_by(c.phase)
        rows = self._all(query.order_by(func.min(c.id)))
        return {
            p: Cost(float(w), int(s) * _PART + int(t), int(m) * _PART + int(n), d)
            for p, w, s, t, m, n, d in map(tuple, rows)
        }

    @property
    def lost_s(self) -> float:
        """Seconds of killed runs that were not booked."""
        return self.ledger().get("lost", Cost()).wall_s

    # --- plumbing -----------------------------------------------------------------------------

    def _replace(
        self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write rows in place of those with the same key."""
        if connection.dialect.name == "sqlite":  # in one statement instead of two
            connection.execute(insert(table).prefix_with("OR REPLACE"), rows)
            return
        (key,) = table.primary_key.columns
        doomed = [{"doomed": row[key.name]} for row in rows]
        connection.execute(delete(table).where(key == bindparam("doomed")), doomed)
        connection.execute(insert(table), rows)

    def _insert(self, table: Table, row: Mapping[str, Any]) -> None:
        with writing(self._engine) as connection:
            connection.execute(insert(table), dict(row))

    def _all(self, query: Any) -> list[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query).all())
        except DatabaseError as error:
            raise InvalidStudy(
                f"the study cannot be read ({error.orig}); give the folder of a whole study"
            ) from error


def _sums(column: Column[int]) -> list[ColumnElement[Any]]:
    """Sum the upper and the lower half of each count: a sum of whole ones may fit no column."""
    return [func.sum(column // _PART), func.sum(column % _PART)]
