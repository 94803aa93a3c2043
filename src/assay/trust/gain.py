"""What a search gains by an estimator, against the same time spent on training at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

from assay.cost import derive
from assay.trust.compare import holm
from assay.trust.correlation import Vector
from assay.trust.interval import Interval
from assay.trust.table import Price

__all__ = ["TRAININGS", "Gain", "expected_worth", "gains"]

TRAININGS = (2, 4, 8, 16)
"""Times that a search may take, in trainings."""

_ALPHA = 0.05
_GROUPS = 100  # of a jackknife, at most
_NEVER = -40.0  # log of a chance that vanishes beside 1
_FORGIVEN = 0.05  # of a training: counting MACs takes milliseconds, and costs no training


@dataclass(frozen=True)
class Gain:
    """What one way of spending a time is expected to hand back.

    Attributes:
        estimator: By which architectures are chosen; "" for training at random.
        trainings: The time, in trainings of one architecture.
        time_s: The same in seconds.
        scored: Architectures that are drawn at random and scored; at random all of them train.
        trained: Of these the best by score, which are trained once each.
        gain: Expected worth of the one that its training says is best, less that of a random
            architecture, in units of the truth.
        more: The same less what training at random gains in this time; undefined for that itself.
        p_holm: How often so large a difference comes by chance, corrected for all estimators that
            have this time; None where untold.
        real: Whether the difference holds after the correction.
    """

    estimator: str
    trainings: int
    time_s: float
    scored: int
    trained: int
    gain: Interval
    more: Interval
    p_holm: float | None = None
    real: bool = False


@dataclass(frozen=True)
class _Spent:
    """How a time is spent, and the architectures from the best score to the worst: `[N]`."""

    estimator: str
    scored: int
    trained: int
    order: NDArray[np.intp]


def gains(
    truths: Mapping[str, Sequence[float]],
    scores: Mapping[str, Mapping[str, float | None]],
    costs: Mapping[str, Price],
    *,
    seconds: Mapping[str, float] | None,
    seed: int = 0,
    trainings: Sequence[int] = TRAININGS,
) -> tuple[Gain, ...]:
    """Say what a search by each estimator hands back, and what training at random does.

    The time of m trainings either trains m random architectures and keeps the best, or prepares the
    estimator, scores random architectures for half of the time at most, and trains the best of
    them with what is left, which pays for fewer where those of a high score take longer than a
    random one. Expectations are exact over all draws from the sample, and no model says
    what lies beyond it: so no more are scored than a quarter of the sample, and what scoring a
    thousand would add, or spoil, is not seen. One training of each chooses, and the mean of its
    others judges what was chosen, in turn: so no luck of a training is taken for worth. What suits
    the samples that all of them are scored on is.

    Intervals answer for the choice of architectures: a t-test on the jackknife's standard error,
    which errs on the wide side. A bootstrap would err on the other: of a resample's copies the
    best of many is less good. Of normal worths an interval held the gain in 89 to 96 of 100 samples
    of 40, since the best few of a sample say most.

    Source: Efron, Stein 1981, "The Jackknife Estimate of Variance", Annals of Statistics 9(3),
    section 3 (why it errs on that side).

    Args:
        truths: Architecture -> one value a training, higher is better, equally many of each.
        scores: Estimator -> architecture -> score, higher is better; None where it failed, which
            ranks last. Equal ones are in a random order.
        costs: Estimator -> what it cost.
        seconds: Architecture -> seconds of training it once; None if none was trained.
        seed: Of the order of what is equal.
        trainings: Times to spend. Those of more trainings than a tenth of the architectures are
            left out, since they would train nearly all that is scored; so is an estimator whose
            preparation takes more than half.
    Returns:
        For each time training at random, then the estimators by falling gain. None where `seconds`
        is None, or some architectures have one training or other numbers of them.
    """
    values, num = list(truths.values()), len(truths)
    if seconds is None or num < 2 or {len(v) for v in values} != {len(values[0])}:
        return ()
    table = np.array(values, np.float64)
    if table.shape[1] < 2:
        return ()
    rng = derive(seed, "trust", "ties")
    orders = {name: _best_first(truths, given, rng) for name, given in scores.items()}
    chance = np.arange(num)  # any order: all that is drawn is trained
    worth, takes_s = table.mean(1), np.array([seconds[key] for key in truths], np.float64)
    train_s = float(takes_s.mean())
    means = np.array([worth.mean(), *(worth[kept].mean() for kept in _without(num))])
    found: list[Gain] = []
    for m in (m for m in trainings if 10 * m <= num):
        spent = [_Spent("", m, m, chance)]
        for name, order in orders.items():
            if pays := _pays(costs[name], m * train_s, takes_s[order]):
                spent.append(_Spent(name, *pays, order))
        worths = [_worths(table, one, rng=derive(seed, "trust", "equal")) for one in spent]
        found += _judged(m, m * train_s, spent, worths, means)
    return tuple(found)


def _pays(price: Price, time_s: float, takes_s: Vector) -> tuple[int, int] | None:
    """Return how many are scored and how many of them trained in a time; None if none is.

    Args:
        price: Of the scores.
        time_s: For all.
        takes_s: `[N]`: seconds of training each, best score first.
    """
    left_s = time_s / 2 - price.prepare_s
    if left_s < price.each_s:
        return None
    most = len(takes_s) // 4
    scored = most if price.each_s * most <= left_s else int(left_s / price.each_s)
    left_s = time_s - price.prepare_s - scored * price.each_s + _FORGIVEN * takes_s.mean()
    trained = int((np.cumsum(_expected_by_place(takes_s, scored)) <= left_s).sum())
    return scored, max(1, trained)


def _expected_by_place(values: Vector, drawn: int) -> Vector:
    """Return `[drawn]`: what the first, second, ... of a draw are expected to have.

    Args:
        values: `[N]`: of each, in the order in which they are placed.
        drawn: How many of N, all draws being equally likely.
    """
    num = len(values)
    at, place = np.arange(num), np.arange(drawn)[:, None]
    chance = np.exp(
        _log_choose(at, place) + _log_choose(num - 1 - at, drawn - 1 - place)
        - _log_choose(num, drawn)
    )  # fmt: skip
    expected: Vector = chance @ values
    return expected


def _best_first(
    truths: Mapping[str, object], given: Mapping[str, float | None], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the indices of architectures by falling score, those without one last."""
    said = [given.get(key) for key in truths]
    falling = np.array([math.inf if score is None else -score for score in said])
    return np.lexsort((rng.permutation(len(said)), falling))


