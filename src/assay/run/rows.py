"""Which row of an audit is which: a name, what it was set to, and how long it may prepare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from assay.cost import Budget
from assay.study.store import Study

__all__ = ["Entry", "Rows"]

_KEY = "rows"


@dataclass(frozen=True)
class Entry:
    """What an audit keeps of a row, so that its figures are not taken for those of another.

    Attributes:
        name: Of the row in the table.
        settings: Class and fields of its estimator, as JSON.
        steps: Of its preparation, as planned; None before.
        counted: Whether it prepares anything, so that other steps make it another row.
        part_s: Seconds that its preparation may take; 0 where the budget is in counts.
        each_s: Seconds of one estimate, where the estimator says so before it makes one.
        why: Why it was refused, "" if it was not.
        question: What was asked when it was; another question gets another answer.
    """

    name: str
    settings: Mapping[str, Any]
    steps: int | None = None
    counted: bool = True
    part_s: float = 0.0
    each_s: float = 0.0
    why: str = ""
    question: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, budget: Budget) -> bool:
        """Whether its steps, where they matter, are those that a budget asks for."""
        if self.steps is None or self.why or not self.counted or budget.steps is None:
            return True
        return self.steps == budget.steps or (
            budget.seconds is not None and self.steps < budget.steps
        )


class Rows:
    """The rows of a study, by ids that go into its steps, keys and files.

    Args:
        study: Keeps them as one document.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._entries = {row: Entry(**told) for row, told in (study.get(_KEY) or {}).items()}

    def __getitem__(self, row: str) -> Entry:
        return self._entries[row]

    def find(self, name: str, settings: Mapping[str, Any], budget: Budget) -> tuple[str, str]:
        """Return the id of a row with these settings, a new one if there is none.

        Args:
            name: Of the row.
            settings: Of its estimator, as JSON.
            budget: Whose steps it must have been prepared for.
        Returns:
            The id, and what is set otherwise than in the last row of this name; "" if nothing is,
            or it is there already.
        """
        settings = json.loads(json.dumps(settings))
        same = {row: entry for row, entry in self._entries.items() if entry.name == name}
        for row, entry in same.items():
            if entry.settings == settings and entry.fits(budget):
                return row, ""
        row, number = name, 1
        while row in self._entries:
            number += 1
            row = f"{name} ({number})"
        self._entries[row] = Entry(name, settings)
        self._save()
        if not same:
            return row, ""
        last = list(same.values())[-1]
        told = dict(_flat(last.settings)), dict(_flat(settings))
        changed = {f: (told[0].get(f), told[1].get(f)) for f in {**told[0], **told[1]}}
        if not last.fits(budget):
            changed["budget.steps"] = (last.steps, budget.steps)
        return row, ", ".join(
            f"{f}: {old!r} -> {new!r}" for f, (old, new) in changed.items() if old != new
        )

    def change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change fields of some rows, all at once.

        Args:
            changes: Id -> field -> value.
        """
        for row, fields in changes.items():
            self._entries[row] = replace(self._entries[row], **fields)
        if changes:
            self._save()

    def _save(self) -> None:
        self._study.put(_KEY, {row: asdict(entry) for row, entry in self._entries.items()})


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield fields by dotted names, those of fields included."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", inner
