"""What every report's page shares: how it is set from a template, and how its file is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from assay.contracts import STEPS
from assay.report.units import amount, compact, keep_together, plain_name

__all__ = ["group_failures", "set_page", "write_page"]

_TRACEBACK = 4000  # characters of a traceback that are shown, from its end
_FOLDERS = re.compile(r'(?<=File ")[^"\n]*[/\\](?=(?:[^"/\\\n]+[/\\]){2})')


def set_page(template: str, *, live: bool, **values: Any) -> str:
    """Return a page as text.

    Args:
        template: File beside this one, which extends `base.html.j2`.
        live: Whether the page says when it was set, and loads itself again to show what is new.
        values: What it and its base name; text is escaped, figures are `Markup`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("assay.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        breakable=_breakable,
        amount_of=lambda value, name: amount(name, value),
        compact=compact,
        keep_together=keep_together,
        plain_name=plain_name,
    )
    set_at = f"{datetime.now():%H:%M:%S}" if live else ""
    return environment.get_template(template).render(values, set_at=set_at)


def write_page(page: str, path: str | os.PathLike[str]) -> Path:
    """Write a page; the file appears whole or not at all.

    Args:
        page: Its text.
        path: Where it goes; its folder must exist.
    Raises:
        OSError: it cannot be written there.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def group_failures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group failures by their last line, the most frequent first, with one traceback of each.

    Args:
        rows: Of a study's failures.
    Returns:
        Mappings with `last`, `text` (the end of the traceback) and `where`, a place for each. Of
        a file's path the end is kept: a page is passed on, and where things lie here is nobody's
        business. The study keeps all of it.
    """
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        text = str(row.get("traceback") or row.get("error") or row.get("message") or "").strip()
        text = _FOLDERS.sub("…/", text)
        last = text.splitlines()[-1] if text else "no message was kept"
        group = groups.setdefault(last, {"last": last, "text": text[-_TRACEBACK:], "where": []})
        phase, trial = row.get("phase"), row.get("trial")
        place = f"trial {trial}" if trial is not None else STEPS.get(str(phase), phase)
        group["where"].append(place or "an unknown step")
    return sorted(groups.values(), key=lambda group: (-len(group["where"]), group["last"]))


def _breakable(name: str) -> Markup:
    """Let a dotted name end a line after a dot or an underscore."""
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(name))))
