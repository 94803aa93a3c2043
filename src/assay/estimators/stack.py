"""Weights of several opinions on one score, learned from few examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import kendalltau
from sklearn.model_selection import KFold

from assay.cost import derive
from assay.estimators.surrogate import Array

__all__ = ["Stack", "stacked"]

_FOLDS = 8
_PRIOR = 8.0
_DRAWS = 400
_SURE = 0.99


@dataclass(frozen=True)
class Stack:
    """How opinions are weighed.

    Attributes:
        weights: Opinion -> weight, 0 or more, of opinions as deviations from their mean.
        centre: Their means over the examples.
        tau: Kendall tau of the weighing with the examples, each held out in turn by folds.
        single: The opinion that is best alone.
        single_tau: Tau of choosing the best single opinion, by the same folds.
        error: Root mean square of the held-out residuals, in deviations of the score.
    """

    weights: Mapping[str, float]
    centre: Array
    tau: float
    single: str
    single_tau: float
    error: float

    def __call__(self, opinions: Array) -> Array:
        """Return the weighed opinion `[n]` of opinions `[n, number of weights]`.

        As a deviation from the mean of the scores that it was learned from.
        """
        told: Array = (opinions - self.centre) @ np.array(list(self.weights.values()))
        return told


def stacked(
    names: Sequence[str],
    opinions: Array,
    scores: Array,
    prior: Mapping[str, float],
    seed: int,
    *,
    truths: bool = True,
) -> Stack:
    """Return the weighing of opinions that fits the scores, drawn towards a prior one.

    Minimises |s - Z w|^2 + p |w - w0|^2 over w >= 0, s and Z as deviations from their means: the
    prior counts as much as p = 8 examples.
    Opinions that the prior does not name are not weighed, since a few examples cannot tell many
    weights. But where choosing the best single one of all surely does better on held-out examples
    than weighing does, that one alone is taken: of some signals one is always the best on a few
    examples, so it must have the higher tau in 99 % of the samples drawn anew from them.

    Scores that are no truths but estimates of them have a fault of their own, and an opinion may do
    well by sharing it. Then p is twice the number of examples.

    Source: van der Laan et al. 2007, "Super Learner"; Breiman 1996, "Stacked Regressions", for
    weights of 0 or more; differs: the prior, and the fall back to one opinion.

    Args:
        names: Of the opinions.
        opinions: Z, `[n, k]`; those that were learned from the scores must be held-out ones.
        scores: s, `[n]`.
        prior: w0, of the opinions that are weighed.
        seed: Of the folds.
        truths: Whether the scores are truths.
    """
    centre = opinions.mean(0)
    opinions, scores = opinions - centre, scores - scores.mean()
    named = [i for i, name in enumerate(names) if name in prior]
    expected = np.array([prior[names[i]] for i in named])
    weighed, chosen = np.zeros(len(scores)), np.zeros(len(scores))
    folds = KFold(min(_FOLDS, len(scores)), shuffle=True, random_state=seed)
    for kept, out in folds.split(opinions):
        learned = _weights(opinions[np.ix_(kept, named)], scores[kept], expected, truths=truths)
        weighed[out] = opinions[np.ix_(out, named)] @ learned
        chosen[out] = opinions[out, _best(opinions[kept], scores[kept])]
    best = _best(opinions, scores)
    tau, single_tau = _tau(weighed, scores), _tau(chosen, scores)
    weights, told = np.zeros(len(names)), weighed
    if _surely_better(chosen, weighed, scores, seed):
        weights[best], told = 1.0, chosen
    else:
        weights[named] = _weights(opinions[:, named], scores, expected, truths=truths)
    error = float(np.sqrt(np.mean(np.square(scores - told))))
    by_name = {name: float(w) for name, w in zip(names, weights)}
    return Stack(by_name, centre, tau, names[best], single_tau, error)


def _weights(opinions: Array, scores: Array, expected: Array, *, truths: bool) -> Array:
    root = np.sqrt(_PRIOR if truths else max(_PRIOR, 2.0 * len(scores)))
    matrix = np.vstack([opinions, root * np.eye(len(expected))])
    weights: Array = nnls(matrix, np.concatenate([scores, root * expected]))[0]
    return weights


def _surely_better(one: Array, other: Array, scores: Array, seed: int) -> bool:
    """Whether one has the higher tau in nearly all samples drawn anew from the examples."""
    rng, wins = derive(seed, "stack"), 0
    for _ in range(_DRAWS):
        drawn = rng.integers(len(scores), size=len(scores))
        wins += _tau(one[drawn], scores[drawn]) > _tau(other[drawn], scores[drawn])
    return wins >= _SURE * _DRAWS


def _best(opinions: Array, scores: Array) -> int:
    return int(np.argmax([_tau(column, scores) for column in opinions.T]))


def _tau(one: Array, two: Array) -> float:
    """Return Kendall tau-b, 0 where all values of one are equal: that tells nothing."""
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(kendalltau(one, two).statistic)
