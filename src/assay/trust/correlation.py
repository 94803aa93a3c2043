"""How well scores rank what truth ranks: statistics of a sample of weighted architectures.

A weight says how often an architecture is in the sample: 1 for the sample itself, 0, 1, 2, ... for
a bootstrap resample, 0 for one left out. Copies of an architecture are one architecture that counts
more, not several that tie: no pair is made of two copies, and nobody picks the same one twice.

Each statistic takes a `Pair` and weights `[B, N]` and returns `[B]`, NaN where it is undefined;
`point` is the way in for a single sample, and says None with the reason instead. Memory grows with
N squared: this is for samples of hundreds or a few thousand, not for a whole benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.errors import NotFinite
from assay.trust.interval import Interval

__all__ = [
    "STATISTICS",
    "Order",
    "Pair",
    "Vector",
    "kendall",
    "point",
    "precision",
    "regret",
    "spearman",
    "top_half",
    "why_undefined",
]

Vector: TypeAlias = NDArray[np.float64]
"""Numbers in float64, of the shape that is told beside it."""


@dataclass(frozen=True)
class Order:
    """Values from the best to the worst, equal ones in one group.

    Attributes:
        group: `[N]`: the group of each value, 0 the best.
        order: `[N]`: indices, best first.
        starts: `[G]`: where in `order` each group begins.
    """

    group: NDArray[np.intp]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, values: Sequence[float] | Vector) -> Order:
        """Order values, higher being better; -inf stands for none and ties with its like."""
        _, group = np.unique(-np.asarray(values, np.float64), return_inverse=True)
        order = np.argsort(group, kind="stable")
        return cls(group, order, np.flatnonzero(np.diff(group[order], prepend=-1)))

    def mass(self, weights: Vector) -> Vector:
        """Return `[B, G]`: the weight of each group, for weights `[B, N]`."""
        mass: Vector = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        return mass

    def above(self, weights: Vector) -> Vector:
        """Return `[B, G]`: the weight of what is better than each group, for weights `[B, N]`."""
        mass = self.mass(weights)
        return np.cumsum(mass, axis=1) - mass

    def signs(self) -> Vector:
        """Return `[N, N]`: 1 where value i is better than value j, -1 where worse, 0 in a tie."""
        signs: Vector = np.sign(self.group[None, :] - self.group[:, None]).astype(np.float64)
        return signs


@dataclass(frozen=True)
class Pair:
    """What an estimator says of architectures beside what they are worth.

    Attributes:
        truth: `[N]`: what each is worth, in the task's own units.
        truths: Their order.
        scores: The order of their scores.
        agreement: `[N, N]`: 1 where both put the two in one order, -1 where in opposite ones.
    """

    truth: Vector
    truths: Order
    scores: Order
    agreement: Vector

    @classmethod
    def of(cls, truth: Sequence[float] | Vector, scores: Sequence[float] | Vector) -> Pair:
        """Pair truths with scores `[N]`; a score of -inf is a failure, which ranks last.

        Raises:
            NotFinite: a truth that is not finite, or a score that is NaN or infinity.
        """
        _refuse_unranked(truth, scores)
        truths, said = Order.of(truth), Order.of(scores)
        return cls(np.asarray(truth, np.float64), truths, said, truths.signs() * said.signs())


def _refuse_unranked(truth: Sequence[float] | Vector, scores: Sequence[float] | Vector) -> None:
    if not np.isfinite(truth).all():
        raise NotFinite(f"truths must be finite numbers, not {list(truth)}; leave the others out")
    if not (np.asarray(scores, np.float64) < np.inf).all():
        raise NotFinite(
            f"scores must be numbers, or -inf for a failure, not {list(scores)}; put -inf where "
            "there is none"
        )


def kendall(pair: Pair, weights: Vector) -> Vector:
    """Return Kendall's tau-b `[B]`: of untied pairs, those in order less those out of order.

    Source: Kendall 1945, "The Treatment of Ties in Ranking Problems", Biometrika 33(3); differs:
    pairs weigh the product of their two weights, and no pair is made of copies of one architecture.

    Args:
        pair: Truths and scores.
        weights: `[B, N]`.
    """
    agreeing = np.einsum("bn,bn->b", weights @ pair.agreement, weights)
    return _ratio(agreeing, np.sqrt(_untied(pair.truths, weights) * _untied(pair.scores, weights)))


def top_half(pair: Pair, weights: Vector) -> Vector:
    """Return tau-b `[B]` within the better half by truth; ties with its last one belong to it.

    Args:
        pair: Truths and scores.
        weights: `[B, N]`.
    """
    half = weights.sum(1, keepdims=True) / 2
    within = pair.truths.above(weights)[:, pair.truths.group] < half
    return kendall(pair, weights * within)


def spearman(pair: Pair, weights: Vector) -> Vector:
    """Return Spearman's rho `[B]`: the correlation of mid-ranks.

    Args:
        pair: Truths and scores.
        weights: `[B, N]`.
    """
    truths, scores = _ranks(pair.truths, weights), _ranks(pair.scores, weights)
    spread = (weights * truths**2).sum(1) * (weights * scores**2).sum(1)
    return _ratio((weights * truths * scores).sum(1), np.sqrt(spread))


def precision(pair: Pair, weights: Vector) -> Vector:
    """Return the share `[B]` of the best tenth by score that is of the best tenth by truth.

    A tenth is rounded up. Ties at its border are broken at random, in truth and in scores by
    themselves; the value is the expectation, exact where no architecture at a tied border has
    several copies. Where one stands at the border alone, the same copies are taken on both sides.

    Args:
        pair: Truths and scores.
        weights: `[B, N]`.
    """
    tenth = np.ceil(weights.sum(1, keepdims=True) / 10)
    (true, sole), (said, alone) = (_taken(o, weights, tenth) for o in (pair.truths, pair.scores))
    both = np.where(sole & alone, np.minimum(true, said), true * said)
    shared: Vector = (weights * both).sum(1) / tenth[:, 0]
    return np.where(_untied(pair.truths, weights) > 0, shared, np.nan)


def regret(pair: Pair, weights: Vector, *, picks: int) -> Vector:
    """Return what is lost `[B]` by choosing the truly best among the estimator's top picks.

    The best truth of all less the best truth among the picks, in units of the truth. Architectures
    count once, whatever their weight: nobody trains the same one five times. Ties at the border of
    the picks are broken at random; the value is the exact expectation, summed over the steps of
    truth: each is lost if all picks lie below it.

    Args:
        pair: Truths and scores.
        weights: `[B, N]`.
        picks: How many of the highest scores are looked at.
    """
    there = (weights > 0).astype(np.float64)
    above = pair.scores.above(there)[:, pair.scores.group]
    tied = pair.scores.mass(there)[:, pair.scores.group]
    best_first = pair.truths.order
    sure = there * (above + tied <= picks)
    border = there * ((above < picks) & (above + tied > picks))
    members, places = border.sum(1, keepdims=True), picks - sure.sum(1, keepdims=True)
    passed = border[:, best_first].cumsum(1)
    missed = (sure[:, best_first].cumsum(1) == 0).astype(np.float64)
    for place in range(picks):  # probability that none of those passed takes a place at the border
        free = np.maximum(members - passed - place, 0) / np.maximum(members - place, 1)
        missed *= np.where((place < places) & (members > 0), free, 1.0)
    steps = -np.diff(pair.truth[best_first])
    begun = there[:, best_first].cumsum(1) > 0
    lost: Vector = (missed * begun)[:, :-1] @ steps
    return np.where(_untied(pair.truths, weights) > 0, lost, np.nan)


STATISTICS: Mapping[str, Callable[[Pair, Vector], Vector]] = {
    "tau": kendall,
    "rho": spearman,
    "tau_top": top_half,
    "precision_10": precision,
    "regret_1": partial(regret, picks=1),
    "regret_5": partial(regret, picks=5),
}
"""Name in a row of the table -> statistic."""


def point(name: str, truth: Sequence[float] | Vector, scores: Sequence[float] | Vector) -> Interval:
    """Return a statistic of one sample; where it is undefined, None with the reason.

    Args:
        name: One of `STATISTICS`.
        truth: `[N]`, finite.
        scores: `[N]`, higher is better; -inf for a failure.
    Returns:
        The value; the interval's ends are for `assay.trust.bootstrap` to tell.
    Example:
        >>> point("tau", [1, 2, 3], [10, 30, 20]).value
        0.3333333333333333
        >>> print(point("tau", [1, 2, 3], [5, 5, 5]))
        undefined: all scores are equal
    """
    reason = why_undefined(name, truth, scores)
    if reason:
        return Interval(reason=reason)
    value = STATISTICS[name](Pair.of(truth, scores), np.ones((1, len(truth))))
    return Interval(float(value[0]), reason="one sample without its resamples")


def why_undefined(
    name: str, truth: Sequence[float] | Vector, scores: Sequence[float] | Vector
) -> str:
    """Say why a statistic of a sample is undefined; "" where it is defined.

    Args:
        name: One of `STATISTICS`.
        truth: `[N]`.
        scores: `[N]`; -inf for a failure.
    """
    if len(truth) < 2:
        return f"{len(truth)} truths cannot be ranked; it takes 2"
    true, said = np.asarray(truth, np.float64), np.asarray(scores, np.float64)
    if np.all(true == true[0]):
        return "all truths are equal"
    if np.all(np.isneginf(said)):
        return "it scored no architecture"
    if name not in {"tau", "rho", "tau_top"}:
        return ""  # what picks at random find is defined
    if np.all(said == said[0]):
        return "all scores are equal"
    if name == "tau_top":
        best = true >= np.sort(true)[len(true) // 2]
        for what, values in (("truths", true[best]), ("scores", said[best])):
            if np.all(values == values[0]):
                return f"all {what} in the top half are equal"
    return ""


def _untied(order: Order, weights: Vector) -> Vector:
    """Return `[B]`: the weight of all ordered pairs that are not tied."""
    untied: Vector = weights.sum(1) ** 2 - (order.mass(weights) ** 2).sum(1)
    return untied


def _ranks(order: Order, weights: Vector) -> Vector:
    """Return `[B, N]`: twice the mid-ranks, with mean 0."""
    mass, above = order.mass(weights), order.above(weights)
    ranks: Vector = (weights.sum(1, keepdims=True) - 2 * above - mass)[:, order.group]
    return ranks


def _taken(order: Order, weights: Vector, num: Vector) -> tuple[Vector, NDArray[np.bool_]]:
    """Return `[B, N]` twice: the share of each within the first `num`, and who ties with no other.

    Args:
        order: Best first.
        weights: `[B, N]`.
        num: `[B, 1]`: how much weight is taken.
    """
    mass = order.mass(weights)
    left = num - order.above(weights)
    share = np.clip(np.divide(left, mass, out=np.zeros_like(mass), where=mass > 0), 0, 1)
    alone = order.mass((weights > 0).astype(np.float64)) == 1
    return share[:, order.group], alone[:, order.group]


def _ratio(over: Vector, under: Vector) -> Vector:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
