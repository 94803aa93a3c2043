"""What a study names as the newest file outlives a loss of power; all else is written at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.cost import Cost
from assay.errors import Unwritable
from assay.study.store import Study
from assay.study.writing import writing

NORMAL, FULL = 1, 2


def synchronous(connection: Any) -> int:
    """Return what SQLite does as it commits: it flushes what it has written ahead if FULL."""
    (level,) = connection.connection.driver_connection.execute("PRAGMA synchronous").fetchone()
    return int(level)


def committed(study: Study) -> list[int]:
    """Return a list that grows by the level of each transaction that writes."""
    levels: list[int] = []

    def note(connection: Any) -> None:
        if connection.connection.driver_connection.in_transaction:
            levels.append(synchronous(connection))

    event.listen(study._engine, "commit", note)
    return levels


@pytest.mark.parametrize("elsewhere", [False, True])
def test_only_what_names_another_file_is_flushed(tmp_path: Path, elsewhere: bool) -> None:
    url = f"sqlite:///{tmp_path}/other.db" if elsewhere else None
    with Study.open(tmp_path / "s", identity={}, url=url) as study:
        levels = committed(study)
        about: dict[str, Any] = {"seed": 0, "architecture": "{}", "metrics": {}, "steps": 1}
        study.record(Trial(0, Architecture({"a": 1}), "running"), {"search": Cost(1.0)})
        study.checkpoint("train", done=1, cost=Cost(), pointer={"file": "one"})
        study.checkpoint("train", done=2, cost=Cost(), pointer={"file": "one"})
        study.checkpoint("train", done=3, cost=Cost())
        study.checkpoint("train", done=4, cost=Cost(), pointer={"file": "two"})
        study.save_finalist("a", **about, state="running", weights="three")
        study.put("a", 1)
        assert levels == [NORMAL, FULL, NORMAL, NORMAL, FULL, FULL, NORMAL]


def test_one_that_failed_leaves_the_next_as_it_was() -> None:
    with Study.open(None, identity={}) as study:
        with study._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1")
            before = synchronous(connection)
        with pytest.raises(Unwritable), writing(study._engine, flushed=True) as connection:
            connection.exec_driver_sql("CREATE TABLE large (a)")
        with study._engine.connect() as connection:
            assert synchronous(connection) == before == NORMAL
