"""The last step: the best by score are measured whole, trained for real, and one is handed back."""

from __future__ import annotations

import math
import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.cost import Cost, derive
from assay.errors import AssayError, NotFinite, SpaceExhausted
from assay.run.allot import share_of
from assay.run.steps import Step
from assay.run.workflow import Workflow
from assay.train.files import load_tensors, save_tensors
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import evaluate

__all__ = ["Final", "Selection"]

_CHUNK_S = 1.0
_SAVE_EVERY_S = 5.0
_MOST_MEASURED = 60
_EVALUATION_BATCH = 256
_TIMING_SHARE = 0.03  # of the budget, for timing the steps of all


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


class Selection:
    """Trains finalists and chooses among them on the validation split.

    Args:
        workflow: Its search is done.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.flow = workflow
        self.plan = workflow.plan
        self.study = workflow.study
        self.recipe: Recipe = self.plan.finalists.recipe or self.plan.recipe
        self.results: dict[str, dict[str, float]] = {}
        self._networks: dict[str, nn.Module] = {}
        self._others: list[Final] = []
        self._seconds = 0.0

    def run(self, step: Step) -> tuple[Final, nn.Module]:
        """Return the winner and its trained network; `results` then has all validation figures.

        Raises:
            SpaceExhausted: no architecture holds the limits when measured whole.
            AssayError: every training failed.
        """
        trials = self._within_limits()
        finals = [
            Final("finalist", t.architecture, seed, t.number)
            for t in trials
            for seed in range(self.plan.finalists.seeds)
        ]
        others = self._comparison() if self.plan.finalists.compare else []
        counts = self._counts([*finals, *others])
        chosen = [*finals, *others][: counts["networks"]]
        step.total = counts["steps"] * len(chosen)
        for final in chosen:
            network, figures = self._trained(final, counts["steps"], step)
            if figures is not None:
                self._networks[final.key], self.results[final.key] = network, figures
        self._others = [f for f in others if f.key in self.results]
        winner = self._winner(finals)
        return winner, self._networks[winner.key]

    def compared(self) -> list[tuple[Final, nn.Module]]:
        """Return the networks that were trained for comparison only."""
        return [(final, self._networks[final.key]) for final in self._others]

    def seconds_each(self) -> float:
        """Return the mean seconds of one finalist's training."""
        rows = [
            r for r in self.study.finalists() if r["trial"] is not None and r["state"] == "done"
        ]
        return statistics.fmean(float(r["metrics"]["training_s"]) for r in rows)

    # --- who ----------------------------------------------------------------------------------

    def _within_limits(self) -> list[Trial]:
        """Return the best k by score whose whole networks, measured, hold every limit."""
        scored = [t for t in self.flow.history if t.state == "scored"]
        if not scored:
            failed = [t for t in self.flow.history if t.state == "failed"]
            reason = (failed[-1].error or "").strip().splitlines()[-1:] if failed else []
            raise AssayError(
                f"no architecture was scored, {len(failed)} failed, the last with: "
                f"{' '.join(reason)}; see the failures in the study"
            )
        # Scores of different lengths of training do not compare: the longest trained come first.
        ranked = sorted(scored, key=lambda t: (-t.fidelity, -_score(t), t.number))
        limit = self.flow.aims.limits.get("latency_ms")
        kept: list[Trial] = []
        for trial in _distinct(ranked)[:_MOST_MEASURED]:
            latency_ms = self.whole_latency(trial.architecture, trial.number)
            if limit is None or latency_ms <= limit:
                kept.append(trial)
            if len(kept) == self.plan.finalists.k:
                break
        if not kept:
            tried = min(len(ranked), _MOST_MEASURED)
            raise SpaceExhausted(
                f"none of the best {tried} architectures held latency_ms <= {limit:g} when its "
                "whole network was measured; raise the limit or search for longer"
            )
        return kept

    def whole_latency(self, architecture: Architecture, trial: int | None) -> float:
        """Measure a network whole, once; a resumed run obeys what is in the study."""
        text = architecture.to_json()
        for row in self.study.measurements("latency_ms", source="measured"):
            if row.architecture == text:
                return float(row.value)
        network = self.plan.space.build(architecture)
        latency = self.plan.target.latency(network, self.flow.example)
        detail = {
            "macs": self.flow.measures("macs", architecture),
            "parts_ms": self.flow.table.layers_ms(architecture),
        }
        self.study.add_measurement(
            text, "latency_ms", latency.median_ms, source="measured", trial=trial,
            detail={**latency.to_dict(), **detail},
        )  # fmt: skip
        return float(latency.median_ms)

    def _comparison(self) -> list[Final]:
        space = self.plan.space
        drawn = space.canonical(space.sample(derive(self.plan.seed, "comparison")))
        return [
            Final("largest", space.largest(), 0),
            Final("smallest", space.smallest(), 0),
            Final("random", drawn, 0),
        ]

    # --- how long -----------------------------------------------------------------------------

    def _counts(self, finals: Sequence[Final]) -> dict[str, int]:
        """Return how many of the networks are trained, and the steps of each.

        They are counted, or what the time left allows: as many as an epoch of each fits in, the
        best first, and those for comparison last.
        """
        budget, known = self.plan.budget, self.study.phase("finalists").counts
        epoch = self.plan.task.steps_per_epoch(self.recipe.batch_size)
        steps, networks = epoch * (budget.epochs or self.recipe.epochs), len(finals)
        if not known and budget.seconds is not None:
            most_s = _TIMING_SHARE * budget.seconds / len(finals)
            times_s = [self._step_seconds(final, most_s) for final in finals]
            share_s = share_of("finalists", self.flow.left_s())
            fits = [epoch * sum(times_s[: n + 1]) <= share_s for n in range(networks)]
            networks = max(1, sum(fits))
            if networks < len(finals):
                self.flow.steps.note(
                    f"{len(finals)} networks are to be trained, and there is time for an epoch of "
                    f"{networks}: the others are left out; a larger budget trains them too"
                )
            # An epoch of the best is trained in any case: without it nothing was found.
            each = int(share_s / max(sum(times_s[:networks]), 1e-9))
            steps = min(steps, max(each, epoch))
        return dict(known or self.study.plan("finalists", {"steps": steps, "networks": networks}))

    def _step_seconds(self, final: Final, most_s: float) -> float:
        try:
            return self._trainer(final, 10**9).step_seconds(most_s=most_s)
        except Exception:  # it fails when it is trained, and is recorded then
            return 0.0

    # --- training -----------------------------------------------------------------------------

    def _trainer(self, final: Final, steps: int) -> Trainer:
        plan = self.plan
        seed = int(derive(plan.seed, "finalist", final.seed).integers(2**31))
        if plan.finalists.weights == "supernet" and final.trial is not None:
            network = plan.space.build(final.architecture)
        else:
            network = plan.space.fresh(final.architecture, seed)
        return Trainer(
            network.to(plan.train_on), plan.task, self.recipe, steps=steps,
            device=plan.train_on, seed=seed,
        )  # fmt: skip

    def _trained(
        self, final: Final, steps: int, step: Step
    ) -> tuple[nn.Module, dict[str, float] | None]:
        """Train one network, or take up where an earlier run left it; None if it failed."""
        before = self.study.finalist(final.key) or {"state": "", "metrics": {}, "weights": ""}
        trainer = self._trainer(final, steps)
        if before["weights"]:
            trainer.load_state_dict(load_tensors(self.plan.out / before["weights"]))
        if before["state"] == "failed":
            return trainer.module, None
        if before["state"] == "done":
            figures = {k: v for k, v in before["metrics"].items() if k != "training_s"}
            return trainer.finish(), figures
        self._seconds = float(before["metrics"].get("training_s", 0.0))
        try:
            self._train(final, trainer, step)
            state = trainer.state_dict()
            network = trainer.finish()
            figures = self._validated(network)
        except Exception as error:  # of the user's loss or module; the others are trained still
            self.study.add_failure("finalists", final.trial, str(error), traceback.format_exc())
            self._save(final, trainer, "failed", {}, step)
            return trainer.module, None
        self._save(final, trainer, "done", figures, step, state)
        return network, figures

    def _validated(self, network: nn.Module) -> dict[str, float]:
        batches = self.plan.task.valid.batches(_EVALUATION_BATCH, device=self.plan.train_on)
        figures = evaluate(network, batches, self.plan.task)
        if not all(map(math.isfinite, figures.values())):
            raise NotFinite(f"the trained network's validation figures are {figures}")
        return figures

    def _train(self, final: Final, trainer: Trainer, step: Step) -> None:
        chunk, saved = 1, time.monotonic()
        while not trainer.done:
            job = self.plan.executor.submit(partial(trainer.run, chunk), in_place=True)
            before = trainer.step
            for ended in self.plan.executor.gather([job]):
                ended.result()
            taken, cost = trainer.step - before, job.result()
            self._seconds += cost.wall_s
            step.done += taken
            step.tell(final.key)
            chunk = max(1, min(4 * chunk, int(_CHUNK_S * taken / max(cost.wall_s, 1e-6))))
            if time.monotonic() - saved >= _SAVE_EVERY_S and not trainer.done:
                self._save(final, trainer, "running", {}, step)
                saved = time.monotonic()

    def _save(
        self,
        final: Final,
        trainer: Trainer,
        state: str,
        figures: Mapping[str, float],
        step: Step,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the training state under a new name, then book it and the cost at once."""
        name = f"weights/{final.key}-{trainer.step}-{state}.safetensors"
        old = self.study.finalist(final.key)
        save_tensors(self.plan.out / name, weights or trainer.state_dict())
        self.study.save_finalist(
            final.key, trial=final.trial, seed=final.seed, state=state,
            metrics={**figures, "training_s": self._seconds}, weights=name, steps=trainer.step,
            architecture=final.architecture.to_json(),
            cost=Cost(step.lap(), device=self.plan.train_on),
        )  # fmt: skip
        step.checkpoint()
        if old is not None and old["weights"] not in ("", name):
            (self.plan.out / old["weights"]).unlink(missing_ok=True)

    # --- choosing -----------------------------------------------------------------------------

    def _winner(self, finals: Sequence[Final]) -> Final:
        """Return the architecture best on average over its seeds, with its best seed."""
        task = self.plan.task
        by_trial: dict[int, list[tuple[float, Final]]] = {}
        for final in finals:
            if final.key in self.results and final.trial is not None:
                score = task.score_of(self.results[final.key])
                by_trial.setdefault(final.trial, []).append((score, final))
        if not by_trial:
            raise AssayError(
                "every finalist's training failed; see the failures in the report, and lower the "
                "recipe's learning rate if they are NaN"
            )
        best = max(by_trial.values(), key=lambda runs: statistics.fmean(s for s, _ in runs))
        return max(best, key=lambda run: run[0])[1]


def _score(trial: Trial) -> float:
    assert trial.estimate is not None
    return trial.estimate.score


def _distinct(ranked: Sequence[Trial]) -> list[Trial]:
    """Return the first trial of each architecture, in order."""
    found: dict[Architecture, Trial] = {}
    for trial in ranked:
        found.setdefault(trial.architecture, trial)
    return list(found.values())
