"""Steps under way: every second of a run is booked to one of them, and told to the listener."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from assay.contracts import STEPS
from assay.cost import Cost
from assay.run.events import Event, Listener
from assay.study.store import Study

__all__ = ["Step", "Steps"]


class Steps:
    """The clock of a run: what passed since the last booking belongs to the step that books next.

    Args:
        study: Where costs and progress go.
        listener: Called with every event.
    """

    def __init__(self, study: Study, listener: Listener) -> None:
        self.study = study
        self.listener = listener
        self._booked_at = time.perf_counter()
        self._before_s = sum(cost.wall_s for cost in study.ledger().values())
        self._started = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last booking, and begin anew."""
        now = time.perf_counter()
        passed, self._booked_at = now - self._booked_at, now
        return passed

    def unbooked_s(self) -> float:
        """Return the seconds since the last booking."""
        return time.perf_counter() - self._booked_at

    def spent_s(self) -> float:
        """Return the seconds spent in all, by this run and by those it continues."""
        return self._before_s + time.perf_counter() - self._started

    @contextmanager
    def step(self, name: str, total: int = 0, *, title: str = "") -> Iterator[Step]:
        """Within: the step is under way. If nothing is raised, it is finished after.

        Args:
            name: Its name in the study.
            total: Units in all; 0 while unknown.
            title: What it is called on screen; by default what `STEPS` calls it.
        """
        step = Step(self, name, total)
        called = title or STEPS[name]
        self.listener(Event("start", name, step.done, step.total, step.cost_s, called))
        yield step
        step.finish()
        self.listener(
            Event("end", name, step.done, step.total, step.cost_s, step.message, step.data)
        )

    def note(self, message: str) -> None:
        """Tell something about the run as a whole, and keep it for the report."""
        kept = self.study.get("notes") or []
        if message not in kept:  # a run that goes on may say it again
            self.study.put("notes", [*kept, message])
        self.listener(Event("note", message=message))


class Step:
    """One step of a run.

    Attributes:
        done: Units done, those of earlier runs included.
        total: Units in all; 0 while unknown.
        finished: Whether an earlier run finished it.
        pointer: File that an earlier run saved, relative to the study's folder; "" for none.
        message: What its line says, while it goes on and at its end.
        data: Figures that go with it.
    """

    def __init__(self, steps: Steps, name: str, total: int) -> None:
        phase = steps.study.phase(name)
        self._steps = steps
        self.name = name
        self.total = total
        self.done: int = phase.done
        self.finished: bool = phase.state == "done"
        self.pointer: str = (phase.checkpoint or {}).get("file", "")
        self.cost_s = steps.study.ledger().get(name, Cost()).wall_s
        self.message = ""
        self.data: Mapping[str, Any] = {}

    def lap(self) -> float:
        """Return the seconds since the last booking for a cost booked elsewhere."""
        seconds = self._steps.lap()
        self.cost_s += seconds
        return seconds

    def tell(self, message: str = "") -> None:
        """Report progress; nothing is written."""
        cost_s, said = self.cost_s + self._steps.unbooked_s(), message or self.message
        self._steps.listener(
            Event("progress", self.name, self.done, self.total, cost_s, said, self.data)
        )

    def checkpoint(
        self, *, pointer: str = "", samples: int = 0, macs: int = 0, device: str = ""
    ) -> None:
        """Book the time since the last booking, the progress and the saved file, all at once.

        Args:
            pointer: File that was saved, relative to the study's folder; "" for the one before.
            samples: Samples passed through a network since the last booking.
            macs: Multiply-accumulates of these; 0 where unknown.
            device: Where they ran.
        """
        cost = Cost(self._steps.lap(), samples, macs, device)
        self.pointer = pointer or self.pointer
        self._steps.study.checkpoint(
            self.name, done=self.done, cost=cost, pointer={"file": self.pointer}
        )
        self.cost_s += cost.wall_s
        self.tell()

    def finish(self) -> None:
        """Book what is left and mark the step as finished."""
        self.checkpoint()
        self._steps.study.finish(self.name)
