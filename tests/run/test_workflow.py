"""What a step says of what it could not do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.errors import InvalidSetting
from assay.run.workflow import Workflow
from assay.testing import tiny_space


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


@pytest.mark.parametrize(
    ("limits", "objectives", "sign", "told"),
    [
        ({}, ("score",), 1, True),
        ({}, ("score",), -1, False),
        ({"macs": 10**9}, ("score",), 1, False),
        ({}, ("score", "-macs"), 1, False),
    ],
)
def test_that_the_largest_network_wins_unopposed_is_told(
    limits: dict[str, float], objectives: tuple[str, ...], sign: int, told: bool
) -> None:
    space, notes = tiny_space(), list[str]()
    largest = space.canonical(space.largest())
    points = [largest, *(p for p in map(space.canonical, space.all()) if p != largest)][:9]
    trials = [
        Trial(i, point, "scored", Estimate(-sign * float(i), {}, Cost(), {}))
        for i, point in enumerate(points)
    ]
    flow: Any = SimpleNamespace(
        plan=SimpleNamespace(space=space, limits=limits, objectives=objectives),
        history=[*trials, Trial(9, largest, "infeasible")],
        steps=SimpleNamespace(note=notes.append),
    )
    Workflow._note_largest(flow)
    assert notes == told * [
        "the space's largest network scores best, and nothing speaks against it; a limit, such as "
        "latency_ms, makes it a choice"
    ]
