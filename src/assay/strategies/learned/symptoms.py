"""Signs that a learning goes wrong, read from what was known on its way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from assay.architecture import Option
from assay.contracts import Learning
from assay.space.space import Space
from assay.space.structure import Choice

__all__ = ["Idle", "advised", "idle_options", "open_options", "preferring_idle", "symptoms"]

_SURE = 0.01  # of the entropy: nothing more will be tried
_EARLY = 0.5  # of all steps
_NEARLY_ALL = 0.9  # of the choices
_FEWEST = 2  # choices that idle options can be said to have taken over: one may well be right
_CLEARLY = 1.5  # times as likely
_WINDOW = 8  # records
_GROWN = 0.01  # of the target
_COARSE = 0.1  # of the quantity, to which a latency table is held, too


class Idle(NamedTuple):
    """Of the options of a choice that may be proposed the positions.

    Attributes:
        idle: Of those without parameters, at least one.
        others: Of those with parameters, at least one.
    """

    idle: tuple[int, ...]
    others: tuple[int, ...]


def symptoms(
    trace: Sequence[Learning],
    *,
    total: int,
    idle: Mapping[str, Idle],
    choices: Mapping[str, Choice],
    exclude: Collection[Option] = (),
) -> dict[str, str]:
    """Return what went wrong: symptom -> what was seen when it first showed, in words.

    - "stopped": the strategy itself stopped learning.
    - "collapsed": almost no entropy was left before half of the steps were done.
    - "idle": in nearly all choices on the way to the likeliest architecture an option without
      parameters was clearly the likeliest, in the second half of the steps, when options with
      parameters have had their training.
    - "drifting": what is expected of the quantity in the loop was over its target and grew.
    - "approximate": what is expected of it is off by more than a tenth.

    Args:
        trace: What was known, by ascending step.
        total: Steps in all.
        idle: As of `idle_options`.
        choices: Of the space.
        exclude: Options that are not proposed.
    """
    found: dict[str, str] = {}
    for n, now in enumerate(trace, start=1):
        signs = {
            "stopped": now.stopped,
            "collapsed": _collapsed(now) if now.step < _EARLY * total else "",
            "drifting": _drifting(trace[max(0, n - _WINDOW) : n]),
            "approximate": _approximate(now),
        }
        if now.step >= _EARLY * total:
            signs["idle"] = _idle(now, idle, _reached(now.probabilities, choices, exclude))
        found = {**{sign: seen for sign, seen in signs.items() if seen}, **found}
    return found


def advised(strategy: Any, sign: str, seen: str, *, otherwise: str = "") -> str:
    """Return what was seen, and what the strategy says to change.

    Args:
        strategy: May have `advice`.
        sign: The symptom.
        seen: In words.
        otherwise: What to change where the strategy says nothing.
    """
    advice = getattr(strategy, "advice", {}).get(sign, otherwise)
    return f"{seen}; {advice}" if advice else seen


def _collapsed(now: Learning) -> str:
    if now.entropy >= _SURE:
        return ""
    return (
        f"at step {now.step:,} the entropy was down to {100 * now.entropy:.2g} %: what is learned "
        "is as good as settled"
    )


def _idle(now: Learning, idle: Mapping[str, Idle], reached: Collection[str]) -> str:
    known = {label: sides for label, sides in idle.items() if label in reached}
    taken = len(preferring_idle(now.probabilities, known))
    if len(known) < _FEWEST or taken < _NEARLY_ALL * len(known):
        return ""
    return (
        f"at step {now.step:,}, {taken} of {len(known)} choices prefer an option without "
        "parameters, which needs no training to look good"
    )


def _reached(
    probabilities: Mapping[str, Sequence[float]],
    choices: Mapping[str, Choice],
    exclude: Collection[Option],
) -> Collection[str]:
    """Return the labels of the likeliest architecture that may be proposed."""
    taken: dict[str, Option] = {}
    for label, choice in choices.items():
        if label in probabilities and choice.active(taken):
            p = probabilities[label]
            taken[label] = choice.options[max(open_options(choice, exclude), key=p.__getitem__)]
    return taken


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


def _approximate(now: Learning) -> str:
    if now.error is None or now.error <= _COARSE:
        return ""
    return (
        f"the expected {now.quantity} is a sum over choices, off by {100 * now.error:.2g} % (root "
        "mean square) on networks that it was not fitted to"
    )


def preferring_idle(
    probabilities: Mapping[str, Sequence[float]], idle: Mapping[str, Idle]
) -> list[str]:
    """Return the labels of choices in which an option without parameters is clearly the likeliest.

    That is 1.5 times as likely as each with parameters; what may not be proposed does not count.

    Args:
        probabilities: Of each option by label, or its weight where these are independent.
        idle: As of `idle_options`.
    """
    return [
        label
        for label, (without, others) in idle.items()
        if max(probabilities[label][i] for i in without)
        > _CLEARLY * max(probabilities[label][i] for i in others)
    ]


def open_options(choice: Choice, exclude: Collection[Option] = ()) -> list[int]:
    """Return the positions of the options that may be proposed; all, where none would be.

    Args:
        choice: A decision.
        exclude: Options that are not proposed.
    """
    found = [i for i, option in enumerate(choice.options) if option not in exclude]
    return found or list(range(len(choice.options)))


def idle_options(space: Space, exclude: Collection[Option] = ()) -> dict[str, Idle]:
    """Return what has parameters and what has none, by label.

    Choices of operations are meant that may propose options of both sorts, and depths that may be
    0. One that says what its options read chooses connections: to have none of them is no sign
    that an operation won.

    Args:
        space: Whose choices.
        exclude: Options that are not proposed.
    """
    found = {}
    for label, choice in space.choices.items():
        if choice.kind not in ("OneOf", "Depth") or _connects(space, label):
            continue
        places = open_options(choice, exclude)
        trained = {i for i in places if _has_parameters(space, label, choice.options[i])}
        if 0 < len(trained) < len(places):
            idle = tuple(i for i in places if i not in trained)
            found[label] = Idle(idle, tuple(sorted(trained)))
    return found


def _connects(space: Space, label: str) -> bool:
    return any(site.reads is not None for site in space.structure.modules[label])


def _has_parameters(space: Space, label: str, option: Option) -> bool:
    sites = space.structure.modules[label]
    if space.choices[label].kind == "Depth":
        return option != 0 and any(True for site in sites for _ in site.parameters())
    return any(True for site in sites for _ in site.get_submodule(str(option)).parameters())
