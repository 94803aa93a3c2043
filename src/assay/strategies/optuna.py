"""Any of Optuna's samplers that can choose among options, as a strategy.

Known weakness: of a decision that is not always active the samplers `gp`, `nsga2` and `nsga3` learn
nothing, and draw it at random; `tpe` learns of each such decision by itself.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import History, Proposal, Trial
from assay.errors import InvalidSetting, nearest
from assay.space.suggest import category

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["Optuna"]

_SHORT = {"nsgaii": "nsga2", "nsgaiii": "nsga3"}
_UNFIT = {
    "bruteforce": "takes for tried what it only suggested; use the strategy 'random', which "
    "proposes nothing twice either",
    "cmaes": "chooses among options at random only; use 'random'",
    "grid": "needs all that it is to try beforehand; use the strategy 'random'",
    "partialfixed": "is around another one; give it as an object, in Python",
    "qmc": "chooses among options at random only; use 'random'",
}
"""Why a sampler is no strategy, by its name."""
_STUDY = "history"
_REPEATS = 20


@dataclass
class Optuna:
    """Asks a sampler of Optuna, which is told the history in memory.

    A sampler by name is made anew for each ask, seeded by the ask's own generator: it remembers
    nothing but the trials, and a resumed search asks the same. Of one given as an object a copy
    goes on from ask to ask with its random state and whatever else it remembers, which no study
    keeps: a search that was killed and resumed asks otherwise than one that was not.

    Either is told all objectives, and the violation of the limits as a constraint. A trial over a
    limit was never estimated; its objectives are told as the least so far. Trials under way, and
    those after them, are told as running; so is, during the ask, a suggestion that was seen before.
    After 20 of these in one ask, a random architecture that
    is new stands in for what the sampler repeats: in a small space little else is left.

    Source: Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework",
    arXiv:1907.10902; for `tpe` Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization";
    for `nsga2` Deb et al. 2002, for `nsga3` Deb, Jain 2014; differs: a generation of `nsga2` and
    `nsga3` is chosen with a seed of its own, so that it is a function of the history.

    Args:
        sampler: "tpe", "gp", "nsga2", "nsga3", "random", or another class of `optuna.samplers` in
            small letters and without "Sampler"; or an object, a `BaseSampler`. As a strategy's
            name: "optuna:tpe".
        settings: Keyword arguments of the class named, such as {"multivariate": True}.
    Raises:
        InvalidSetting: an unknown sampler or setting, one that is no strategy, settings beside an
            object, or Optuna is not installed.
    """

    sampler: Any = "tpe"
    settings: Mapping[str, Any] = field(default_factory=dict)
    _told: _Told | None = field(default=None, init=False, repr=False, compare=False)
    _own: tuple[History, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        with _quiet():  # refused here, before anything was paid for
            if isinstance(self.sampler, str):
                self._check_named()
            else:
                self._check_object()

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return n suggestions of the sampler, each aware of those before it."""
        with _quiet():
            told = self._told
            if told is None or not told.takes(history):
                told = self._told = _Told(history, self._maker(history))
            told.catch_up()
            return told.ask(int(rng.integers(2**32)), n, rng)

    def _check_named(self) -> None:
        """Let the sampler suggest once, of a toy: it looks at some settings only then."""
        import optuna

        options: Any = {"toy": optuna.distributions.CategoricalDistribution("ab")}
        told = optuna.trial.create_trial(params={"toy": "a"}, distributions=options, value=0.0)
        named = _class(self.sampler)
        try:
            study = optuna.create_study(sampler=named(seed=0, **self.settings))
            study.add_trial(told)
            study.ask(options)
        except (TypeError, ValueError) as error:
            raise InvalidSetting(
                f"Optuna's sampler {self.sampler!r} with {dict(self.settings)}: {error}"
            ) from error

    def _check_object(self) -> None:
        from optuna.samplers import BaseSampler

        if not isinstance(self.sampler, BaseSampler):
            raise InvalidSetting(
                f"strategy.sampler={self.sampler!r} is no sampler of Optuna; give a BaseSampler, "
                "or a name such as 'tpe'"
            )
        if self.settings:
            raise InvalidSetting(
                f"strategy.settings={dict(self.settings)} go with a sampler's name; make "
                f"{type(self.sampler).__name__} with them"
            )

    def _maker(self, history: History) -> Callable[[int], BaseSampler]:
        """Return what makes the sampler from a seed; of an object it is one and the same copy.

        What an object remembers is of one study: another history has another copy.
        """
        if isinstance(self.sampler, str):
            return self._seeded
        if self._own is None or self._own[0] is not history:
            self._own = (history, copy.deepcopy(self.sampler))
        own: BaseSampler = self._own[1]
        return lambda seed: own

    def _seeded(self, seed: int) -> BaseSampler:
        made: BaseSampler = _class(self.sampler)(seed=seed, **self.settings)
        return made


def _class(name: str) -> Any:
    """Return the class of Optuna's that is meant by a name.

    Raises:
        InvalidSetting: there is none, or it is no strategy.
    """
    from optuna import samplers

    found = {}
    for own in samplers.__all__:
        cls, short = getattr(samplers, own), own.removesuffix("Sampler").lower()
        if short != own.lower() and not own.startswith("Base"):  # not what helps samplers
            found[_SHORT.get(short, short)] = cls
    known, name = sorted(found.keys() - _UNFIT.keys()), _SHORT.get(name, name)
    if name in _UNFIT:
        raise InvalidSetting(f"Optuna's sampler {name!r} {_UNFIT[name]}")
    if name not in found:
        raise InvalidSetting(f"Optuna's sampler {name!r} is unknown; {nearest(name, known)}")
    return found[name]


