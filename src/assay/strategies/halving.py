"""Halving: train many briefly, the better part of them longer, and so on up to the whole training.

Three strategies in one file: they differ in which brackets of rungs they climb, and in whether they
wait for a rung to be complete. An estimator that trains must stand behind them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from assay.architecture import Architecture
from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting

__all__ = ["ASHA", "Halving", "Hyperband", "brackets"]

Rung = tuple[int, float]
"""How many architectures, and the share of the training that each gets."""

_IDLE = 200  # draws in a row that bring nothing new, after which a space is taken to have no more


def brackets(eta: int, depth: int) -> list[list[Rung]]:
    """Return Hyperband's brackets, the one that begins lowest first.

    With R = 1 and s_max = `depth`, bracket s begins with n = ceil((s_max + 1) eta^s / (s + 1))
    architectures at a share of eta^-s; rung i has floor(n eta^-i) of them at eta^(i - s).

    Source: Li et al. 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
    Optimization", arXiv:1603.06560, algorithm 1.

    Args:
        eta: Of a rung, one in so many goes on.
        depth: Rungs above the first in the deepest bracket.
    """
    made = []
    for s in range(depth, -1, -1):
        first = math.ceil((depth + 1) * eta**s / (s + 1))
        made.append([(first // eta**i, float(eta) ** (i - s)) for i in range(s + 1)])
    return made


@dataclass(frozen=True)
class Halving:
    """Successive halving: of each rung the best 1 / eta go on to eta times the training.

    When a bracket is done the next one begins with new architectures. Where the space has no more
    of them, a bracket climbs with those that it has.

    Source: Jamieson, Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", arXiv:1502.07943; differs: a rung that is not yet complete is waited for, and an
    architecture that was trained as long in an earlier bracket is not trained again.

    Args:
        num: Architectures of the first rung.
        eta: Of a rung, one in so many goes on, to so many times the training.
        depth: Rungs above the first; the last one is the whole training.
    Raises:
        InvalidSetting: fewer architectures than reach the last rung.
    """

    num: int = 27
    eta: int = 3
    depth: int = 3

    def __post_init__(self) -> None:
        _check(self.eta, self.depth)
        if self.num < self.eta**self.depth:
            raise InvalidSetting(
                f"halving num={self.num} leaves nothing for the last of {self.depth} rungs; give "
                f"at least eta ** depth = {self.eta**self.depth}"
            )

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return up to n proposals of the bracket under way; none while its rung is running."""
        return _climb(history, [self.rungs], n, rng)

    @property
    def rungs(self) -> list[Rung]:
        """What is trained again and again: how many, and the share of the training of each."""
        return [
            (self.num // self.eta**i, float(self.eta) ** (i - self.depth))
            for i in range(self.depth + 1)
        ]


@dataclass(frozen=True)
class Hyperband:
    """Halving over brackets that begin at different rungs, against a first rung that misleads.

    Source: Li et al. 2018, arXiv:1603.06560; see `brackets`.

    Args:
        eta: Of a rung, one in so many goes on, to so many times the training.
        depth: Rungs above the first in the deepest bracket.
    """

    eta: int = 3
    depth: int = 3

    def __post_init__(self) -> None:
        _check(self.eta, self.depth)

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return up to n proposals of the bracket under way; none while its rung is running."""
        return _climb(history, brackets(self.eta, self.depth), n, rng)

    @property
    def rungs(self) -> list[Rung]:
        """The rungs of all brackets; see `Halving.rungs`."""
        return [rung for bracket in brackets(self.eta, self.depth) for rung in bracket]


@dataclass(frozen=True)
class ASHA:
    """Halving that waits for nothing: promotes whoever is among the best 1 / eta so far.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
    arXiv:1810.05934, algorithm 2.

    Args:
        eta: Of a rung, one in so many goes on, to so many times the training.
        depth: Rungs above the first; the last one is the whole training.
    """

    eta: int = 3
    depth: int = 3

    def __post_init__(self) -> None:
        _check(self.eta, self.depth)

    @property
    def rungs(self) -> list[Rung]:
        """The rungs, with as many in each as go on to it in the end; see `Halving.rungs`."""
        return [
            (self.eta ** (self.depth - i), float(self.eta) ** (i - self.depth))
            for i in range(self.depth + 1)
        ]

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n proposals: promotions from the highest rungs first, then new architectures."""
        shares = [share for _, share in self.rungs]
        ended: dict[float, list[Trial]] = defaultdict(list)
        for trial in history:
            if trial.state in ("scored", "failed"):
                ended[trial.fidelity].append(trial)
        asked: list[Proposal] = []
        for share, above in reversed(list(pairwise(shares))):
            best = _best(ended[share], len(ended[share]) // self.eta)
            asked += [p for p in _promoted(best, above) if _trial_of(history, p) is None]
        new = max(0, n - len(asked))
        return asked[:n] + [Proposal(history.space.sample(rng), shares[0]) for _ in range(new)]


def _climb(
    history: History, cycle: Sequence[Sequence[Rung]], n: int, rng: np.random.Generator
) -> list[Proposal]:
    """Return what the first bracket that is not done needs next, the cycle repeated for ever.

    Nothing where a whole cycle has nobody: then the space has no more.
    """
    newcomers: dict[float, list[Trial]] = defaultdict(list)
    for trial in history:
        if trial.parent is None and trial.state != "infeasible":
            newcomers[trial.fidelity].append(trial)
    queues = {share: iter(trials) for share, trials in newcomers.items()}
    begun = True
    while begun:
        begun = False
        for rungs in cycle:
            num, share = rungs[0]
            members = list(islice(queues.get(share, iter(())), num))
            new = _newcomers(history, share, min(n, num - len(members)), rng)
            asked = new or _bracket(history, rungs, members, n)
            if asked is not None:
                return asked
            begun = begun or bool(members)
    return []


def _newcomers(
    history: History, share: float, num: int, rng: np.random.Generator
) -> list[Proposal]:
    """Return up to num architectures not yet proposed for a share; none where none is left."""
    new: dict[Architecture, Proposal] = {}
    idle = 0
    while len(new) < num and idle < _IDLE:
        point = history.space.canonical(history.space.sample(rng))
        idle += 1
        if point not in new and history.seen(point, share) is None:
            new[point], idle = Proposal(point, share), 0
    return list(new.values())


def _bracket(
    history: History, rungs: Sequence[Rung], begun: Sequence[Trial], n: int
) -> list[Proposal] | None:
    """Return the next proposals of a bracket, none if it waits; None if it is done.

    Of fewer than a whole first rung as large a part goes on as of a whole one, one at the least.
    """
    members, first = begun, rungs[0][0]
    for num, above in rungs[1:]:
        if any(t.state == "running" for t in members):
            return []
        part = max(1, num * len(begun) // first)
        wanted = _promoted(_best(members, part), above)
        found = [_trial_of(history, p) for p in wanted]
        missing = [p for p, trial in zip(wanted, found) if trial is None]
        if missing:
            return missing[:n]
        members = [t for t in found if t is not None]
    return [] if any(t.state == "running" for t in members) else None


def _best(trials: Sequence[Trial], num: int) -> list[Trial]:
    """Return the scored trials with the largest first objective; the older wins a tie."""
    scored = [t for t in trials if t.state == "scored"]
    return sorted(scored, key=lambda t: (-t.objectives[0], t.number))[:num]


def _promoted(trials: Sequence[Trial], share: float) -> list[Proposal]:
    return [Proposal(t.architecture, share, parent=t.number) for t in trials]


def _trial_of(history: History, proposal: Proposal) -> Trial | None:
    return history.seen(proposal.architecture, proposal.fidelity)


def _check(eta: int, depth: int) -> None:
    if eta < 2 or depth < 1:
        raise InvalidSetting(f"eta={eta} and depth={depth}: give an eta of 2 or more and a rung")
