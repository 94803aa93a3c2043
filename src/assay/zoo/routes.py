"""The ways through a cell: which sequences of operations lead from its inputs to its output."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["routes"]

_Sequence = tuple[str, ...]


def routes(
    nodes: Mapping[int, Iterable[tuple[str, int]]],
    ends: Iterable[int],
    operations: Sequence[str],
    *,
    skip: str,
    longest: int = 2,
) -> list[float]:
    """Count how often each sequence of operations leads from an input to the output.

    A skip adds nothing to a sequence, and where an operation has another name, such as "none",
    nothing goes on.

    Source: White, Neiswanger, Savani 2021, "BANANAS: Bayesian Optimization with Neural
    Architectures for Neural Architecture Search", arXiv:1910.11858, section 4 (the path encoding,
    and that its shortest paths are enough); differs: skips are left out, and ways are counted.

    Args:
        nodes: Number of a node -> (operation, what it reads) for each edge into it; ascending, each
            after what it reads. What is read and is no node is an input.
        ends: The nodes that make the output, and inputs that do.
        operations: What sequences are of.
        skip: The name of the operation that does nothing.
        longest: Operations in a sequence at most; longer ones are not counted. Of three operations
            there are hundreds in the larger spaces, of which a cell has few.
    Returns:
        A count for each sequence of up to `longest` operations, the shortest first.
    Example:
        >>> routes({1: [("pool", 0), ("skip", 0)]}, [1], ["pool"], skip="skip", longest=1)
        [1.0, 1.0]
    """
    known = set(operations)
    led: dict[int, Counter[_Sequence]] = {}

    def to(state: int) -> Counter[_Sequence]:
        return led.get(state, Counter({(): 1}))

    for node, edges in nodes.items():
        led[node] = Counter()
        for operation, state in edges:
            added = () if operation == skip else (operation,)
            if operation != skip and operation not in known:
                continue
            for sequence, count in to(state).items():
                if len(sequence) + len(added) <= longest:
                    led[node][sequence + added] += count
    total: Counter[_Sequence] = Counter()
    for end in ends:
        total.update(to(end))
    lengths = range(longest + 1)
    sequences = (s for n in lengths for s in itertools.product(operations, repeat=n))
    return [float(total[sequence]) for sequence in sequences]
