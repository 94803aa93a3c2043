"""Where truths come from: which architectures to train for them, or a file of published ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Container, Sequence
from pathlib import Path

import numpy as np

from assay.errors import InvalidSetting, nearest

__all__ = ["load_truth", "stratified"]

_GOLDEN = (math.sqrt(5) - 1) / 2
_SHOWN = 5  # faults of a file that are told at once


def stratified(values: Sequence[float], num: int, *, rng: np.random.Generator) -> list[int]:
    """Choose candidates that spread evenly over the quantiles of a cheap quantity, such as MACs.

    The sample grows: with the same candidates and a generator in the same state, the first n of
    n + m are the n. Quantiles are visited in steps of the golden ratio from a random start, which
    leaves gaps of at most three lengths at any n; equal values come in random order.

    Source: Niederreiter 1992, "Random Number Generation and Quasi-Monte Carlo Methods", section 3.1
    (Kronecker sequences).

    Args:
        values: Of each candidate, finite.
        num: How many to choose.
        rng: Makes two draws, whatever `num`.
    Returns:
        Indices of distinct candidates, in the order in which to take them.
    Raises:
        InvalidSetting: there are fewer candidates, or a value is not finite.
    """
    if not 0 <= num <= len(values):
        raise InvalidSetting(f"cannot choose {num} of {len(values)} candidates; draw more of them")
    quantity = np.asarray(values, np.float64)
    if not np.isfinite(quantity).all():
        raise InvalidSetting("a candidate's value is not finite; leave that candidate out")
    order = np.lexsort((rng.permutation(len(quantity)), quantity))
    start, places, free = rng.random(), np.arange(len(quantity)), np.ones(len(quantity), bool)
    chosen = []
    for i in range(num):
        wanted = (start + i * _GOLDEN) % 1.0 * len(quantity) - 0.5
        place = int(np.where(free, np.abs(places - wanted), np.inf).argmin())
        free[place] = False
        chosen.append(int(order[place]))
    return chosen


def load_truth(
    path: Path,
    *,
    key: str = "architecture",
    value: str = "truth",
    known: Container[str] | None = None,
    needed: Collection[str] = (),
) -> dict[str, float]:
    """Read a CSV file of published truths, one row an architecture.

    Args:
        path: With a first line that names the columns; other columns are passed over.
        key: Column of the architectures, as text.
        value: Column of the truths, higher is better.
        known: The architectures of the space; a row of another is a fault. None for any.
        needed: Architectures that must be there.
    Returns:
        Architecture -> truth, in the order of the file.
    Raises:
        InvalidSetting: the file cannot be read, lacks a column or an architecture that is needed,
            or has rows that are incomplete, duplicated, unknown or not finite numbers; the message
            names them by line.
    """
    found: dict[str, tuple[int, float]] = {}
    faults = []
    for line, row in _rows(path, (key, value)):
        fault = _fault(row, key, value, known)
        if not fault and row[key] in found:
            fault = f"repeats {row[key]!r} of line {found[row[key]][0]}"
        if fault:
            faults.append(f"line {line} {fault}")
        else:
            found[row[key]] = (line, float(row[value]))
    faults += [f"no line has {name!r}" for name in needed if name not in found]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InvalidSetting(f"{path}: {'; '.join(faults[:_SHOWN])}{more}; correct the file")
    return {name: number for name, (_, number) in found.items()}


def _rows(path: Path, columns: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a file that has the columns, each with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidSetting(f"cannot read truths from {path}: {error}; give a CSV file") from error
    for column in columns:
        if column not in names:
            raise InvalidSetting(f"{path} has no column {column!r}; {nearest(column, names)}")
    return rows


def _fault(row: dict[str, str], key: str, value: str, known: Container[str] | None) -> str:
    """Say what is wrong with a row by itself, "" for nothing."""
    if None in row or None in row.values():  # what `csv` makes of too many cells and of too few
        return "does not have one cell for each column"
    if not row[key]:
        return f"has no {key}"
    if known is not None and row[key] not in known:
        return f"has {row[key]!r}, which is no architecture of the space"
    try:
        finite = math.isfinite(float(row[value]))
    except ValueError:
        finite = False
    return "" if finite else f"has {row[value]!r}, which is no finite number"
