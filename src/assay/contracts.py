"""What strategies, estimators and executors promise each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np

from assay.architecture import Architecture, Option
from assay.cost import Budget, Cost

if TYPE_CHECKING:
    from torch import Tensor

    from assay.space.space import Space
    from assay.train.recipe import Recipe
    from assay.train.task import Task

__all__ = [
    "STEPS",
    "Context",
    "Estimate",
    "Estimator",
    "Executor",
    "History",
    "Job",
    "Learning",
    "Mix",
    "Paths",
    "Proposal",
    "Strategy",
    "Trial",
    "TrialState",
]

Json: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"
Mix: TypeAlias = Mapping[str, Mapping[Option, Any]]
"""What one supernet step activates: label -> {option: weight}; a weight is a float or a Tensor."""

STEPS: Mapping[str, str] = {
    "supernet": "build the supernet",
    "train": "train it once",
    "measure": "measure the hardware",
    "search": "search",
    "score": "score instantly",
    "finalists": "train finalists",
}
"""The six steps of a search in their order: name in the study -> name on screen."""

TrialState: TypeAlias = Literal["running", "scored", "infeasible", "failed"]
"""Where a trial stands; see `Trial`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Proposal:
    """What a strategy asks to be judged.

    Attributes:
        architecture: The point of the space.
        fidelity: Share of the full training, in (0, 1]; rungs of halving.
        parent: Number of the trial whose weights it starts from; None for none.
    """

    architecture: Architecture
    fidelity: float = 1.0
    parent: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What an estimator says an architecture is worth.

    Attributes:
        score: Higher is better; ordinal, not comparable between estimators. One that is not finite
            ranks nothing: the architecture failed, and `failure` says why.
        metrics: Named figures behind the score, such as `supernet_loss`.
        cost: What saying so cost.
        made_from: What it rests on (estimator, settings, calibration), as JSON.
    """

    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, why: str, cost: Cost, made_from: Mapping[str, Any]) -> Estimate:
        """Return the estimate of an architecture that has no score, and what it cost all the same.

        So one that diverges takes no other of its batch with it.
        """
        return cls(math.nan, {}, cost, {**made_from, "failure": why})

    @property
    def failure(self) -> str:
        """Why the score ranks nothing; "" where it is finite."""
        if math.isfinite(self.score):
            return ""
        return str(self.made_from.get("failure", f"the score is {self.score}"))


@dataclass(frozen=True)
class Trial:
    """One row of the history.

    Attributes:
        number: 0, 1, 2, ... in the order of proposing.
        architecture: Canonical.
        state: `running`, `scored`, `infeasible` (over a limit, never estimated) or `failed`.
        estimate: Present if and only if `state == "scored"`.
        measured: Figures that need no estimator: `macs`, `latency_ms`, ...
        objectives: The values to maximise, signs applied; empty unless scored.
        violation: value / limit - 1 of the first limit broken, in the order they are asked; 0 when
            all hold.
        parent: As proposed.
        fidelity: As proposed.
        error: Traceback of a failed trial.
    """

    number: int
    architecture: Architecture
    state: TrialState = "running"
    estimate: Estimate | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[float, ...] = ()
    violation: float = 0.0
    parent: int | None = None
    fidelity: float = 1.0
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.estimate is not None) != (self.state == "scored"):
            raise ValueError(f"trial {self.number}: an estimate goes with state 'scored' only")


class History(Sequence[Trial]):
    """All trials of a study so far: append-only, in memory, with O(1) `seen`.

    Args:
        space: The space that all architectures belong to.
        trials: What came before, numbered 0, 1, 2, ...
    """

    def __init__(self, space: Space, trials: Sequence[Trial] = ()) -> None:
        self.space = space
        self._trials: list[Trial] = []
        self._by_architecture: dict[Architecture, int] = {}
        self._by_rung: dict[tuple[Architecture, float], int] = {}
        for trial in trials:
            self.append(trial)

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, index: Any) -> Any:
        return self._trials[index]

    def append(self, trial: Trial) -> None:
        """Add the next trial.

        Raises:
            ValueError: its number is not the next one.
        """
        if trial.number != len(self._trials):
            raise ValueError(f"trial {trial.number} cannot follow {len(self._trials)} trials")
        self._trials.append(trial)
        self._by_architecture.setdefault(trial.architecture, trial.number)
        self._by_rung.setdefault((trial.architecture, trial.fidelity), trial.number)

    def replace(self, trial: Trial) -> None:
        """Put a trial's later state in its place.

        Raises:
            ValueError: the trial of this number is not running, or is of another architecture.
        """
        before = self._trials[trial.number]
        if before.state != "running" or before.architecture != trial.architecture:
            raise ValueError(f"trial {trial.number} is {before.state}; only a running one ends")
        self._trials[trial.number] = trial

    def ended(self, start: int = 0) -> Sequence[Trial]:
        """Return the trials from number `start` on, up to the first that is still running.

        None of them changes any more: what a strategy has made of them stays true.
        """
        end = start
        while end < len(self._trials) and self._trials[end].state != "running":
            end += 1
        return self._trials[start:end]

    def seen(self, canonical: Architecture, fidelity: float | None = None) -> Trial | None:
        """Return the first trial of this canonical architecture, or None.

        Args:
            canonical: A canonical architecture.
            fidelity: Look for a trial of this fidelity only; None for any.
        """
        if fidelity is None:
            number = self._by_architecture.get(canonical)
        else:
            number = self._by_rung.get((canonical, fidelity))
        return None if number is None else self._trials[number]


@dataclass(frozen=True)
class Context:
    """What an estimator may use.

    Attributes:
        space: The space searched.
        task: Training and validation splits, loss and metrics; its test split is closed.
        recipe: How weights are trained.
        executor: Runs every training and scoring.
        device: Torch device that trains, "cpu" or "cuda".
        seed: The study's seed; draw from `derive(seed, ...)` only.
        history: All trials so far; read only.
    """

    space: Space
    task: Task
    recipe: Recipe
    executor: Executor
    device: str
    seed: int
    history: History


@dataclass(frozen=True)
class Learning:
    """What a strategy that learns knows at one moment.

    Attributes:
        step: Weight steps behind it, or trials where it learns from these.
        probabilities: Label -> probability of each option, in their order; a decision of which
            nothing is known is absent. Where options are weighed independently, their weights,
            which need not sum to 1.
        entropy: From the least that is possible, 0, to the largest, 1, which knows nothing.
        quantity: What is in the loop, such as "latency_ms"; "" for nothing.
        expected: Of that quantity, over what would be proposed now.
        target: Of that quantity.
        reward: Moving average; higher is better.
        stopped: Why it learns no more; "" while it does.
        error: How far `expected` is off, a share; None where it is exact, or nobody knows.
    """

    step: int
    probabilities: Mapping[str, Sequence[float]]
    entropy: float
    quantity: str = ""
    expected: float | None = None
    target: float | None = None
    reward: float | None = None
    stopped: str = ""
    error: float | None = None


class Strategy(Protocol):
    """Proposes from the history; runs and stores nothing.

    A strategy caches only what the history gives back: a fresh instance with the same history and
    rng asks the same. It may have `check(space)` and `check_limits(limits)`, which refuse these
    before all else; one that trains some for a part only has `rungs`, see
    `assay.strategies.halving`. One that learns while a supernet trains has `paths`, which take the
    place of the estimator's, and may have `in_the_loop(measure, limits)`, called once the hardware
    was measured, before training.

    One that learns from its own proposals may have `at_once(history)`: how many new trials more it
    learns from at once. The search asks for no more, so whoever draws a batch learns from it.

    One that shows what it learns has `learned(history)`, which returns a `Learning` for each of at
    most some hundred moments, by ascending step, the last being now; a function of the history and
    of the state that was loaded. It may have `advice`, symptom -> what to change, see
    `assay.strategies.learned.symptoms`; and `exclude`, options that it never proposes.
    """

    def ask(self, history: History, n: int, *, rng: np.random.Generator) -> list[Proposal]:
        """Return up to n proposals from `history.space`; they may repeat what was seen.

        None at all means that it waits for trials under way, or has nothing more to propose.
        """
        ...


class Estimator(Protocol):
    """Says what architectures are worth and what saying so cost.

    One whose estimates are trainings may also have `estimate_seconds(ctx)`, the seconds of one
    estimate, so that none is trained just to be timed; and `heeds_fidelity = True` where it trains
    for the share of the steps that a proposal asks for, without which halving is refused; and
    `estimate_each(ctx, proposals)`, see `assay.estimators.each`, so that each is kept as it ends.
    One that does more than its steps may have `setup_seconds(ctx, steps)`, the seconds that
    `prepare` takes beside so many steps.
    """

    def step_seconds(self, ctx: Context) -> float:
        """Return the wall seconds of one step of `prepare`, timed briefly; 0 if it has none."""
        ...

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Do what is paid once; yields the cost since the last yield where it can be resumed.

        Continues from a loaded state. With `budget.steps` it does that many steps in all; with
        `budget.seconds` the caller has turned time into steps before.
        """
        ...

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Score a batch, in its order."""
        ...

    def state_dict(self) -> Mapping[str, Tensor | Json]:
        """Return what `prepare` has made so far: tensors and JSON values, flat."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor | Json]) -> None:
        """Take up what `state_dict` returned, before `prepare` or `estimate`."""
        ...


