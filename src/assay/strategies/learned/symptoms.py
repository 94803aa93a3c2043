"""Signs that a learning goes wrong, read from what was known on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.contracts import Learning
from assay.space.space import Space

__all__ = ["idle_options", "symptoms"]

_SURE = 0.01  # of the entropy: nothing more will be tried
_EARLY = 0.5  # of all steps
_NEARLY_ALL = 0.9  # of the choices
_FEWEST = 3  # choices that idle options can be said to have taken over
_CLEARLY = 1.5  # times as likely
_WINDOW = 8  # records
_GROWN = 0.01  # of the target


def symptoms(
    trace: Sequence[Learning], *, total: int, idle: Mapping[str, frozenset[int]]
) -> dict[str, str]:
    """Return what went wrong: symptom -> what was seen when it first showed, in words.

    - "stopped": the strategy itself stopped learning.
    - "collapsed": almost no entropy was left before half of the steps were done.
    - "idle": in nearly all choices an option without parameters was clearly the likeliest, in the
      second half of the steps, when options with parameters have had their training.
    - "drifting": what is expected of the quantity in the loop was over its target and grew.

    Args:
        trace: What was known, by ascending step.
        total: Steps in all.
        idle: As of `idle_options`.
    """
    found: dict[str, str] = {}
    for n, now in enumerate(trace, start=1):
        signs = {
            "stopped": now.stopped,
            "collapsed": _collapsed(now) if now.step < _EARLY * total else "",
            "idle": _idle(now, idle) if now.step >= _EARLY * total else "",
            "drifting": _drifting(trace[max(0, n - _WINDOW) : n]),
        }
        found = {**{sign: seen for sign, seen in signs.items() if seen}, **found}
    return found


def _collapsed(now: Learning) -> str:
    if now.entropy >= _SURE:
        return ""
    return (
        f"at step {now.step:,} the entropy was down to {100 * now.entropy:.2g} % of the largest "
        "possible: hardly anything else will be tried"
    )


def _idle(now: Learning, idle: Mapping[str, frozenset[int]]) -> str:
    known = [label for label in idle if label in now.probabilities]
    taken = sum(_prefers(now.probabilities[label], idle[label]) for label in known)
    if len(known) < _FEWEST or taken < _NEARLY_ALL * len(known):
        return ""
    return (
        f"at step {now.step:,}, {taken} of {len(known)} choices prefer an option without "
        "parameters, which needs no training to look good"
    )


def _prefers(probabilities: Sequence[float], options: frozenset[int]) -> bool:
    """Whether one of some options is clearly likelier than all others."""
    others = [p for i, p in enumerate(probabilities) if i not in options]
    return max(probabilities[i] for i in options) > _CLEARLY * max(others)


def _drifting(window: Sequence[Learning]) -> str:
    first, last = window[0], window[-1]
    expected = [k.expected for k in window if k.expected is not None]
    if last.target is None or len(expected) < _WINDOW or min(expected) <= last.target:
        return ""
    middle = len(expected) // 2
    before, after = (sum(part) / len(part) for part in (expected[:middle], expected[middle:]))
    if after - before <= _GROWN * last.target:
        return ""
    return (
        f"from step {first.step:,} to {last.step:,} the expected {last.quantity} grew from "
        f"{expected[0]:.4g} to {expected[-1]:.4g}, and its target is {last.target:.4g}"
    )


def idle_options(space: Space) -> dict[str, frozenset[int]]:
    """Return the positions of options without parameters, by label.

    Choices of operations that have both such options and others are meant.
    """
    found = {}
    for label, choice in space.choices.items():
        if choice.kind != "OneOf":
            continue
        positions = frozenset(
            i
            for i, option in enumerate(choice.options)
            if not any(
                True
                for site in space.structure.modules[label]
                for _ in site.get_submodule(str(option)).parameters()
            )
        )
        if 0 < len(positions) < len(choice.options):
            found[label] = positions
    return found
