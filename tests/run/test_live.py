"""The report is drawn between events, for a hundredth of the time, and never stops a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from assay.run import live
from assay.run.events import Event
from assay.run.live import Live


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(live, "time", made)
    return made


def drawn_at(clock: Clock, *, takes_s: float, until_s: int) -> list[float]:
    """Return when pages were drawn, with an event each second."""
    began: list[float] = []

    def draw() -> None:
        began.append(clock.now - 100.0)
        clock.now += takes_s

    listener = Live(draw, lambda event: None)
    while clock.now < 100.0 + until_s:
        clock.now += 1.0
        listener(Event("progress"))
    return began


def test_a_quick_page_is_drawn_every_ten_seconds(clock: Clock) -> None:
    assert drawn_at(clock, takes_s=0.0, until_s=45) == [10, 20, 30, 40]


def test_a_slow_page_takes_a_hundredth_of_the_time(clock: Clock) -> None:
    began = drawn_at(clock, takes_s=3.0, until_s=3000)
    assert began[:2] == [10, 313]
    assert 3.0 * len(began) <= 0.011 * 3000


def test_every_event_is_passed_on_first(clock: Clock) -> None:
    order: list[object] = []
    listener = Live(lambda: order.append("drawn"), order.append)
    event = Event("end", "train")
    clock.now += 10.0
    listener(event)
    assert order == [event, "drawn"]


def test_a_page_that_cannot_be_drawn_is_told_once_and_stops_nothing(clock: Clock) -> None:
    told: list[Event] = []
    tries = SimpleNamespace(count=0)

    def draw() -> None:
        tries.count += 1
        raise OSError("no space left")

    listener = Live(draw, told.append)
    for _ in range(100):
        clock.now += 5.0
        listener(Event("progress"))
    notes = [event.message for event in told if event.kind == "note"]
    assert notes == [
        "the report is not drawn any more while this goes on: OSError('no space left')"
    ]
    assert tries.count == 1
    assert len(told) == 101
