"""Opening a study: a new folder, the same search again, or a refusal that says why."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import URL, Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from assay.errors import InvalidSetting, InvalidStudy, nearest
from assay.study import schema
from assay.study.rows import to_json
from assay.study.writing import writing

__all__ = [
    "check_folder",
    "check_mark",
    "connect",
    "connect_to_read",
    "discard",
    "give_back",
    "lock",
    "marked",
    "place",
    "read_meta",
    "write_or_compare",
]

_FILE = "study.db"
_LOCK = "lock"
_MARK = "study.mark"  # the same in the folder and in a database that is elsewhere
_DATABASES = ("sqlite", "postgresql")
_SHOWN = 6
_HASHED = {  # of these the identity holds a fingerprint, which tells a reader nothing
    "space": "the model, or its code, is another",
    "task": "the task (its data, loss, metrics or augmentation) is another",
}


def place(out: Path | None, url: str | None) -> str:
    """Return what messages call the study; a password in the URL stays hidden."""
    if url is not None:
        return make_url(url).render_as_string()
    return "the study in memory" if out is None else str(out)


# --- the folder ---------------------------------------------------------------------------------


def check_folder(out: Path, url: str | None) -> bool:
    """Make the folder of a study, or check that it is one; a refused one is left as it was.

    Returns:
        Whether it was made.
    Raises:
        InvalidStudy: it is a file, or holds something else.
        InvalidSetting: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InvalidStudy(f"{out} is a file; give a folder for the study")
    strange = out.is_dir() and any(p.name not in (_LOCK, _MARK) for p in out.iterdir())
    if strange and not _is_begun(out, url):
        of = "" if url is None else f" of {place(out, url)}"
        raise InvalidStudy(f"{out} is not empty and holds no study{of}; give a new folder")
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"{out} cannot be made ({error.strerror}); give another folder"
        ) from error
    for path in (out, out / _FILE):
        if path.exists() and not os.access(path, os.W_OK):
            raise InvalidSetting(
                f"{path} cannot be written; change its permissions or give another folder"
            )
    return made


def discard(engine: Engine, out: Path | None, *, made: bool) -> None:
    """Remove a study that has just been begun: its tables, and all in the folder, empty before.

    Args:
        engine: Of its database; of no use after.
        out: Its folder.
        made: Whether the folder was made for it.
    Raises:
        Unwritable: the tables cannot be dropped.
    """
    with writing(engine) as connection:
        schema.metadata.drop_all(connection)
    engine.dispose()
    if out is None:
        return
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if made:
        out.rmdir()


def _is_begun(out: Path, url: str | None) -> bool:
    """Whether there is a study already, whose folder this then is.

    Another study's folder is not that of one whose database is elsewhere.
    """
    if url is None:
        return (out / _FILE).exists()
    engine = connect(out, url)
    try:
        return bool(read_meta(engine, place(out, url)))
    finally:
        engine.dispose()


def lock(out: Path) -> tuple[FileLock, bool]:
    """Take the folder for this process; the system gives it back when the process ends.

    Returns:
        The lock, and whether its file was made.
    Raises:
        InvalidStudy: another process has it.
        InvalidSetting: the lock file cannot be made.
    """
    made = not (out / _LOCK).exists()
    taken = FileLock(out / _LOCK)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise InvalidStudy(
            f"{out} is in use by another process; wait for it, or give another folder"
        ) from None
    except OSError as error:
        raise InvalidSetting(f"{out} cannot be written ({error}); give another folder") from error
    return taken, made


def give_back(out: Path, taken: FileLock, *, made: bool, locked: bool, marked: bool) -> None:
    """Give back a folder that was refused, as it was.

    Args:
        out: The folder.
        taken: Its lock.
        made: Whether the folder was made for it; it goes if nothing is in it.
        locked: Whether the file of the lock was made for it.
        marked: Whether it may have been marked for it.
    """
    if marked:
        (out / _MARK).unlink(missing_ok=True)
    if locked:
        (out / _LOCK).unlink()  # while it is held, so that nobody else's is removed
    taken.release()
    if made and not any(out.iterdir()):
        out.rmdir()


# --- the database -------------------------------------------------------------------------------


def connect(out: Path | None, url: str | None) -> Engine:
    """Return the engine: SQLite in the folder, that of a URL, or memory where both are None.

    SQLite writes ahead (WAL) with synchronous=NORMAL: what is committed survives the death of the
    process, though the last of it may not survive that of the machine's power: see `writing`.

    Raises:
        InvalidSetting: the URL is none, or of another database than SQLite or PostgreSQL, or its
            driver is not installed.
    """
    if url is None and out is None:
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    elif url is None:
        engine = create_engine(URL.create("sqlite", database=str(Path(out or "") / _FILE)))
    else:
        try:
            engine = create_engine(url)
        except (ArgumentError, ImportError) as error:
            raise InvalidSetting(
                f"the study's URL cannot be used ({error}); write one such as "
                "'postgresql+psycopg://user@host/name' and install its driver"
            ) from error
    if engine.dialect.name not in _DATABASES:
        raise InvalidSetting(
            f"the study's URL is of a {engine.dialect.name} database; {nearest('', _DATABASES)}"
        )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def connect_to_read(out: Path, url: str | None) -> Engine:
    """Return an engine to read with, which works in a folder that cannot be written, too.

    Raises:
        InvalidStudy: the folder holds no study.
        InvalidSetting: the URL is none, or its driver is not installed.
    """
    if url is not None:
        return connect(out, url)
    path = out / _FILE
    if not path.is_file():
        raise InvalidStudy(f"{out} holds no study; give the folder that a search wrote")
    query = {"mode": "ro", "uri": "true"}
    if not os.access(out, os.W_OK) and not path.with_name(_FILE + "-wal").exists():
        query["immutable"] = "1"  # nobody writes, and SQLite could not make the files it shares
    return create_engine(URL.create("sqlite", database=f"file:{quote(str(path))}", query=query))


