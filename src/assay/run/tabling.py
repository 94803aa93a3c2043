"""The latency table of a run: given or measured once, and kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.errors import InvalidSetting
from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.run.steps import Step
from assay.space.space import Space

__all__ = ["kept_table"]


def kept_table(
    step: Step, space: Space, target: Device, example: Any, *, path: Path, given: Path | None,
    seed: int,
) -> LatencyTable:  # fmt: skip
    """Return the table in a run's folder; where there is none yet, the one given, or a new one.

    Args:
        step: Tells how far measuring is.
        space: What the table is of.
        target: Likewise.
        example: Inputs at the target's batch.
        path: In the folder.
        given: The file of a table measured before; None to measure one.
        seed: Names which architectures are measured whole.
    Raises:
        InvalidStudy: the file given is missing or no table.
        InvalidSetting: it is of another space or input shape, or differs from the folder's own.
        ForeignMachine: a table of another machine or target.
    """
    told = None if given is None else LatencyTable.load(given, space, target, example=example)
    if not path.exists():
        (told or _measured(step, space, target, example, seed)).save(path)
    table = LatencyTable.load(path, space, target, example=example)
    if told is not None and _figures(told) != _figures(table):
        raise InvalidSetting(
            f"{path.parent} has a latency table already, and {given} differs from it; leave the "
            "table out to go on with the folder's own, or give another folder"
        )
    return table


def _measured(step: Step, space: Space, target: Device, example: Any, seed: int) -> LatencyTable:
    def progress(done: int, total: int) -> None:
        step.done, step.total = done, total
        step.tell()

    return LatencyTable.build(space, target, example=example, on_progress=progress, seed=seed)


def _figures(table: LatencyTable) -> tuple[Any, ...]:
    return table.units, table.fit, table.fitted
