"""The report of a run under way, drawn anew between its events for a hundredth of the time."""

from __future__ import annotations

import time
from collections.abc import Callable

from assay.run.events import Event, Listener

__all__ = ["Live"]

_SHARE = 0.01  # of the time may go into drawing
_SOONEST_S = 10.0


class Live:
    """A listener that passes every event on, and draws the report when it is time to.

    What drawing takes counts to the step under way. Where a page cannot be drawn, that is told once
    and no other is tried: a run is worth more than a look at it, and its last report is still
    written, or raises, at its end.

    Args:
        draw: Writes the page.
        listener: Told every event.
    """

    def __init__(self, draw: Callable[[], object], listener: Listener) -> None:
        self._draw = draw
        self._listener = listener
        self._due = time.perf_counter() + _SOONEST_S

    def __call__(self, event: Event) -> None:
        """Pass an event on, then draw if that is due."""
        self._listener(event)
        started = time.perf_counter()
        if started < self._due:
            return
        try:
            self._draw()
        except Exception as error:
            self._due = float("inf")
            said = f"the report is not drawn any more while this goes on: {error!r}"
            self._listener(Event("note", message=said))
        else:
            ended = time.perf_counter()
            self._due = ended + max(_SOONEST_S, (ended - started) / _SHARE)
