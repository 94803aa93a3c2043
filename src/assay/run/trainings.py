"""Networks trained for real, several at once where the executor runs several, each resumable."""

from __future__ import annotations

import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Job
from assay.cost import Cost, derive
from assay.errors import NotFinite, Unsendable, WorkerDied
from assay.run.allot import timed
from assay.run.failing import may_pass
from assay.run.steps import Step
from assay.run.workflow import Workflow
from assay.train.files import load_tensors, save_tensors
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.splits import Loaded
from assay.train.task import evaluate

__all__ = ["Final", "Trainings"]

_TURN_S = 1.0
_MOST_TURN_S = 60.0
_SENDING = 0.02  # share of a turn that sending the task and the state to a worker may take
_SAVE_EVERY_S = 5.0
_OF_WORKERS = (Unsendable, WorkerDied)


@dataclass(frozen=True)
class Final:
    """A network to be trained for real.

    Attributes:
        name: "finalist", "largest", "smallest" or "random".
        architecture: What it is.
        seed: Names its initial weights and the order of its data.
        trial: Number of the trial it comes from; None for those trained for comparison.
    """

    name: str
    architecture: Architecture
    seed: int
    trial: int | None = None

    @property
    def key(self) -> str:
        """Its name in the study and of its files."""
        which = self.name if self.trial is None else f"{self.name}-{self.trial}"
        return f"{which}-{self.seed}"


@dataclass(eq=False)
class _Run:
    """A training under way: its seconds are those it had the machine for itself, or its share."""

    final: Final
    trainer: Trainer
    seconds: float
    told: int  # steps that were reported
    chunk: int = 1  # steps of a turn
    sent_at: float = 0.0
    samples: int = 0  # not booked yet
    saved_at: float = field(default_factory=time.monotonic)


