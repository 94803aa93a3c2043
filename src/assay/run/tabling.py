"""The latency table of a run: given or measured once, and kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        ForeignMachine: a table of another machine or target.
    """
    if not path.exists():
        if given is not None:
            table = LatencyTable.load(given, space, target, example=example)
        else:

            def progress(done: int, total: int) -> None:
                step.done, step.total = done, total
                step.tell()

            table = LatencyTable.build(
                space, target, example=example, on_progress=progress, seed=seed
            )
        table.save(path)
    return LatencyTable.load(path, space, target, example=example)
