"""Opening a study: a new folder, the same search again, or a refusal that says why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from assay.errors import InvalidSetting, InvalidStudy
from assay.study import schema

__all__ = ["connect", "lock", "prepare_folder", "read_meta", "write_or_compare"]

_FILE = "study.db"


def prepare_folder(out: Path) -> None:
    """Make the folder of a study, or check that it is one.

    Raises:
        InvalidStudy: it is a file, or holds something else.
        InvalidSetting: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InvalidStudy(f"{out} is a file; give a folder for the study")
    if out.is_dir() and any(p.name != "lock" for p in out.iterdir()) and not (out / _FILE).exists():
        raise InvalidStudy(f"{out} is not empty and holds no study; give a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"{out} cannot be made ({error.strerror}); give another out="
        ) from error
    if not os.access(out, os.W_OK):
        raise InvalidSetting(
            f"{out} cannot be written; change its permissions or give another out="
        )


def lock(out: Path) -> FileLock:
    """Take the folder for this process; the system gives it back when the process ends.

    Raises:
        InvalidStudy: another process has it.
        InvalidSetting: the lock file cannot be made.
    """
    taken = FileLock(out / "lock")
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise InvalidStudy(
            f"{out} is in use by another process; wait for it, or give another out="
        ) from None
    except OSError as error:
        raise InvalidSetting(f"{out} cannot be written ({error}); give another out=") from error
    return taken


def connect(out: Path | None, url: str | None) -> Engine:
    """Return the engine: SQLite in the folder, any SQLAlchemy URL, or memory where both are None.

    SQLite writes ahead (WAL) with synchronous=NORMAL: what is committed survives the death of the
    process, though not that of the machine's power.
    """
    if url is None and out is None:
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    else:
        engine = create_engine(url or f"sqlite:///{(out or Path()) / _FILE}")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def read_meta(engine: Engine, where: str) -> dict[str, Any]:
    """Return identity, settings and schema version of a study; empty where there is none yet.

    Raises:
        InvalidStudy: the database is junk, or was written by a newer Assay.
    """
    try:
        with engine.connect() as connection:
            if not engine.dialect.has_table(connection, "meta"):
                if engine.dialect.has_table(connection, "trials"):
                    raise InvalidStudy(f"{where} is no study of Assay's; give another folder")
                return {}
            rows = connection.execute(select(schema.meta)).all()
    except DatabaseError as error:
        raise InvalidStudy(
            f"{where} is no readable study ({error.orig}); give another folder"
        ) from error
    found = {key: json.loads(value) for key, value in rows}
    if found and found.get("schema", 0) > schema.VERSION:
        raise InvalidStudy(
            f"{where} was written by a newer Assay (schema {found['schema']}, this one reads "
            f"{schema.VERSION}); upgrade Assay"
        )
    return found


def write_or_compare(
    engine: Engine, where: str, identity: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Begin a study with its identity, or check that the one there has the same.

    Raises:
        InvalidStudy: it is of another search; every difference is shown.
    """
    found = read_meta(engine, where)
    plain = json.loads(json.dumps(identity))
    if found:
        differences = list(_differences("", found["identity"], plain))
        if differences:
            raise InvalidStudy(
                f"{where} belongs to another search: {'; '.join(differences[:6])}; give another "
                "out=, or the same settings to continue"
            )
        return found
    rows = {"schema": schema.VERSION, "identity": plain, "settings": dict(settings)}
    try:
        schema.metadata.create_all(engine)
        with engine.begin() as connection:
            _insert_meta(connection, rows)
    except SQLAlchemyError as error:
        raise InvalidSetting(f"{where} cannot be written ({error}); give another out=") from error
    return rows


def _insert_meta(connection: Connection, rows: Mapping[str, Any]) -> None:
    connection.execute(
        insert(schema.meta), [{"key": k, "value": json.dumps(v)} for k, v in rows.items()]
    )


def _differences(path: str, stored: Any, given: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted({*stored, *given}):
            inner = f"{path}.{key}" if path else key
            yield from _differences(inner, stored.get(key), given.get(key))
    elif stored != given:
        yield f"{path} is {stored!r} there and {given!r} here"
