"""Which paths one step of a supernet activates."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from scipy.stats import rankdata

from assay.architecture import Architecture, Option
from assay.contracts import Mix
from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.space.structure import Choice

__all__ = ["Fair", "Sandwich", "Sized", "Uniform"]


@dataclass(frozen=True)
class Uniform:
    """One or more paths, every active decision drawn uniformly and independently.

    Source: Guo et al. 2019, "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", arXiv:1904.00420, section 3.2; differs: `num` paths may share a mini-batch.

    Args:
        num: Paths for each mini-batch; their gradients are averaged.
    """

    num: int = 1

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return `num` architectures."""
        _at_least_one("paths.num", self.num)
        return [space.sample(rng, over="decisions") for _ in range(self.num)]


@dataclass(frozen=True)
class Fair:
    """As many paths as the widest choice has options, so that siblings are trained equally often.

    Each choice deals its options from a shuffled deck, one card for each pass in which it is
    active, and shuffles anew when the deck is empty. Where all choices have m options this is
    strict fairness: in every step each option is activated exactly once. Elsewhere the counts of
    siblings differ by at most one within a step, nested ones counted while their parent is active.

    Source: Chu et al. 2019, "FairNAS", arXiv:1907.01845, section 3.2 and algorithm 1; differs:
    spaces with unequal or nested choices, as above, and the gradients of a step are averaged, not
    added up, as for all paths here: at one rate each option moves an m-th as far.
    """

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return max m architectures; one update follows for all of them."""
        decks: dict[str, list[Option]] = {}

        def deal(choice: Choice) -> Option:
            deck = decks.setdefault(choice.label, [])
            if not deck:
                deck.extend(choice.options[i] for i in rng.permutation(len(choice.options)))
            return deck.pop()

        most = max(len(choice.options) for choice in space.choices.values())
        return [space.complete({}, deal) for _ in range(most)]


@dataclass(frozen=True)
class Sandwich:
    """The largest and the smallest architecture and a few random ones in every step.

    Source: Yu et al. 2020, "BigNAS", arXiv:2003.11142, section 3.2; differs: all paths learn from
    the labels (the paper's in-place distillation is not used), and gradients are averaged.

    Args:
        num: Random paths beside the two extremes.
    """

    num: int = 2

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return the largest, the smallest and `num` random architectures."""
        _at_least_one("paths.num", self.num)
        drawn = [space.sample(rng, over="decisions") for _ in range(self.num)]
        return [space.largest(), space.smallest(), *drawn]


@dataclass(frozen=True)
class Sized:
    """One or more paths on which options that have more to learn are taken more often.

    The chance of an option is in proportion to its rank by number of parameters among its siblings:
    1 for the fewest, options that have equally many sharing the mean of their ranks. Paths are in
    canonical form: weights that nothing reads learn nothing, and twins train the same weights.

    Source: Assay's own. An operation without parameters needs no training, and a large one more
    steps than a small one; under uniform sampling both get the same.

    Args:
        num: Paths for each mini-batch; their gradients are averaged.
    """

    num: int = 1

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return `num` architectures."""
        _at_least_one("paths.num", self.num)
        if space not in _CHANCES:
            _CHANCES[space] = {label: _chances(space, c) for label, c in space.choices.items()}
        chances = _CHANCES[space]

        def draw(choice: Choice) -> Option:
            return choice.options[bisect(chances[choice.label], rng.random())]

        return [space.canonical(space.complete({}, draw)) for _ in range(self.num)]


_CHANCES: WeakKeyDictionary[Space, dict[str, list[float]]] = WeakKeyDictionary()


def _chances(space: Space, choice: Choice) -> list[float]:
    """Return the chances of the options, added up; the last is left out, it is 1."""
    ranks = rankdata([_learned(space, choice, option) for option in choice.options])
    return [float(chance) for chance in np.cumsum(ranks / ranks.sum())[:-1]]


def _learned(space: Space, choice: Choice, option: Option) -> float:
    """Return how many parameters an option has, or a size that they grow with."""
    if choice.kind == "OneOf":
        sites = [m for m in space.structure.modules[choice.label] if isinstance(m, OneOf)]
        options = (site.get_submodule(str(option)) for site in sites)
        return float(sum(p.numel() for module in options for p in module.parameters()))
    return 0.0 if isinstance(option, str | tuple) else float(option)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InvalidSetting(f"{name}={value} must be at least 1")
