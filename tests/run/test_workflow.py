"""What a step says of what it could not do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from assay.errors import InvalidSetting
from assay.run.workflow import Workflow


def test_a_table_that_saw_every_network_is_not_checked_and_a_note_says_why() -> None:
    notes: list[str] = []

    def refused(num: int, *, seed: int) -> Any:
        raise InvalidSetting(f"validate({num}) has no network")

    flow: Any = SimpleNamespace(
        plan=SimpleNamespace(space=SimpleNamespace(size=16), seed=0),
        steps=SimpleNamespace(note=notes.append), study=None,
    )  # fmt: skip
    table: Any = SimpleNamespace(validate=refused)
    Workflow._validate(flow, table)
    assert notes == [
        "the table was fitted to all 16 networks of the space, so none is left to check it"
    ]
