"""The durable record of a search: proposals, estimates, measurements, costs, failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, insert, select, update

from assay.contracts import Trial
from assay.cost import Cost
from assay.errors import Unwritable
from assay.study import opening, schema, sessions
from assay.study.optuna import to_optuna
from assay.study.records import Records
from assay.study.rows import estimate_row, failure_rows, to_json, trial_of, trial_row
from assay.study.writing import writing

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

__all__ = ["Phase", "Study"]

_HAS_STATE = (schema.phases.c.checkpoint != to_json({})) & (schema.phases.c.done > 0)


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
    counts: Mapping[str, Any] = field(default_factory=dict)
    done: int = 0
    checkpoint: Mapping[str, Any] = field(default_factory=dict)


class Study(Records):
    """One search's record in a SQL database; holds no search logic.

    Made by `open` or `read`. Each method that writes is one transaction, committed before it
    returns: of a process that is killed nothing is half there. One database holds one study.

    Args:
        engine: Of the database.
        meta: Identity, settings and schema version.
        lock: Held on the folder, given back by `close`.
        discard: Removes all of it; given where this object began it.
    """

    def __init__(
        self,
        engine: Engine,
        meta: Mapping[str, Any],
        lock: Any = None,
        discard: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(engine)
        self._meta = meta
        self._lock = lock
        self._discard = discard
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
            out: Folder; made if there is none. No other process may have it open.
            identity: What makes this search itself, as JSON; compared field by field.
            settings: How to say it again, as JSON; those of the beginning are kept.
            url: SQLAlchemy URL of the database in place of SQLite in the folder.
        Raises:
            InvalidStudy: the folder is junk, in use, newer than this Assay, or of another search.
            InvalidSetting: it cannot be written, or the URL cannot be used.
        """
        folder = None if out is None else Path(out)
        engine = opening.connect(folder, url)
        taken, made, locked, is_new = None, False, False, False
        try:
            if folder is not None:
                made = opening.check_folder(folder, url)
                taken, locked = opening.lock(folder)
            where = opening.place(folder, url)
            is_new = not opening.read_meta(engine, where)
            elsewhere = folder if url is not None else None
            more = {"mark": opening.marked(elsewhere)} if elsewhere and is_new else {}
            meta = opening.write_or_compare(engine, where, identity, settings or {}, more)
            if elsewhere:
                opening.check_mark(elsewhere, where, meta)
        except BaseException:
            engine.dispose()
            if folder is not None and taken is not None:
                opening.give_back(folder, taken, made=made, locked=locked, marked=is_new)
            raise
        discard = partial(opening.discard, engine, folder, made=made)
        return cls(engine, meta, taken, discard if is_new else None)

    @classmethod
    def read(cls, out: str | Path, *, url: str | None = None) -> Study:
        """Open a study to read; it is not locked, and SQLite refuses to write to it.

        Args:
            out: Its folder.
            url: Its database, where that is not SQLite in the folder.
        Raises:
            InvalidStudy: there is none, or it cannot be read.
        """
        engine = opening.connect_to_read(Path(out), url)
        try:
            meta = opening.read_meta(engine, opening.place(Path(out), url), begun=True)
        except BaseException:
            engine.dispose()
            raise
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
        """Stop the heartbeat, close the database, give the folder back.

        Raises:
            Unwritable: the heart could not beat for the last time; the rest is done.
        """
        try:
            if self._run is not None:
                self._run.stop(ended=False)
        finally:
            self._engine.dispose()
            if self._lock is not None:
                self._lock.release()

    def withdraw(self) -> None:
        """Close a study that was begun for nothing, and remove it; one with any work in it stays.

        It stays if it was there before, has a trial within the limits, keeps a state to go on
        from, or cannot be removed, as on a full disk.
        """
        worth = any(t.state != "infeasible" for t in self.trials())
        if self._discard is None or worth or self._all(select(schema.phases).where(_HAS_STATE)):
            return
        with suppress(Unwritable):  # whoever withdraws it has an error to tell that says more
            if self._run is not None:
                self._run.stop(ended=True)
            self._discard()
        self.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Unwritable:
            if error is None:  # one under way says more
                raise

    # --- sessions -----------------------------------------------------------------------------

    def begin_session(self, versions: Mapping[str, str]) -> None:
        """Begin a run: its heart beats from now on, and what killed runs lost is booked.

        Args:
            versions: Of everything that the run's figures depend on.
        Raises:
            Unwritable: the database takes no more.
        """
        if self._run is not None:
            self._run.stop(ended=False)
        self._run = sessions.begin(self._engine, versions)
        self._run.start()

    def end_session(self) -> None:
        """End the run; what it did not book counts for nothing from now on.

        Raises:
            Unwritable: the database takes no more.
        """
        if self._run is not None:
            self._run.stop(ended=True)

    @property
    def _session(self) -> sessions.Run | None:
        return self._run

    def sessions(self) -> list[dict[str, Any]]:
        """Return every run: id, started, heartbeat, ended (seconds since 1970), versions."""
        rows = self._all(select(schema.sessions).order_by(schema.sessions.c.id))
        return [{**r._mapping, "versions": json.loads(r.versions)} for r in rows]

    @property
    def elapsed_s(self) -> float:
        """Seconds in which processes worked on this study, up to their last sign of life."""
        runs = self.sessions()
        return float(sum((run["ended"] or run["heartbeat"]) - run["started"] for run in runs))

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
        self._save_phase(name, counts=to_json(dict(counts)), state="running")
        return dict(counts)

    def checkpoint(
        self, name: str, *, done: int, cost: Cost, pointer: Mapping[str, Any] | None = None
    ) -> None:
        """Write a step's progress, what it goes on from, and what it cost since, all at once.

        If it goes on from something else now, that outlives a loss of power: the file that was
        named before may go.

        Args:
            name: Of the step.
            done: How much is done in all.
            cost: Since the last checkpoint.
            pointer: What it goes on from; None leaves the one there.
        """
        known = self.phase(name)
        values: dict[str, Any] = {"done": done}
        if known.state == "pending":
            values["state"] = "running"
        if pointer is not None:
            values["checkpoint"] = to_json(dict(pointer))
        moved = pointer is not None and dict(pointer) != known.checkpoint
        self._save_phase(name, cost=cost, flushed=moved, **values)

    def finish(self, name: str) -> None:
        """Mark a step as done."""
        self._save_phase(name, state="done")

    def _save_phase(
        self, name: str, cost: Cost | None = None, *, flushed: bool = False, **values: Any
    ) -> None:
        table = schema.phases
        with writing(self._engine, flushed=flushed) as connection:
            changed = connection.execute(update(table).where(table.c.name == name).values(values))
            if changed.rowcount == 0:
                empty = {"state": "pending", "counts": "{}", "done": 0, "checkpoint": "{}"}
                connection.execute(insert(table), {"name": name, **empty, **values})
            sessions.book(connection, self._session, {} if cost is None else {name: cost})

    # --- trials -------------------------------------------------------------------------------

    def record(self, trial: Trial, costs: Mapping[str, Cost] | None = None) -> None:
        """Write one trial; see `record_all`."""
        self.record_all([trial], costs)

    def record_all(
        self,
        new: Sequence[Trial],
        costs: Mapping[str, Cost] | None = None,
        *,
        failed_in: str | None = None,
    ) -> None:
        """Write trials, their estimates, their failures and what they cost, in one transaction.

        A trial whose number is there already replaces the earlier state.

        Args:
            new: In any state.
            costs: Step -> cost to book.
            failed_in: Step in whose name the errors of failed ones are kept among the failures;
                None keeps them with the trials only.
        """
        estimated = [estimate_row(t) for t in new if t.estimate is not None]
        failed = [] if failed_in is None else failure_rows(failed_in, new)
        with writing(self._engine) as connection:
            if new:
                self._replace(connection, schema.trials, [trial_row(t) for t in new])
            if estimated:
                self._replace(connection, schema.estimates, estimated)
            sessions.book(connection, self._session, costs or {})
            if failed:
                connection.execute(insert(schema.failures), failed)

    def trials(self) -> list[Trial]:
        """Return all trials in the order of their numbers."""
        t, e = schema.trials, schema.estimates
        both = select(t, e.c.score, e.c.metrics, e.c.cost, e.c.made_from).join(
            e, t.c.number == e.c.trial, isouter=True
        )
        return [trial_of(row) for row in self._all(both.order_by(t.c.number))]

    def to_optuna(
        self, storage: str | BaseStorage | None = None, *, name: str | None = None
    ) -> optuna.Study:
        """Return a copy as a study of Optuna, with all trials that have ended.

        A scored trial is complete, one over a limit is pruned with its violation as a constraint, a
        failed one has failed; decisions are its parameters, everything else its user attributes.

        Args:
            storage: Where Optuna keeps it, such as "sqlite:///optuna.db"; None for in memory.
            name: Of the study there; None for one that Optuna makes up.
        Raises:
            InvalidSetting: Optuna is not installed.
        """
        objectives = self.identity.get("objectives", [])
        about = {"identity": self.identity, "settings": self.settings}
        return to_optuna(self.trials(), objectives, attributes=about, storage=storage, name=name)