class Paths(Protocol):
    """Says which path or mix each pass of a supernet step activates.

    One that learns, such as `assay.strategies.learned.learner.Learner`, also has `begin(ctx, space,
    steps)`, called before the supernet trains, with the recipe that it trains by; `divide(task)`,
    which returns the task that weights train on and that `learn` is given; `learn(supernet, task,
    step)`, before each step; `hasten()`, for whoever times these, and `every`, how many of them
    have one turn of it; `state_dict` and `load_state_dict`. It may have `warming(step)`, whether
    nothing is learned yet; `train_share` of the samples, which `divide` leaves to the weights;
    `spent(macs)`, the cost of its own passes since it was last asked (`macs` counts a sample's
    forward), and `prefers`, fields of the estimator -> values in place of the defaults in a search.
    """

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return the paths or mixes of a step; one update follows for all of them."""
        ...


@dataclass
class Job(Generic[T]):
    """A piece of work handed to an executor; once `end` was called it holds its outcome only."""

    work: Callable[[], T]
    in_place: bool = False
    value: T | None = None
    error: BaseException | None = None
    done: bool = False
    cancelled: bool = False

    def end(self, value: T | None = None, error: BaseException | None = None) -> None:
        """Keep what came of the work, and drop the work."""
        self.value, self.error, self.done, self.work = value, error, True, _ended

    def result(self) -> T:
        """Return the value, or raise what the work raised."""
        if self.error is not None:
            raise self.error
        if not self.done:
            raise RuntimeError("this job has not run; gather it first")
        return self.value  # type: ignore[return-value]


def _ended() -> NoReturn:
    raise RuntimeError("this job has ended, and its work is gone; ask for its result")


class Executor(Protocol):
    """Runs trainings and scorings."""

    @property
    def at_once(self) -> int:
        """How many jobs run at the same time, those in place left aside."""
        ...

    def submit(self, work: Callable[[], T], *, in_place: bool = False) -> Job[T]:
        """Hand over a piece of work; it may start at once or wait.

        What the work returns is all that is sure to come of it: an executor may run a copy of it
        in another process, and what that changes is lost here.

        Args:
            work: Called without arguments; what it closes over must not change until it ends.
            in_place: Whether it changes what it closes over, such as a trainer that goes on; then
                it runs in this process.
        """
        ...

    def gather(self, jobs: Sequence[Job[Any]]) -> Iterator[Job[Any]]:
        """Yield the jobs as they end, errors included; cancelled ones are left out."""
        ...

    def cancel(self, job: Job[Any]) -> None:
        """Take back a job that has not started; one that has ended stays as it is."""
        ...
