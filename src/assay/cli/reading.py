"""`assay report` and `assay show`: what a study says, without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from assay.errors import InvalidSetting

__all__ = ["report", "show"]


def report(out: Path, /) -> None:
    """Write the report of a study again and say where it is.

    Args:
        out: Folder of the study.
    Raises:
        InvalidSetting: the folder cannot be written.
    """
    from assay.cli.audited import is_audit
    from assay.report.audit import write_audit
    from assay.report.html import write_report
    from assay.study.store import Study

    write = write_audit if is_audit(out) else write_report
    with Study.read(out) as study:
        try:
            print(write(study, out / "report.html"))
        except PermissionError as error:
            raise InvalidSetting(f"{out} cannot be written; change its permissions") from error


def show(out: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show the winner, the costs and where its files are; of an audit its table and verdict.

    Args:
        out: Folder of the study.
        json: Print one line of JSON.
    """
    from assay.cli.audited import is_audit, print_audit
    from assay.cli.show import print_result

    (print_audit if is_audit(out) else print_result)(out, json=json)