class _Told:
    """What a study of Optuna's holds of one history: the trials that have ended, in their order.

    All trials of such a study have as many objectives, and all a constraint or none; where later
    trials say otherwise, another study is made.

    Args:
        history: What is told.
        seeded: Makes the sampler from a seed.
    """

    def __init__(self, history: History, seeded: Callable[[int], BaseSampler]) -> None:
        import optuna

        ended = history.ended()
        self._history = history
        self._seeded = seeded
        self._breeds = _breeds(seeded(0))
        self._width, self._limited = _shape(ended)
        self._done = 0
        self._completed = 0
        first = next((t.objectives for t in ended if t.objectives), (0.0,))
        self._least = list(first)
        self._distributions = {
            label: optuna.distributions.CategoricalDistribution([category(o) for o in c.options])
            for label, c in history.space.choices.items()
        }
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage, study_name=_STUDY, directions=["maximize"] * len(first)
        )

    def takes(self, history: History) -> bool:
        """Whether this is the history told, and the trials that have ended since fit the study."""
        if history is not self._history:
            return False
        width, limited = _shape(history.ended(self._done))
        return width in (0, self._width) and limited <= self._limited

    def catch_up(self) -> None:
        """Tell what has ended since the last time."""
        for trial in self._history.ended(self._done):
            self._done += 1
            if trial.state == "failed":
                self._study.add_trial(self._trial(trial.architecture, "FAIL"))
            else:
                self._complete(trial)

    def ask(self, seed: int, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Return n suggestions; of them stay failed trials only, which no sampler by name reads."""
        import optuna
        from optuna.trial import TrialState

        # Another object of the same study: one remembers trials, the sampler and what it has seen.
        study = optuna.load_study(
            study_name=_STUDY, storage=self._storage, sampler=self._seeded(seed)
        )
        for trial in self._history[self._done :]:
            study.add_trial(self._trial(trial.architecture, "RUNNING"))
        proposals: list[Proposal] = []
        repeats = 0
        while len(proposals) < n:
            point = self._history.space.suggest(study.ask())
            # One that was seen is running meanwhile, which keeps the sampler from repeating it.
            if not self._seen(point):
                proposals.append(Proposal(point))
            elif repeats < _REPEATS:
                repeats += 1
            else:
                proposals.append(Proposal(self._new(rng)))
        for running in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(running.number, state=TrialState.FAIL)
        return proposals

    def _seen(self, point: Architecture) -> bool:
        return self._history.seen(self._history.space.canonical(point)) is not None

    def _new(self, rng: np.random.Generator) -> Architecture:
        """Return a random architecture that is new, or the last of a few that are not."""
        for _ in range(_REPEATS):
            point = self._history.space.sample(rng)
            if not self._seen(point):
                break
        return point

    # --- trials as Optuna has them ------------------------------------------------------------

    def _trial(self, architecture: Architecture, state: str, **more: Any) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        params = {label: category(option) for label, option in architecture.items()}
        distributions: Any = {label: self._distributions[label] for label in params}
        return create_trial(
            state=TrialState[state], params=params, distributions=distributions, **more
        )

    def _complete(self, trial: Trial) -> None:
        if trial.objectives:
            self._least = [min(pair) for pair in zip(self._least, trial.objectives)]
        values = list(trial.objectives) or self._least
        over = {"violation": trial.violation} if self._limited else None
        attributes = {}
        if self._breeds is not None:
            key, population = self._breeds
            attributes[key] = self._completed // population
        told = self._trial(
            trial.architecture, "COMPLETE", values=values, constraints=over, system_attrs=attributes
        )
        self._study.add_trial(told)
        self._completed += 1
        if self._breeds is not None and self._completed % population == 0:
            self._breed(self._completed // population)

    def _breed(self, generation: int) -> None:
        """Choose the parents of a generation, once and for all; the study keeps them.

        Left to whoever asks first, they would depend on when that is.
        """
        import optuna

        sampler: Any = self._seeded(generation)
        study = optuna.load_study(study_name=_STUDY, storage=self._storage, sampler=sampler)
        sampler.get_parent_population(study, generation)


def _breeds(sampler: BaseSampler) -> tuple[str, int] | None:
    """Return under which key a sampler of generations keeps a trial's, and how many are in one."""
    from optuna.samplers import BaseGASampler

    if not isinstance(sampler, BaseGASampler):
        return None
    assert sampler.population_size is not None
    # Private, but nothing public says it: trials that are copied must bear the key by which the
    # sampler tells generations apart.
    return sampler._get_generation_key(), sampler.population_size


def _shape(trials: Sequence[Trial]) -> tuple[int, bool]:
    """Return how many objectives trials have, 0 if none is scored, and whether there are limits."""
    width = max((len(t.objectives) for t in trials), default=0)
    return width, any(t.state == "infeasible" for t in trials)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Optuna says of its own inner studies and of its younger parts off the screen.

    Raises:
        InvalidSetting: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InvalidSetting(
            "the strategy 'optuna' needs the package optuna; pip install optuna"
        ) from error
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
