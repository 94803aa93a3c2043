"""What a run looks like while it goes on: bars for a person, lines of JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Column

from assay.run.events import Event

__all__ = ["Bars", "Lines", "Quiet"]

_WIDE = 110  # columns of a terminal


class Quiet:
    """Shows nothing."""

    json = False

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the screen as it is."""

    def __call__(self, event: Event) -> None:
        """Ignore an event."""


class Lines(Quiet):
    """Prints every event as one line of JSON."""

    json = True

    def __call__(self, event: Event) -> None:
        """Print an event."""
        print(json.dumps(event.to_dict()), flush=True)


class Bars(Quiet):
    """A bar for each step, with its cost so far and what remains.

    Where the output is no terminal, one line is printed as each step ends.

    Args:
        steps: Name -> title of those that are known before they begin; others are added as they
            begin, and called what they then say.
    """

    def __init__(self, steps: Mapping[str, str]) -> None:
        self._titles = dict(steps)
        self._console = Console(file=sys.stderr)
        # The message has what the others leave of the line, and on a narrow one the bar gives way.
        self._progress = Progress(
            TextColumn("{task.description}", justify="left", markup=False),
            BarColumn(bar_width=24 if self._console.width >= _WIDE else 8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[cost]}", justify="right"),
            Remaining(compact=True),
            TextColumn(
                "{task.fields[message]}",
                style="dim",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            expand=True,
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        for name in self._titles:
            self._add(name)
        self._progress.start()
        return self

    def _add(self, name: str) -> None:
        title = f"{len(self._tasks) + 1} {self._titles[name]}"
        self._tasks[name] = self._progress.add_task(
            title, total=None, start=False, cost="", message=""
        )

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move a bar."""
        if not event.step:
            self._console.print(event.message, highlight=False, markup=False)
            return
        if event.step not in self._tasks:
            self._titles[event.step] = event.message
            self._add(event.step)
        task = self._tasks[event.step]
        if event.kind == "start":
            self._progress.start_task(task)
        self._progress.update(
            task,
            total=event.total or None,
            completed=event.done,
            cost=f"{event.cost_s:.1f} s",
            message=event.message if event.kind != "start" else "",
        )
        if event.kind == "end":
            self._progress.stop_task(task)
            if not self._console.is_terminal:
                number = list(self._titles).index(event.step) + 1
                title = f"{number} {self._titles[event.step]:22}"
                self._console.print(
                    f"{title} {event.cost_s:7.1f} s  {event.message}",
                    highlight=False,
                    markup=False,
                )
