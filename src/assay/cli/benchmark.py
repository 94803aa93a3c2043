"""Published truths of a benchmark, read from a file: one for each distinct network."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import InvalidSetting

if TYPE_CHECKING:
    from assay.architecture import Architecture
    from assay.space.space import Space

__all__ = ["published"]

_OWN, _CLASS = "index", "rep_index"


def published(space: Space, path: Path, *, key: str, value: str) -> dict[Architecture, float]:
    """Read the truths of NAS-Bench-201's cells.

    The file may hold a part of the space. Where it has the columns `index` and `rep_index`, the
    rows in which they are equal are taken: one of each class of architectures that are one network.

    Args:
        space: Of cells.
        path: A CSV file.
        key: Its column of architectures, written as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.
        value: Its column of truths, higher is better.
    Returns:
        Canonical architecture -> truth, in the order of the file.
    Raises:
        InvalidSetting: the file cannot be read or lacks a column; rows are incomplete, duplicated,
            unknown or no numbers; two rows that are taken are one network; or a network has rows
            of which none is taken.
    """
    from assay.trust.stratify import load_truth
    from assay.zoo.cell import arch_string, from_arch_string

    known = frozenset(map(arch_string, space.all()))
    truths = load_truth(path, key=key, value=value, known=known)
    network_of = {text: space.canonical(from_arch_string(text)) for text in truths}
    taken = list(truths)
    if {_OWN, _CLASS} <= set(_columns(path)):
        own, of_class = (load_truth(path, key=key, value=column) for column in (_OWN, _CLASS))
        taken = [text for text in truths if own[text] == of_class[text]]
    networks: dict[Architecture, str] = {}
    for text in taken:
        same = networks.setdefault(network_of[text], text)
        if same != text:
            raise InvalidSetting(
                f"{path}: {same!r} and {text!r} are one network; keep one row of each, or give the "
                f"columns {_OWN} and {_CLASS}"
            )
    lacking = {network: text for text, network in network_of.items() if network not in networks}
    if lacking:
        more = f" and of {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InvalidSetting(
            f"{path} lacks the row that stands for the class of {next(iter(lacking.values()))!r} "
            f"({_OWN} = {_CLASS}){more}; add what is missing"
        )
    return {network: truths[text] for network, text in networks.items()}


def _columns(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return next(csv.reader(file))