def _worths(table: Vector, spent: _Spent, *, rng: np.random.Generator) -> Vector:
    """Return `[1 + G]`: the worth of what is handed back, of all and without each group.

    Each training chooses in turn, and the mean of the others of the same architecture judges.
    """
    num, seeds = table.shape
    samples = [spent.order, *(spent.order[kept[spent.order]] for kept in _without(num))]
    worths = np.zeros(len(samples))
    for chooses in range(seeds):
        by = table[:, chooses]
        places = np.empty(num, np.intp)
        places[np.lexsort((rng.permutation(num), by))] = np.arange(num)
        judged = (table.sum(1) - by) / (seeds - 1)
        worths += [
            expected_worth(places[of], judged[of], scored=spent.scored, trained=spent.trained)
            for of in samples
        ]
    mean: Vector = worths / seeds
    return mean


def _without(num: int) -> list[NDArray[np.bool_]]:
    """Return who is left when each group of the jackknife is left out: one each, if not many."""
    group = np.arange(num) % _GROUPS
    return [group != left for left in range(min(num, _GROUPS))]


def expected_worth(places: NDArray[np.intp], worth: Vector, *, scored: int, trained: int) -> float:
    """Return the expected worth of the best by training of the best by score of a random draw.

    A draw has `scored` of N, all draws being equally likely; its first `trained` are trained, and
    the one of the highest place is handed back. Exact: let j be the last of those trained, so that
    the other k - 1 lie before it, the rest of the draw behind it, and l be the number of those
    before j that have a lower place than i. Of the N choose n draws, n = `scored` and k =
    `trained`, those that hand i back are

        C(l, k - 1) C(N - i, n - k)  for j = i,  C(l, k - 2) C(N - j, n - k)  for lower j > i.

    Args:
        places: `[N]`: place by training, all different, higher is better, in the order of the
            scores, best first.
        worth: `[N]`: what each is worth, in the same order.
        scored: From `trained` to N.
        trained: 1 or more.
    """
    num = len(places)
    at = np.arange(num)
    if trained == scored:  # whatever the scores are
        rising = np.argsort(places)
        chance = np.exp(_log_choose(at, scored - 1) - _log_choose(num, scored))
        return float(chance @ worth[rising])
    behind = _log_choose(num - 1 - at, scored - trained) - _log_choose(num, scored)
    at = at[: np.flatnonzero(_log_choose(at, trained - 1) + behind > _NEVER)[-1] + 1]
    before_them = np.where(at[:, None] <= at, at[:, None], -1)
    one, others = (np.exp(_log_choose(before_them, trained - less) + behind[at]) for less in (1, 2))
    lower = places[at] < places[at, None]
    below: NDArray[np.intp] = np.cumsum(lower, axis=1) - lower
    later = np.triu(lower, 1)
    chance = one[below[at, at], at] + np.where(later, others[below, at], 0.0).sum(1)
    return float(chance @ worth[at])


