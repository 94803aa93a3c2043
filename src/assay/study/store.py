"""The durable record of a search: proposals, estimates, measurements, costs, failures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Engine, Row, Table, delete, func, insert, select, update
from sqlalchemy.exc import OperationalError

from assay.contracts import Trial
from assay.cost import Cost
from assay.errors import InvalidStudy
from assay.study import opening, schema, sessions
from assay.study.rows import cost_row, estimate_row, trial_of, trial_row

__all__ = ["Phase", "Study"]


@dataclass(frozen=True)
class Phase:
    """A step of the search as the study knows it.

    Attributes:
        name: Of the step.
        state: "pending", "running" or "done".
        counts: How much it is to do, as planned; empty before it was planned.
        done: How much is done.
        checkpoint: What it goes on from, as JSON.
    """

    name: str
    state: str = "pending"
    counts: Mapping[str, Any] | None = None
    done: int = 0
    checkpoint: Mapping[str, Any] | None = None


class Study:
    """One search's record in a SQL database; holds no search logic.

    Made by `open` or `read`. Each method is one transaction, written before it returns.

    Args:
        engine: Of the database.
        meta: Identity, settings and schema version.
        lock: Held on the folder, given back by `close`.
    """

    def __init__(self, engine: Engine, meta: Mapping[str, Any], lock: Any = None) -> None:
        self._engine = engine
        self._meta = meta
        self._lock = lock
        self._run: sessions.Run | None = None

    @classmethod
    def open(
        cls,
        out: str | Path | None,
        *,
        identity: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        url: str | None = None,
    ) -> Study:
        """Begin a study in a folder, or continue the one there; None keeps it in memory.

        Args:
            out: Folder; it is taken for this process until `close`.
            identity: What makes this search itself, as JSON; compared field by field.
            settings: How to say it again, as JSON.
            url: SQLAlchemy URL of the database in place of SQLite in the folder.
        Raises:
            InvalidStudy: the folder is junk, in use, newer than this Assay, or of another search.
            InvalidSetting: it cannot be written.
        """
        taken = None
        if out is not None:
            opening.prepare_folder(Path(out))
            taken = opening.lock(Path(out))
        try:
            engine = opening.connect(None if out is None else Path(out), url)
            where = str(out) if out is not None else "the study in memory"
            meta = opening.write_or_compare(engine, where, identity, settings or {})
        except BaseException:
            if taken is not None:
                taken.release()
            raise
        return cls(engine, meta, taken)

    @classmethod
    def read(cls, out: str | Path, *, url: str | None = None) -> Study:
        """Open a study to read.

        Raises:
            InvalidStudy: there is none, or it cannot be read.
        """
        if url is None and not (Path(out) / "study.db").is_file():
            raise InvalidStudy(f"{out} holds no study; give the folder that search wrote")
        engine = opening.connect(Path(out), url)
        meta = opening.read_meta(engine, str(out))
        if not meta:
            raise InvalidStudy(f"{out} holds an empty study; run the search again")
        return cls(engine, meta)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this search itself."""
        return dict(self._meta["identity"])

    @property
    def settings(self) -> dict[str, Any]:
        """How to say this search again."""
        return dict(self._meta["settings"])

    def close(self) -> None:
        """Stop the heartbeat, close the database, give the folder back."""
        if self._run is not None:
            self._run.stop(ended=False)
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- sessions -----------------------------------------------------------------------------

    def begin_session(self, versions: Mapping[str, str]) -> None:
        """Begin a run: its heart beats from now on, and what killed runs lost is booked."""
        self._run = sessions.begin(self._engine, versions)
        self._run.start()

    def end_session(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.stop(ended=True)

    @property
    def _session(self) -> int:
        return 0 if self._run is None else self._run.number

    def sessions(self) -> list[dict[str, Any]]:
        """Return every run: started, heartbeat, ended (seconds since 1970), versions."""
        rows = self._all(select(schema.sessions).order_by(schema.sessions.c.id))
        return [{**r._mapping, "versions": json.loads(r.versions)} for r in rows]

    # --- phases -------------------------------------------------------------------------------

    def phase(self, name: str) -> Phase:
        """Return what is known of a step."""
        rows = self._all(select(schema.phases).where(schema.phases.c.name == name))
        if not rows:
            return Phase(name)
        row = rows[0]
        counts, checkpoint = json.loads(row.counts), json.loads(row.checkpoint)
        return Phase(name, row.state, counts, row.done, checkpoint)

    def plan(self, name: str, counts: Mapping[str, Any]) -> dict[str, Any]:
        """Write how much a step is to do, before it begins; what is there already stays.

        Returns:
            The counts to obey.
        """
        known = self.phase(name)
        if known.counts:
            return dict(known.counts)
        self._save_phase(name, counts=json.dumps(dict(counts)), state="running")
        return dict(counts)

    def checkpoint(
        self, name: str, *, done: int, cost: Cost, pointer: Mapping[str, Any] | None = None
    ) -> None:
        """Write a step's progress, what it goes on from, and what it cost since, all at once."""
        known = self.phase(name)
        values: dict[str, Any] = {"done": done}
        if known.state == "pending":
            values["state"] = "running"
        if pointer is not None:
            values["checkpoint"] = json.dumps(dict(pointer))
        self._save_phase(name, cost=cost, **values)

    def finish(self, name: str) -> None:
        """Mark a step as done."""
        self._save_phase(name, state="done")

    def _save_phase(self, name: str, cost: Cost | None = None, **values: Any) -> None:
        table = schema.phases
        with self._engine.begin() as connection:
            changed = connection.execute(update(table).where(table.c.name == name).values(values))
            if changed.rowcount == 0:
                empty = {"state": "pending", "counts": "{}", "done": 0, "checkpoint": "{}"}
                connection.execute(insert(table), {"name": name, **empty, **values})
            if cost is not None:
                connection.execute(insert(schema.costs), cost_row(self._session, name, cost))

    # --- trials -------------------------------------------------------------------------------

    def record(self, trial: Trial, costs: Mapping[str, Cost] | None = None) -> None:
        """Write one trial; see `record_all`."""
        self.record_all([trial], costs)

    def record_all(self, new: Sequence[Trial], costs: Mapping[str, Cost] | None = None) -> None:
        """Write trials, their estimates and what they cost, in one transaction.

        A trial whose number is there already replaces the earlier state.

        Args:
            new: In any state.
            costs: Step -> cost to book.
        """
        numbers = [t.number for t in new]
        estimated = [estimate_row(t) for t in new if t.estimate is not None]
        booked = [cost_row(self._session, name, cost) for name, cost in (costs or {}).items()]
        with self._engine.begin() as connection:
            if new:
                table = schema.trials
                connection.execute(delete(table).where(table.c.number.in_(numbers)))
                connection.execute(insert(table), [trial_row(t) for t in new])
            if estimated:
                connection.execute(insert(schema.estimates), estimated)
            if booked:
                connection.execute(insert(schema.costs), booked)

    def trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        t, e = schema.trials, schema.estimates
        both = select(t, e.c.score, e.c.metrics, e.c.cost, e.c.made_from).join(
            e, t.c.number == e.c.trial, isouter=True
        )
        return [trial_of(row) for row in self._all(both.order_by(t.c.number))]

    # --- measurements, failures, finalists, documents -----------------------------------------

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
            "source": source, "detail": json.dumps(dict(detail or {})),
        }  # fmt: skip
        self._insert(schema.measurements, row)

    def measurements(
        self, quantity: str | None = None, source: str | None = None
    ) -> list[Row[Any]]:
        """Return measured figures, all or of one quantity and source."""
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
        """Return all failures in order."""
        return self._all(select(schema.failures).order_by(schema.failures.c.id))

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
            "state": state, "metrics": json.dumps(dict(metrics)), "weights": weights,
            "steps": steps,
        }  # fmt: skip
        table = schema.finalists
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.key == key))
            connection.execute(insert(table), row)
            if cost is not None:
                connection.execute(insert(schema.costs), cost_row(self._session, "finalists", cost))

    def finalists(self) -> list[dict[str, Any]]:
        """Return every finalist: key, trial, seed, architecture, state, metrics, weights, steps."""
        rows = self._all(select(schema.finalists).order_by(schema.finalists.c.key))
        return [{**row._mapping, "metrics": json.loads(row.metrics)} for row in rows]

    def finalist(self, key: str) -> dict[str, Any] | None:
        """Return one finalist, or None."""
        return next((row for row in self.finalists() if row["key"] == key), None)

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key, replacing the one there."""
        table = schema.documents
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.key == key))
            connection.execute(insert(table), {"key": key, "value": json.dumps(value)})

    def get(self, key: str) -> Any:
        """Return the JSON value under a key, or None."""
        table = schema.documents
        rows = self._all(select(table.c.value).where(table.c.key == key))
        return json.loads(rows[0].value) if rows else None

    # --- costs --------------------------------------------------------------------------------

    def book(self, phase: str, cost: Cost) -> None:
        """Book a cost to a step."""
        self._insert(schema.costs, cost_row(self._session, phase, cost))

    def ledger(self) -> dict[str, Cost]:
        """Return what each step cost, over all runs; "lost" is what killed runs did not book."""
        c = schema.costs.c
        query = select(
            c.phase, func.sum(c.wall_s), func.sum(c.samples), func.sum(c.macs), func.max(c.device)
        ).group_by(c.phase)
        rows = self._all(query.order_by(func.min(c.id)))
        return {p: Cost(float(w), int(s), int(m), d) for p, w, s, m, d in map(tuple, rows)}

    @property
    def lost_s(self) -> float:
        """Seconds of killed runs that were not booked."""
        return self.ledger().get("lost", Cost()).wall_s

    # --- plumbing -----------------------------------------------------------------------------

    def _all(self, query: Any) -> list[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query).all())
        except OperationalError as error:
            raise InvalidStudy(f"the study cannot be read ({error.orig})") from error

    def _insert(self, table: Table, row: Mapping[str, Any]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(table), dict(row))
