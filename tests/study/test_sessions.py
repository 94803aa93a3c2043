from __future__ import annotations

import sqlite3
import time

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from assay.cost import Cost
from assay.errors import Unwritable
from assay.study import sessions
from assay.study.store import Study


def beaten(study: Study, times: int) -> None:
    """Wait until the heart has beaten so often, as seen in the database."""
    seen = {study.sessions()[-1]["heartbeat"]}
    deadline = time.monotonic() + 10
    while len(seen) <= times:
        assert time.monotonic() < deadline, "the heart does not beat"
        time.sleep(0.002)
        seen.add(study.sessions()[-1]["heartbeat"])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(sessions, "_HEARTBEAT_S", 0.01)


class Full:
    """A disk on which no run can write, until it is given room."""

    def __init__(self, study: Study) -> None:
        self.tries, self.room = 0, False
        event.listen(study._engine, "before_cursor_execute", self._execute)

    def _execute(self, connection, cursor, statement, parameters, context, many) -> None:
        if "sessions" in statement and not statement.startswith("SELECT") and not self.room:
            self.tries += 1
            raise OperationalError(statement, {}, sqlite3.OperationalError("disk is full"))


def test_the_heart_beats_at_least_once_a_second():
    assert sessions._HEARTBEAT_S <= 0.5


def test_the_heart_beats_while_others_write_and_stops_at_the_end(tmp_path, quick):
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        for i in range(200):
            study.put("i", i)
        beaten(study, 3)
        study.end_session()
        (last,) = study.sessions()
        time.sleep(0.05)
        assert study.sessions() == [last]
        assert last["heartbeat"] == last["ended"] > last["started"]
        assert study.elapsed_s == last["ended"] - last["started"]


def test_a_run_that_is_closed_without_its_end_lost_what_it_did_not_book(tmp_path, quick):
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        beaten(study, 3)
        study.book("train", Cost(0.001))
    with Study.open(tmp_path, identity={}) as study:
        (first,) = study.sessions()
        assert first["ended"] is None
        assert study.lost_s == 0.0
        study.begin_session({})
        lived_s = first["heartbeat"] - first["started"]
        assert study.lost_s == pytest.approx(lived_s - 0.001, abs=1e-9)
        assert study.sessions()[0]["ended"] == first["heartbeat"]
        assert sum(c.wall_s for c in study.ledger().values()) == pytest.approx(lived_s)


def test_a_run_that_ended_lost_nothing(tmp_path, quick):
    for _ in range(2):
        with Study.open(tmp_path, identity={}) as study:
            study.begin_session({})
            beaten(study, 1)
            study.end_session()
    with Study.read(tmp_path) as study:
        assert study.ledger() == {}
        assert len(study.sessions()) == 2


def test_outside_a_run_costs_are_booked_to_none(tmp_path):
    with Study.open(tmp_path, identity={}) as study:
        study.book("search", Cost(1.0))
        study.end_session()
        assert study.sessions() == []
        assert study.ledger() == {"search": Cost(1.0)}


def test_a_machine_that_sleeps_or_sets_its_clock_has_not_worked_longer(tmp_path, monkeypatch):
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        woken = time.time() + 8 * 3600
        monkeypatch.setattr(sessions.time, "time", lambda: woken)
        study.book("train", Cost(0.001))
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        assert study.lost_s < 600
        (first, second) = study.sessions()
        assert first["ended"] - first["started"] < 600
        assert second["started"] == woken


def test_the_heart_beats_on_when_there_is_room_again(tmp_path, quick):
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        disk, deadline = Full(study), time.monotonic() + 10
        while disk.tries < 3:
            assert time.monotonic() < deadline, "the heart has given up"
            time.sleep(0.002)
        disk.room = True
        beaten(study, 2)


def test_where_no_room_is_left_a_run_neither_begins_nor_ends(tmp_path):
    with Study.open(tmp_path, identity={}) as study:
        study.begin_session({})
        disk = Full(study)
        with pytest.raises(Unwritable, match=r"cannot be written \(disk is full\); make room"):
            study.end_session()
        with pytest.raises(Unwritable, match="disk is full"):
            study.begin_session({})
        disk.room = True
        assert [run["ended"] for run in study.sessions()] == [None]


@pytest.mark.parametrize("error", [None, KeyError("said before")])
def test_a_study_that_cannot_be_closed_in_order_says_so_and_gives_the_folder_back(tmp_path, error):
    with pytest.raises(type(error) if error else Unwritable):  # noqa: SIM117, PT012
        with Study.open(tmp_path, identity={}) as study:
            study.begin_session({})
            Full(study)
            if error:
                raise error
    Study.open(tmp_path, identity={}).close()


def test_what_cannot_be_withdrawn_stays(tmp_path):
    study = Study.open(tmp_path, identity={})
    study.begin_session({})
    Full(study)
    study.withdraw()
    with Study.open(tmp_path, identity={}) as again:
        assert len(again.sessions()) == 1
