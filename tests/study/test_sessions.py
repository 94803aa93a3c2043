from __future__ import annotations

import time

import pytest

from assay.cost import Cost
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
