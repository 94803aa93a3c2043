"""What a run tells while it goes on; the command line, `on_event` and logs all read this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Event", "Listener", "silent"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: "start", "progress" or "end" of a step, or "note" for a message.
        step: Name of the step, a key of `STEPS`; "" for notes about the whole run.
        done: How much of the step is done, in its own unit; grows to `total`.
        total: 0 while unknown.
        cost_s: Wall seconds booked to the step so far.
        message: One line for a person.
        data: Figures, for a program.
    """

    kind: Literal["start", "progress", "end", "note"]
    step: str = ""
    done: int = 0
    total: int = 0
    cost_s: float = 0.0
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, empty ones left out."""
        return {k: v for k, v in asdict(self).items() if v not in ("", {}, 0)}


Listener: TypeAlias = Callable[[Event], None]
"""Called with every event of a run, in the thread that runs it."""


def silent(event: Event) -> None:
    """Ignore an event."""
