"""Estimates as they come: one by one from whoever trains each, so that none waits for the others.

What one architecture raises takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import Any, TypeVar

from assay.contracts import Context, Estimate, Estimator, Proposal
from assay.cost import Cost
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.training import Trained, Training, run_each

__all__ = ["Diverged", "Told", "all_of", "each", "refuse_alien", "trained_each"]

S = TypeVar("S")


class Diverged(NotFinite):
    """Why an architecture has no finite score, and what finding that out took.

    Args:
        why: As the training or the estimate says it.
        cost: What was spent on it.
    """

    def __init__(self, why: str, cost: Cost) -> None:
        super().__init__(why)
        self.cost = cost


Told = Estimate | Exception
"""What is said of an architecture: an estimate, or why there is none."""


def refuse_alien(option: str, thing: Any) -> None:
    """Refuse what is no estimator where one is an option of another.

    Args:
        option: Its name.
        thing: What was given.
    Raises:
        InvalidSetting: it is none, such as a name.
    """
    if not hasattr(thing, "estimate"):
        raise InvalidSetting(
            f"estimator.{option}={thing!r} is no estimator; give an object, such as OneShot()"
        )


def each(
    estimator: Estimator, ctx: Context, proposals: Sequence[Proposal]
) -> Generator[Mapping[int, Told], None, None]:
    """Yield what an estimator says of architectures, as it says it: index -> estimate or error.

    One that has `estimate_each` says it one by one. Of another all comes at once; where it raises
    for a batch it is asked again for halves of it, and what it had spent on them it does not tell.

    Args:
        estimator: Prepared.
        ctx: What it may use.
        proposals: Each gets one estimate or one error; of an estimate without a score, `Diverged`.
    """
    one_by_one = getattr(estimator, "estimate_each", None)
    if one_by_one is None:
        yield dict(enumerate(_together(estimator, ctx, proposals)))
        return
    left = dict.fromkeys(range(len(proposals)))
    try:
        told = one_by_one(ctx, proposals)
        with closing(told) if hasattr(told, "close") else nullcontext():
            for index, said in told:
                if index not in left:
                    raise InvalidSetting(
                        f"architecture {index} of {len(proposals)} was answered twice, or never "
                        "asked about; answer each once, by its index among the proposals"
                    )
                del left[index]
                yield {index: _checked(said)}
        if left:
            raise InvalidSetting(
                f"of {len(left)} of {len(proposals)} architectures nothing came back; return an "
                "estimate or an error for each"
            )
    except Exception as error:  # of all that are left, such as that nothing was prepared
        if not left:  # all is said; whoever raises while clearing up has a fault of its own
            raise
        yield dict.fromkeys(left, error)


def _together(estimator: Estimator, ctx: Context, proposals: Sequence[Proposal]) -> list[Told]:
    try:
        told = list(estimator.estimate(ctx, proposals))
        if len(told) != len(proposals):
            raise InvalidSetting(
                f"{len(told)} estimates came back for {len(proposals)} architectures; return one "
                "for each"
            )
        return [_checked(said) for said in told]
    except Exception as error:
        if len(proposals) <= 1:
            return [error] * len(proposals)
    half = len(proposals) // 2
    parts = (proposals[:half], proposals[half:])
    return [said for part in parts for said in _together(estimator, ctx, part)]


def _checked(said: object) -> Told:
    if isinstance(said, Exception):
        return said
    if not isinstance(said, Estimate):
        return InvalidSetting(f"{said!r} came back, which is no Estimate; return one")
    try:
        failure = said.failure
    except TypeError:
        return InvalidSetting(f"the score {said.score!r} came back, which is no number; return one")
    return Diverged(failure, said.cost) if failure else said


def trained_each(
    ctx: Context,
    items: Sequence[S],
    make: Callable[[S], Training],
    tell: Callable[[S, Trained], Estimate],
) -> Iterator[tuple[int, Told]]:
    """Run a training for each item; yield (index, what it tells or what it raised) as they end.

    Args:
        ctx: Names the executor.
        items: What is trained.
        make: make(item) -> its training, called when its turn comes.
        tell: tell(item, what came of it) -> the estimate.
    """
    with closing(run_each(ctx, items, make)) as jobs:
        for index, job in jobs:
            said: Told
            try:
                said = tell(items[index], job.result())
            except Exception as error:
                said = error
            yield index, said


def all_of(told: Iterator[tuple[int, Told]]) -> list[Estimate]:
    """Return estimates that come one by one, in their order.

    Raises:
        Exception: the first error among them, once it is there.
    """
    estimates: dict[int, Estimate] = {}
    for index, said in told:
        if isinstance(said, Exception):
            raise said
        estimates[index] = said
    return [estimates[index] for index in sorted(estimates)]
