"""The last step: the best by score are measured whole, trained for real, and one is handed back."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.cost import derive
from assay.errors import AssayError, InvalidSetting, NotFinite, SpaceExhausted
from assay.report.units import duration
from assay.run.allot import share_of, together
from assay.run.steps import Step
from assay.run.trainings import Final, Trainings
from assay.run.workflow import Workflow
from assay.train.recipe import Recipe

__all__ = ["Selection"]

_MOST_MEASURED = 60
_TIMING_SHARE = 0.03  # of the budget, for timing the steps of all
_DRAWN = 500  # at most, until one holds the limits


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
        self.trained = Trainings(workflow, self.recipe)
        self._others: list[Final] = []

    def run(self, step: Step) -> tuple[Final, nn.Module]:
        """Return the winner and its trained network; `trained` then has all, and their figures.

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
        self.trained.run(chosen, counts["steps"], step)
        self._others = [f for f in others if f.key in self.trained.results]
        winner = self._winner(finals)
        return winner, self.trained.networks[winner.key]

    def compared(self) -> list[tuple[Final, nn.Module]]:
        """Return the networks that were trained for comparison only."""
        return [(final, self.trained.networks[final.key]) for final in self._others]

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
                "whole network was measured; raise the limit or search for longer, in a new "
                "folder, and leave the machine to it"
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
        limit = self.flow.aims.limits.get("latency_ms")
        if limit is not None and latency.median_ms > limit:
            latency = replace(latency, median_ms=min(latency.median_ms, self._again_ms(network)))
        detail = {
            "macs": self.flow.measures("macs", architecture),
            "parts_ms": self.flow.table.layers_ms(architecture),
        }
        self.study.add_measurement(
            text, "latency_ms", latency.median_ms, source="measured", trial=trial,
            detail={**latency.to_dict(), **detail},
        )  # fmt: skip
        return float(latency.median_ms)

    def _again_ms(self, network: nn.Module) -> float:
        """Measure in rounds what seemed over the limit: a slow moment may have met all its runs."""
        device = self.plan.target
        with device.ready():
            (median_ms,) = device.medians_ms([device.runner(network, self.flow.example)])
        return median_ms

    def _comparison(self) -> list[Final]:
        space = self.plan.space
        return [
            Final("largest", space.largest(), 0),
            Final("smallest", space.smallest(), 0),
            Final("random", self._random(), 0),
        ]

    def _random(self) -> Architecture:
        """Draw an architecture as a search without scores would: the first within the limits.

        Where none of many holds them it is the first of all, which the tables then mark.
        """
        space, rng = self.plan.space, derive(self.plan.seed, "comparison")
        first = point = space.canonical(space.sample(rng))
        for _ in range(_DRAWN):
            if self._holds(point):
                return point
            point = space.canonical(space.sample(rng))
        return first

    def _holds(self, architecture: Architecture) -> bool:
        try:
            return self.flow.aims.check(architecture, self.flow.measures)[1] == 0
        except (InvalidSetting, NotFinite):  # of a user's function, as in the search
            return False

    # --- how long -----------------------------------------------------------------------------

    def _counts(self, finals: Sequence[Final]) -> dict[str, int]:
        """Return how many of the networks are trained, and the steps of each.

        They are counted, or what the time left allows: the best first, and those for comparison
        last. A network more shortens the training of each, so no more are trained than for the
        whole recipe, or for as many epochs as there are networks: four for four epochs each.
        """
        budget, known = self.plan.budget, self.study.phase("finalists").counts
        epoch = self.plan.task.steps_per_epoch(self.recipe.batch_size)
        steps, networks = epoch * (budget.epochs or self.recipe.epochs), len(finals)
        if not known and budget.seconds is not None:
            times_s = self.trained.step_seconds(finals, _TIMING_SHARE * budget.seconds)
            left_s = self.flow.left_s()
            share_s = share_of("finalists", left_s)
            at_once = self.trained.at_once
            step_s = [together(times_s[: n + 1], at_once) for n in range(networks)]
            fit = sum(
                min(steps, epoch * n) * each <= share_s for n, each in enumerate(step_s, start=1)
            )
            # An epoch of the best is trained in any case: without it nothing was found.
            networks = max(1, fit)
            if not fit:
                over_s = epoch * step_s[0] - min(share_s, left_s)
                self.flow.steps.note(
                    "there is no time for an epoch of a finalist: the best alone is trained for "
                    "one, which exceeds what the budget has left for it by about "
                    f"{duration(over_s)}; a larger budget trains more"
                )
            elif networks < len(finals):
                self.flow.steps.note(
                    f"{len(finals)} networks are to be trained, and the time is spent on the first "
                    f"{networks}: with the others each would be trained for less than the recipe, "
                    "and for fewer epochs than there are networks; a larger budget trains them too"
                )
            each = int(share_s / max(step_s[networks - 1], 1e-9))
            steps = min(steps, max(each, epoch))
        return dict(known or self.study.plan("finalists", {"steps": steps, "networks": networks}))

    # --- choosing -----------------------------------------------------------------------------

    def _winner(self, finals: Sequence[Final]) -> Final:
        """Return the architecture best on average over its seeds, with its best seed.

        Of one that came through with fewer seeds than another the mean would be too good.
        """
        task = self.plan.task
        by_trial: dict[int, list[tuple[float, Final]]] = {}
        for final in finals:
            if final.key in self.trained.results and final.trial is not None:
                score = task.score_of(self.trained.results[final.key])
                by_trial.setdefault(final.trial, []).append((score, final))
        if not by_trial:
            raise AssayError(
                "every finalist's training failed; see the failures in the report, and lower the "
                "recipe's learning rate if they are NaN"
            )
        best = max(
            by_trial.values(), key=lambda runs: (len(runs), statistics.fmean(s for s, _ in runs))
        )
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
