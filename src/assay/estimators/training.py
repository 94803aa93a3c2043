"""One network trained for some steps: the piece of work behind every estimate that trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeVar

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, Job
from assay.cost import Cost, derive
from assay.errors import NotFinite
from assay.hardware.count import count
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.splits import Batch
from assay.train.task import Task, evaluate

__all__ = [
    "Stretch",
    "Trained",
    "Training",
    "enough_batches",
    "in_chunks",
    "run_each",
    "step_seconds",
]

S = TypeVar("S")
T = TypeVar("T")

_TIMED_NETWORKS = 8


@dataclass(frozen=True)
class Stretch(Cost):
    """Some steps of a training that goes on: what they cost, and how many they were.

    Their samples do not tell: a step of a supernet passes each of its samples through several
    paths. What is added beside a step, such as what its paths have learned from, is still its cost.
    """

    steps: int = 0

    def __add__(self, other: Cost) -> Stretch:
        cost = super().__add__(other)
        steps = self.steps + (other.steps if isinstance(other, Stretch) else 0)
        return Stretch(cost.wall_s, cost.samples, cost.macs, cost.device, steps)


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        figures: "loss" and the task's metrics on the validation split; NaN where it diverged, and
            none where they were not asked for.
        curve: (step, validation loss) at each point that was looked at, the last included.
        losses: Mean training loss of each step, from the first.
        cost: Of the steps taken now, validation included.
        state: What a longer training goes on from; empty unless it was asked for.
        diverged: Why it came to no end; "" where it did.
    """

    figures: Mapping[str, float]
    curve: Sequence[tuple[int, float]]
    losses: Sequence[float]
    cost: Cost
    state: Mapping[str, Any] = field(default_factory=dict)
    diverged: str = ""