# --- what makes a study itself ------------------------------------------------------------------


def read_meta(engine: Engine, where: str, *, begun: bool = False) -> dict[str, Any]:
    """Return identity, settings and schema version of a study; empty where there is none yet.

    Args:
        engine: Of the database.
        where: What messages call it.
        begun: Whether there must be a study already.
    Raises:
        InvalidStudy: the database is junk, of something else, or was written by a newer Assay.
    """
    alien = InvalidStudy(f"{where} is a database of something else; give another folder")
    try:
        tables = inspect(engine).get_table_names()
        if tables and schema.meta.name not in tables:
            raise alien
        with engine.connect() as connection:
            rows = connection.execute(select(schema.meta)).all() if tables else []
        found = {key: json.loads(value) for key, value in rows}
    except (DatabaseError, ValueError) as error:
        why = getattr(error, "orig", None) or error
        raise InvalidStudy(f"{where} is no readable study ({why}); give another folder") from error
    if not found and not begun:
        return {}
    if not found:
        raise InvalidStudy(f"{where} holds an empty study; run the search again")
    if not {"schema", "identity", "settings"} <= set(found):
        raise alien
    if found["schema"] > schema.VERSION:
        raise InvalidStudy(
            f"{where} was written by a newer Assay (schema {found['schema']}, this one reads "
            f"{schema.VERSION}); upgrade Assay"
        )
    return found


def write_or_compare(
    engine: Engine,
    where: str,
    identity: Mapping[str, Any],
    settings: Mapping[str, Any],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Begin a study with its identity, or check that the one there has the same.

    Args:
        engine: Of the database.
        where: What messages call the study.
        identity: What makes it itself.
        settings: How to say it again; kept where it begins.
        more: Further first rows of one that begins.
    Raises:
        InvalidStudy: it is of another search, whose differences are shown, or an audit's.
        InvalidSetting: it cannot be written.
    """
    found = read_meta(engine, where)
    plain = json.loads(to_json(identity))
    if not found:
        rows = {
            "schema": schema.VERSION, "identity": plain, "settings": dict(settings), **more,
        }  # fmt: skip
        return _begin(engine, where, rows)
    kinds = [identity.get("kind", "search") for identity in (found["identity"], plain)]
    if kinds[0] != kinds[1]:
        there, here = (f"{'an' if kind == 'audit' else 'a'} {kind}" for kind in kinds)
        raise InvalidStudy(f"{where} holds {there}, not {here}; give another folder")
    differences = list(_differences("", found["identity"], plain))
    if differences:
        rest = len(differences) - _SHOWN
        told = "; ".join(differences[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
        raise InvalidStudy(
            f"{where} belongs to another {kinds[0]}: {told}; give another folder, or the same "
            "settings to continue"
        )
    return found


def marked(out: Path) -> dict[str, str]:
    """Mark a folder as that of a study whose database is elsewhere; return what to keep there."""
    mark = {"folder": str(out.resolve()), "mark": secrets.token_hex(8)}
    (out / _MARK).write_text(mark["mark"])
    return mark


def check_mark(out: Path, where: str, found: Mapping[str, Any]) -> None:
    """Refuse a folder that is not the one in which the study of a database elsewhere began.

    Its weights are there, and whoever works on it has locked that folder.

    Args:
        out: A folder.
        where: What messages call the study.
        found: What `read_meta` returns.
    Raises:
        InvalidStudy: the study began in another folder.
    """
    mark, path = found.get("mark"), out / _MARK
    if mark and not (path.is_file() and path.read_text() == mark["mark"]):
        raise InvalidStudy(
            f"{where} is the study of the folder {mark['folder']}; give that one to continue, or "
            "another database"
        )


def _begin(engine: Engine, where: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Make the tables and write the first rows in one transaction."""
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":  # whose driver begins none for making tables
                connection.exec_driver_sql("BEGIN")
            schema.metadata.create_all(connection)
            connection.execute(
                insert(schema.meta), [{"key": k, "value": to_json(v)} for k, v in rows.items()]
            )
    except SQLAlchemyError as error:
        why = getattr(error, "orig", None) or error
        raise InvalidSetting(f"{where} cannot be written ({why}); give another folder") from error
    return {key: json.loads(to_json(value)) for key, value in rows.items()}


def _differences(path: str, stored: Any, given: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted({*stored, *given}):
            inner = f"{path}.{key}" if path else key
            yield from _differences(inner, stored.get(key), given.get(key))
    elif stored != given:
        yield _HASHED.get(path) or f"{path} is {stored!r} there and {given!r} here"
