"""What every benchmark shares: interleaved pairs, an interval, and one line of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from assay.trust.interval import Interval

if TYPE_CHECKING:
    from assay.run.auditing import Audit

PAIRS = 15
HALF_WIDTHS = ((8, 12, 16), (16, 24, 32))
"""Of the space `conv`, so that its networks train in seconds."""


def seconds(work: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all that it started, ended or not."""
    here = psutil.Process()
    used = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(t.user + t.system + t.children_user + t.children_system for t in used)


def paired_ratios(
    a: Callable[[], object], b: Callable[[], object], *, pairs: int = PAIRS
) -> list[float]:
    """Return time of a ÷ time of b for interleaved pairs, after one warm-up of each."""
    a(), b()
    ratios = []
    for i in range(pairs):
        # Either may come first, so that neither always meets the other's warm caches.
        if i % 2:
            tb, ta = seconds(b), seconds(a)
        else:
            ta, tb = seconds(a), seconds(b)
        ratios.append(ta / tb)
    return ratios


def interval(
    values: Sequence[float],
    statistic: Callable[[Any], float] = np.median,  # type: ignore[assignment]
    *,
    draws: int = 2000,
) -> tuple[float, float]:
    """Return a 95 % percentile-bootstrap interval of a statistic of the values."""
    rng = np.random.default_rng(0)
    data = np.asarray(values, dtype=float)
    found = [statistic(data[rng.integers(len(data), size=len(data))]) for _ in range(draws)]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def rounded(interval: Interval, sign: int = 1) -> list[float | None]:
    """Return a figure and the ends of its interval, turned round where the sign says so."""
    figures = (interval.value, *(interval.low, interval.high)[::sign])
    return [_rounded(figure, sign) for figure in figures]


def of_audit(found: Audit) -> dict[str, Any]:
    """Return what benchmarks that audit report alike: the ceiling, each row's tau, the verdict."""
    ceiling, rows = found.table.ceiling, found.table.rows
    return {
        "ceiling": None if ceiling is None else [rounded(ceiling.between), rounded(ceiling.mean)],
        "tau": {row.estimator: rounded(row.tau) for row in rows},
        "top_half": {row.estimator: rounded(row.tau_top)[0] for row in rows},
        "verdict": list(found.verdict),
    }


def _rounded(figure: float | None, sign: int = 1) -> float | None:
    return None if figure is None else round(sign * float(figure), 4)


def report(
    name: str,
    value: float | None,
    unit: str,
    target: str,
    bounds: tuple[float | None, float | None],
    **keys: Any,
) -> None:
    """Print the result as the last line; null stands for what is undefined."""
    result = {
        "name": name,
        "value": _rounded(value),
        "unit": unit,
        "target": target,
        "low": _rounded(bounds[0]),
        "high": _rounded(bounds[1]),
        "threads": torch.get_num_threads(),
        "cpu_s": round(cpu_seconds(), 1),
        **keys,
    }
    print(json.dumps(result))