@dataclass(frozen=True)
class Training:
    """Trains a network up to a step of a schedule, and judges it on the validation split.

    A job for any executor: what it returns is all that comes of it, so it may run in another
    process. A network with averaged weights is judged by these. That it diverged is what came of
    it, too: what it took until then is booked.

    Args:
        network: Plain, with the weights it starts from; is trained in place where the job runs.
        task: Training and validation splits.
        recipe: How.
        whole: Steps that the schedule is made for.
        until: Step at which to stop.
        device: Torch device.
        seed: Names every draw.
        points: How often to look at the validation loss on the way, the end included; 0 for never.
        samples: Most validation samples to judge on; None for all.
        begun: What an earlier training of the same network returned; None for none.
        keep: Whether to return a state that a longer training can go on from.
    """

    network: nn.Module
    task: Task
    recipe: Recipe
    whole: int
    until: int
    device: str = "cpu"
    seed: int = 0
    points: int = 1
    samples: int | None = None
    begun: Trained | None = None
    keep: bool = False

    def __call__(self) -> Trained:
        """Train and judge, unless it diverges."""
        started = time.perf_counter()
        trainer = Trainer(
            self.network, self.task, self.recipe, steps=self.whole, device=self.device,
            seed=self.seed,
        )  # fmt: skip
        curve, losses, seen, diverged = [], [], 0, ""
        if self.begun is not None and self.begun.state:
            trainer.load_state_dict(self.begun.state)
            curve, losses = list(self.begun.curve), list(self.begun.losses)
        before = len(curve)
        figures: Mapping[str, float] = {}
        for stop in self._stops(trainer.step):
            taken, diverged = self._go_on(trainer, stop)
            seen += taken
            if diverged:
                figures = dict.fromkeys(("loss", *self.task.metrics), math.nan)
                break
            if self.points:
                figures = self._judge(trainer)
                curve.append((stop, figures["loss"]))
        losses += trainer.losses
        judged = (len(curve) - before) * self._judged
        cost = Cost(
            time.perf_counter() - started, seen + judged, self._macs_of(3 * seen + judged),
            self.device,
        )  # fmt: skip
        state = {} if diverged else self._state(trainer)
        return Trained(figures, curve, losses, cost, state, diverged)

    def _stops(self, begun: int) -> list[int]:
        """Return the steps to judge at, evenly spaced over the whole way."""
        evenly = {round(self.until * (i + 1) / self.points) for i in range(self.points)}
        return [*sorted(stop for stop in evenly if begun < stop < self.until), self.until]

    def _go_on(self, trainer: Trainer, stop: int) -> tuple[int, str]:
        """Train up to a step; return the samples that took, and why it diverged or ""."""
        begun = trainer.step
        try:
            return trainer.run(stop - begun).samples, ""
        except NotFinite as error:
            steps = min(trainer.step + 1, stop) - begun  # the one that shows it was taken, too
            return steps * min(self.recipe.batch_size, len(self.task.train)), str(error)

    @property
    def _judged(self) -> int:
        """Samples of one look at the validation split."""
        return min(self.samples or len(self.task.valid), len(self.task.valid))

    def _macs_of(self, forwards: int) -> int:
        """Return the MACs of so many forwards of one sample."""
        inputs, _ = next(self.task.valid.batches(1, device=self.device, limit=1))
        return count(self.network, inputs).macs * forwards

    def _judge(self, trainer: Trainer) -> dict[str, float]:
        with trainer.averaged() as network:
            batches = self.task.valid.batches(
                self.recipe.evaluation_batch, device=self.device, limit=self.samples
            )
            return evaluate(network, batches, self.task)

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        if not self.keep:
            return {}
        state = trainer.state_dict()
        return {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def run_each(
    ctx: Context, items: Sequence[S], make: Callable[[S], Callable[[], T]]
) -> Generator[tuple[int, Job[T]], None, None]:
    """Run a piece of work for each item; yield (index, job) as they end, errors included.

    Work is made when its turn comes: a training holds a network, and of many these fill the memory.
    What cannot be made has ended, with the error.

    Args:
        ctx: Names the executor.
        items: What work is made of.
        make: make(item) -> work, called in this process.
    """
    executor, begun = ctx.executor, 0
    flying: dict[int, Job[T]] = {}
    room = executor.at_once + (executor.at_once > 1)  # one waits, so that no worker has to
    try:
        while begun < len(items) or flying:
            while begun < len(items) and len(flying) < room:
                flying[begun] = _begun(ctx, partial(make, items[begun]))
                begun += 1
            unmade = next((job for job in flying.values() if job.done), None)
            ended = unmade or next(executor.gather(list(flying.values())))
            index = next(i for i, job in flying.items() if job is ended)
            yield index, flying.pop(index)
    finally:
        for job in flying.values():
            executor.cancel(job)


def _begun(ctx: Context, make: Callable[[], Callable[[], T]]) -> Job[T]:
    try:
        work = make()
    except Exception as error:
        job: Job[T] = Job(_nothing)
        job.end(error=error)
        return job
    return ctx.executor.submit(work)


def _nothing() -> NoReturn:
    raise RuntimeError("this work could not be made")


def step_seconds(
    ctx: Context, make: Callable[[Architecture], nn.Module], task: Task, recipe: Recipe
) -> float:
    """Return the wall seconds of one training step, as many trainings at once as there will be.

    The mean over the slower half of some random networks: what is chosen to be trained is mostly
    larger than what is drawn. One that cannot be trained, for want of memory perhaps, is left out.

    Args:
        ctx: Names the space, the executor, the device and the seed.
        make: make(architecture) -> the network that is trained.
        task: On what.
        recipe: How.
    Raises:
        Exception: what training the first of them raised, where none can be trained.
    """
    rng = derive(ctx.seed, "timed")
    drawn = [ctx.space.canonical(ctx.space.sample(rng)) for _ in range(_TIMED_NETWORKS)]

    def timing(architecture: Architecture) -> Callable[[], float]:
        return partial(_timed, make(architecture), task, recipe, ctx.device)

    ended = dict(run_each(ctx, drawn, timing))
    times = sorted(job.result() for job in ended.values() if job.error is None)
    if not times:
        ended[0].result()
    slower = times[len(times) // 2 :]
    return float(sum(slower) / len(slower))


def _timed(network: nn.Module, task: Task, recipe: Recipe, device: str) -> float:
    trainer = Trainer(network, task, recipe, steps=10**9, device=device)
    return trainer.step_seconds(warmup=1, rounds=4, steps=1)


def in_chunks(ctx: Context, trainer: Trainer, until: int | None = None) -> Iterator[Stretch]:
    """Run a training on the context's executor; yield what it took about once a second.

    Args:
        ctx: Names the executor.
        trainer: What is run, in this process.
        until: Step to stop at; None for its end.
    """
    end, chunk = trainer.steps if until is None else until, 1
    while trainer.step < end:
        before = trainer.step
        job = ctx.executor.submit(partial(trainer.run, min(chunk, end - before)), in_place=True)
        for ended in ctx.executor.gather([job]):
            ended.result()
        cost, taken = job.result(), trainer.step - before
        yield Stretch(cost.wall_s, cost.samples, cost.macs, cost.device, taken)
        per_step = cost.wall_s / taken
        chunk = max(1, min(4 * chunk, math.ceil(1.0 / max(per_step, 1e-6))))


def enough_batches(ctx: Context, task: Task, samples: int, *, most: int) -> Iterator[Batch]:
    """Yield training batches, unaugmented, until they hold so many samples, or all that there are.

    The last may bring more than that: a loader of the user's own has batches of its own size.

    Args:
        ctx: Names the device, and the seed of the order.
        task: Whose samples.
        samples: How many are wanted.
        most: Samples of one batch, where the split heeds it.
    """
    left = min(samples, len(task.train))
    size = min(most, left)
    for batch in task.train.train_batches(size, seed=ctx.seed, device=ctx.device):
        yield batch
        left -= len(batch[1])
        if left <= 0:
            return