def _log_choose(n: NDArray[np.intp] | int, k: NDArray[np.intp] | int) -> Vector:
    """Return log C(n, k), -inf where there is no such choice."""
    n, k = np.broadcast_arrays(n, k)
    told = (n >= k) & (k >= 0)
    least = np.maximum(k, 0)
    safe = np.where(told, n, least)
    logs = gammaln(safe + 1) - gammaln(least + 1) - gammaln(safe - least + 1)
    return np.where(told, logs, -np.inf)


def _judged(
    trainings: int,
    time_s: float,
    spent: Sequence[_Spent],
    worths: Sequence[Vector],
    means: Vector,
) -> list[Gain]:
    """Set the gains of one time, and hold each estimator's against training at random."""
    rows = []
    for one, worth in zip(spent, worths):
        rows.append((one, _told(worth - means)[0], *_told(worth - worths[0])))
    corrected = iter(holm([p for one, _, _, p in rows if one.estimator and p is not None]))
    found = []
    for one, gain, more, p in rows:
        if not one.estimator:
            more = Interval(reason="it is what the others are held against")
        p_holm = None if p is None or not one.estimator else next(corrected)
        real = p_holm is not None and p_holm < _ALPHA
        found.append(
            Gain(
                one.estimator, trainings, time_s, one.scored, one.trained, gain, more, p_holm, real
            )
        )  # fmt: skip
    return found[:1] + sorted(found[1:], key=lambda row: -(row.gain.value or 0.0))


def _told(values: Vector) -> tuple[Interval, float | None]:
    """Return a figure with its 95 % interval, and p, of all and without each group `[1 + G]`."""
    value, without = float(values[0]), values[1:]
    num = len(without)
    error = math.sqrt((num - 1) / num * float(((without - without.mean()) ** 2).sum()))
    if error < 1e-12:
        reason = "no architecture makes a difference to it"
        return Interval(round(value, 12) + 0.0, reason=reason), None
    reach = float(stats.t.ppf(1 - _ALPHA / 2, num - 1)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, num - 1))
    return Interval(value, value - reach, value + reach), p