class Trainings:
    """Trains networks and judges them on the validation split.

    Where the executor runs several jobs at once, they take turns in its workers, whoever is least
    far first, so that all end at about the same time. Otherwise, or where a `DataLoader` brings the
    samples, which would be read from its beginning at each turn, they are trained in this process
    one after another. That is also how they go on if a worker dies or cannot be sent a training.

    Args:
        workflow: Its study has what an earlier run left.
        recipe: How they are trained.
    Attributes:
        networks: Those trained, by the key of their `Final`.
        results: The validation figures of these.
    """

    def __init__(self, workflow: Workflow, recipe: Recipe) -> None:
        self.plan = workflow.plan
        self.study = workflow.study
        self.steps = workflow.steps
        self.measures = workflow.measures
        self.recipe = recipe
        self.networks: dict[str, nn.Module] = {}
        self.results: dict[str, dict[str, float]] = {}
        self._here = isinstance(self.plan.task.train, Loaded)

    @property
    def at_once(self) -> int:
        """How many networks are trained at the same time."""
        return 1 if self._here else self.plan.executor.at_once

    def step_seconds(self, finals: Sequence[Final], budget_s: float) -> list[float]:
        """Return the seconds of a training step of each, timed as many at once as are trained.

        Args:
            finals: Who; one that cannot be trained takes no time, and is recorded when it fails.
            budget_s: What timing all may take.
        """
        executor, most_s = self.plan.executor, budget_s * self.at_once / len(finals)
        timers = [self._timer(final, most_s) for final in finals]
        jobs = [executor.submit(timer, in_place=self._here) for timer in timers]
        for _ in executor.gather(jobs):
            pass
        lost = next((job.error for job in jobs if isinstance(job.error, _OF_WORKERS)), None)
        if lost is not None:
            self._stay(lost)
            return self.step_seconds(finals, budget_s)
        return [job.result() if job.error is None else 0.0 for job in jobs]

    def run(self, finals: Sequence[Final], steps: int, step: Step) -> None:
        """Train each for so many steps, or take up where an earlier run left it.

        One that fails in any way is recorded, and takes no other with it; what may pass by itself,
        as a lack of memory, is tried again by the next call that finds no winner.
        """
        executor = self.plan.executor
        pending, waiting = deque(finals), list[_Run]()
        flying: list[tuple[Job[Any], _Run]] = []
        keys = {final.key for final in finals}
        step.done = sum(row["steps"] for row in self.study.finalists() if row["key"] in keys)
        try:
            while True:
                while len(flying) < self.at_once and (
                    run := self._next(pending, waiting, steps, step)
                ):
                    flying.append((self._chunk(run), run))
                if not flying:
                    return
                job = next(executor.gather([job for job, _ in flying]))
                run = next(run for flown, run in flying if flown is job)
                goes_on = self._advance(run, job, len(flying), step)
                flying = [pair for pair in flying if pair[1] is not run]
                if goes_on:
                    waiting.append(run)
        finally:
            for job, _ in flying:
                executor.cancel(job)

    def _next(
        self, pending: deque[Final], waiting: list[_Run], steps: int, step: Step
    ) -> _Run | None:
        """Return whose turn it is; None if nobody waits."""
        while pending and not (waiting and self.at_once == 1):
            if (run := self._begin(pending.popleft(), steps, step)) is not None:
                return run
        if not waiting:
            return None
        run = min(waiting, key=lambda run: run.trainer.step)
        waiting.remove(run)
        return run

    def _begin(self, final: Final, steps: int, step: Step) -> _Run | None:
        """Make a training, or take up its saved state; None if it has ended."""
        before = self.study.finalist(final.key) or {"state": "", "metrics": {}, "weights": ""}
        if before["state"] == "failed":
            return None
        try:
            trainer = self._maker(final, self._network(final), steps)()
        except Exception as error:  # of the user's factory
            self.study.add_failure("finalists", final.trial, str(error), traceback.format_exc())
            if may_pass(error):  # the next call on this folder tries again
                step.checkpoint()
                return None
            self.study.save_finalist(
                final.key, trial=final.trial, seed=final.seed, state="failed", metrics={},
                weights="", steps=0, architecture=final.architecture.to_json(),
                cost=Cost(step.lap()),
            )  # fmt: skip
            return None
        if before["weights"]:
            trainer.load_state_dict(load_tensors(self.plan.out / before["weights"]))
        metrics = dict(before["metrics"])
        seconds = float(metrics.pop("training_s", 0.0))
        if before["state"] == "done":
            self.networks[final.key], self.results[final.key] = trainer.finish(), metrics
            return None
        return _Run(final, trainer, seconds, trainer.step)

    # --- one turn -----------------------------------------------------------------------------

    def _chunk(self, run: _Run) -> Job[Any]:
        """Submit some more steps of a training."""
        executor, trainer = self.plan.executor, run.trainer
        run.sent_at = time.monotonic()
        if self.at_once == 1:
            return executor.submit(partial(trainer.run, run.chunk), in_place=True)
        again = self._maker(run.final, trainer.module, trainer.steps)
        return executor.submit(partial(_elsewhere, again, trainer.state_dict(), run.chunk))

    def _advance(self, run: _Run, job: Job[Any], at_once: int, step: Step) -> bool:
        """Take in what a chunk brought; return whether the training goes on."""
        final, trainer = run.final, run.trainer
        if isinstance(job.error, _OF_WORKERS):
            self._stay(job.error)
            return True
        try:
            cost = self._taken_in(run, job)
            taken, run.told = trainer.step - run.told, trainer.step
            run.seconds += cost.wall_s / at_once
            run.samples += cost.samples
            step.done += taken
            judged = self._judged(trainer) if trainer.done else None
        except Exception as error:  # of the user's loss, metric or module; no write is in there
            self.study.add_failure("finalists", final.trial, str(error), traceback.format_exc())
            if may_pass(error):  # the next call goes on from what was saved last
                step.checkpoint()
            else:
                self._save(run, "failed", {}, step)
            return False
        step.tell(final.key)
        if judged is not None:
            state, network, figures = judged
            self._save(run, "done", figures, step, state)
            self.networks[final.key], self.results[final.key] = network, figures
            return False
        sending_s = time.monotonic() - run.sent_at - cost.wall_s
        aim_s = min(max(_TURN_S, sending_s / _SENDING), _MOST_TURN_S)
        per_step_s = max(cost.wall_s / taken, 1e-6)
        run.chunk = max(1, min(4 * run.chunk, int(aim_s / per_step_s)))
        if time.monotonic() - run.saved_at >= _SAVE_EVERY_S:
            self._save(run, "running", {}, step)
        return True

    def _stay(self, error: BaseException) -> None:
        """Train in this process from now on, and say why."""
        if not self._here:
            self._here = True
            self.steps.note(f"finalists are trained one at a time, in this process: {error}")

    def _taken_in(self, run: _Run, job: Job[Any]) -> Cost:
        if job.in_place:
            cost: Cost = job.result()
            return cost
        state, cost = job.result()
        run.trainer.load_state_dict(state)
        return cost

    def _judged(self, trainer: Trainer) -> tuple[dict[str, Any], nn.Module, dict[str, float]]:
        """Return the state, the network and the figures of a training that has come to its end."""
        state = trainer.state_dict()
        network = trainer.finish()
        return state, network, self._validated(network)

    def _validated(self, network: nn.Module) -> dict[str, float]:
        task, size = self.plan.task, self.recipe.evaluation_batch
        figures = evaluate(network, task.valid.batches(size, device=self.plan.train_on), task)
        if not (math.isfinite(figures["loss"]) and math.isfinite(task.score_of(figures))):
            raise NotFinite(
                f"the trained network's validation figures are {figures}; look for targets of the "
                "validation split that are NaN or infinite"
            )
        return figures  # another metric may be undefined, and is only told

    def _save(
        self,
        run: _Run,
        state: str,
        figures: Mapping[str, float],
        step: Step,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the training state under a new name, then book it and the cost at once."""
        final, trainer = run.final, run.trainer
        name = f"weights/{final.key}-{trainer.step}-{state}.safetensors"
        old = self.study.finalist(final.key)
        save_tensors(self.plan.out / name, weights or trainer.state_dict())
        macs = 3 * run.samples * round(self.measures("macs", final.architecture))
        self.study.save_finalist(
            final.key, trial=final.trial, seed=final.seed, state=state,
            metrics={**figures, "training_s": run.seconds}, weights=name, steps=trainer.step,
            architecture=final.architecture.to_json(),
            cost=Cost(step.lap(), run.samples, macs, self.plan.train_on),
        )  # fmt: skip
        step.checkpoint()
        run.samples, run.saved_at = 0, time.monotonic()
        if old is not None and old["weights"] not in ("", name):
            (self.plan.out / old["weights"]).unlink(missing_ok=True)

    # --- a trainer ----------------------------------------------------------------------------

    def _network(self, final: Final) -> nn.Module:
        if self.plan.finalists.weights == "supernet":  # those trained for comparison, too
            return self.plan.space.build(final.architecture)
        return self.plan.space.fresh(final.architecture, self._seed(final))

    def _seed(self, final: Final) -> int:
        return int(derive(self.plan.seed, "finalist", final.seed).integers(2**31))

    def _maker(self, final: Final, network: nn.Module, steps: int) -> Callable[[], Trainer]:
        """Return what makes a trainer, here or in another process, which gets no test split."""
        task = self.plan.task
        return partial(
            Trainer, network, task.over(task.train, task.valid), self.recipe, steps=steps,
            device=self.plan.train_on, seed=self._seed(final),
        )  # fmt: skip

    def _timer(self, final: Final, most_s: float) -> Callable[[], float]:
        """Return what times a step of a training, here or in another process."""
        try:
            network = self._network(final)
        except Exception:  # it is recorded when it is to be trained
            return float
        return partial(timed, self._maker(final, network, 10**9), most_s)


def _elsewhere(
    maker: Callable[[], Trainer], state: Mapping[str, Any], count: int
) -> tuple[dict[str, Any], Cost]:
    """Take some more steps; return the state after them, of which nothing is on a device."""
    trainer = maker()
    trainer.load_state_dict(state)
    cost = trainer.run(count)
    after = trainer.state_dict()
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in after.items()}, cost
