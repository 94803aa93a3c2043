"""Networks of equal MACs whose latencies differ: what a count of MACs does not see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from assay.architecture import Option
from assay.report.units import amount

__all__ = ["Network", "Pair", "equal_macs"]

_MOST = 3  # what is named of a difference; the rest stands in its table
_TOLD_APART = 1.05  # ratio of latencies: whatever is nearer to 1 may be noise
_PART = 0.05  # of what was measured, below which a difference by the table explains nothing


@dataclass(frozen=True)
class Network:
    """A whole network that was measured.

    Attributes:
        architecture: Label -> option.
        macs: Multiply-accumulates of one forward pass.
        latency_ms: Measured, not predicted.
        parts_ms: What the latency table says each of its ops costs, op -> ms; may be empty.
    """

    architecture: Mapping[str, Option]
    macs: float
    latency_ms: float
    parts_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two networks of equal MACs, by their place in the sequence they were found in.

    Attributes:
        fast: Index of the faster one.
        slow: Index of the slower one.
        ratio: Latency of the slower ÷ the faster.
        ops: What differs, the largest part first, in words.
        decisions: Every label they differ at: (label, option of the fast, of the slow).
    """

    fast: int
    slow: int
    ratio: float
    ops: tuple[str, ...]
    decisions: tuple[tuple[str, str, str], ...]


def equal_macs(
    networks: Sequence[Network], *, tolerance: float = 0.02, most: int = 3
) -> list[Pair]:
    """Find the pairs of equal MACs whose measured latencies differ most.

    No network is in two pairs. The cost is that of all pairs within the tolerance.

    Args:
        networks: Measured networks.
        tolerance: MACs are equal when the larger is at most this share above the smaller.
        most: How many pairs to return.
    Returns:
        Pairs by falling ratio of their latencies; those of about equal latency are left out.
    """
    macs = np.array([network.macs for network in networks], float)
    latency = np.array([network.latency_ms for network in networks], float)
    order = np.argsort(macs, kind="stable")
    ends = np.searchsorted(macs[order], macs[order] * (1 + tolerance), side="right")
    found: list[tuple[float, int, int]] = []
    for place, end in enumerate(ends):
        i, others = order[place], order[place + 1 : end]
        found += [
            (float(max(latency[i], latency[j]) / min(latency[i], latency[j])), int(i), int(j))
            for j in others
            if max(latency[i], latency[j]) >= _TOLD_APART * min(latency[i], latency[j]) > 0
        ]
    taken: set[int] = set()
    pairs: list[Pair] = []
    for ratio, i, j in sorted(found, key=lambda item: (-item[0], item[1], item[2])):
        if len(pairs) < most and not taken & {i, j}:
            taken |= {i, j}
            fast, slow = (i, j) if latency[i] < latency[j] else (j, i)
            pairs.append(_pair(networks, fast, slow, ratio))
    return pairs


def _pair(networks: Sequence[Network], fast: int, slow: int, ratio: float) -> Pair:
    a, b = networks[fast], networks[slow]
    labels = [
        label
        for label in sorted({*a.architecture, *b.architecture})
        if a.architecture.get(label) != b.architecture.get(label)
    ]
    decisions = [(label, a.architecture.get(label), b.architecture.get(label)) for label in labels]
    ops = _by_time(a, b) if a.parts_ms and b.parts_ms else _by_count(decisions)
    said = tuple((label, _said(mine), _said(other)) for label, mine, other in decisions)
    return Pair(fast, slow, ratio, ops, said)


def _by_time(fast: Network, slow: Network) -> tuple[str, ...]:
    """Name the ops whose table latencies differ most between the two networks."""
    mine, other = slow.parts_ms, fast.parts_ms
    gaps = {op: mine.get(op, 0.0) - other.get(op, 0.0) for op in {*mine, *other}}
    least = _PART * (slow.latency_ms - fast.latency_ms)
    largest = sorted(gaps, key=lambda op: (-abs(gaps[op]), op))[:_MOST]
    said = [_more(op, gaps[op]) for op in largest if abs(gaps[op]) >= least]
    return tuple(said) or ("nothing in the table tells them apart",)


def _more(op: str, gap_ms: float) -> str:
    way = "more" if gap_ms > 0 else "less"
    return f"{op}: {amount('gap_ms', abs(gap_ms))} {way} in the slower"


def _by_count(
    decisions: Sequence[tuple[str, Option | None, Option | None]],
) -> tuple[str, ...]:
    """Name the one decision that differs, or how often each op is taken more, then the sizes."""
    if len(decisions) == 1:
        label, fast, slow = decisions[0]
        return (f"{label}: {_said(slow)} in the slower, {_said(fast)} in the faster",)
    taken = Counter(slow for _, _, slow in decisions if isinstance(slow, str))
    taken.subtract(Counter(fast for _, fast, _ in decisions if isinstance(fast, str)))
    ops = sorted(((n, op) for op, n in taken.items() if n), key=lambda item: (-abs(item[0]), item))
    sizes = [
        f"{label}: {_said(slow)} in the slower, {_said(fast)} in the faster"
        for label, fast, slow in decisions
        if not isinstance(fast, str) and not isinstance(slow, str)
    ]
    said = [f"{abs(n)} × {op} more in the {'slower' if n > 0 else 'faster'}" for n, op in ops]
    return tuple([*said, *sizes][:_MOST])


def _said(option: Option | None) -> str:
    return "absent" if option is None else str(option)
