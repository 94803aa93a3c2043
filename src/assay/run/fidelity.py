"""How far the scores of a finished search can be trusted: some of its trials, trained for real."""

from __future__ import annotations

import itertools
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Context, History, Job, Trial
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, InvalidStudy, NotFinite, Unwritable, reason
from assay.estimators.training import Trained, Training, run_each
from assay.hardware.measures import Measures
from assay.report.html import write_report
from assay.run.auditing import BASELINES, Audit, baselines
from assay.run.failing import may_pass
from assay.run.names import ESTIMATORS, name_of
from assay.run.plan import Plan, versions
from assay.study.store import Study
from assay.trust.claims import CLAIMS
from assay.trust.stratify import stratified
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict

__all__ = ["fidelity"]

_FAILED: Mapping[str, Any] = {"figures": None, "seconds": 0.0}


def fidelity(plan: Plan, trials: Sequence[Trial], *, num: int, seeds: int = 1) -> Audit:
    """Hold a search's scores against trained networks: its finalists and a sample of its trials.

    The sample is spread over the scores. Each is trained as the finalists were, from scratch, and
    its score on the validation split is its truth: the mean over the seeds. What was trained before
    is not trained again. A training that fails leaves its trial out, and is listed among the
    failures. Of halving, those trained longest are judged, and what a score costs includes the
    rungs below. The search's report shows the table from then on.

    Args:
        plan: Of the search.
        trials: All its trials.
        num: Trials of the sample, beside the finalists.
        seeds: Trainings of each; with two or more the table has a noise ceiling.
    Returns:
        The table, with parameters and MACs as rows beside the estimator's; its verdict; the folder.
    Raises:
        InvalidSetting: fewer than one seed.
        InvalidStudy: the search has not finished, fewer than two of its trials have a score, or
            fewer than two could be trained.
    """
    if seeds < 1:
        raise InvalidSetting(f"seeds={seeds} must be at least 1")
    with Study.open(
        plan.out, identity=plan.identity(), settings=plan.settings(), url=plan.url
    ) as study:
        study.begin_session(versions())
        if study.get("winner") is None:
            raise InvalidStudy(f"{plan.out} has not finished; run the same search again, then ask")
        chosen = _chosen(plan, trials, study, num)
        truths = _truths(plan, chosen, study, seeds)
        if len(truths) < 2:
            raise InvalidStudy(
                f"{len(truths)} of {len(chosen)} trials could be trained, and 2 are the least to "
                f"compare; see the failures in {plan.out}"
            )
        kept = [t for t in chosen if str(t.number) in truths]
        table = _table(plan, kept, truths, study, seeds)
        said = verdict(table)
        study.put("fidelity", {"table": table.to_json(), "verdict": said, "truths": truths})
        study.end_session()
        write_report(study, plan.out / "report.html")  # which tells how the session ended
    return Audit(table, said, plan.out)


def _chosen(plan: Plan, trials: Sequence[Trial], study: Study, num: int) -> list[Trial]:
    """Return the finalists' trials and a sample of the others of as long a training."""
    scored = [t for t in trials if t.state == "scored"]
    longest = max((t.fidelity for t in scored), default=1.0)
    scored = [t for t in scored if t.fidelity == longest]
    if len(scored) < 2:
        raise InvalidStudy(
            f"{plan.out} has {len(scored)} scored trials; 2 are the least to compare: search on "
            "with more trials or a larger budget"
        )
    finalists = {row["trial"] for row in study.finalists()}
    first = [t for t in scored if t.number in finalists]
    rest = [t for t in scored if t.number not in finalists]
    values = [_score(t) for t in rest]
    rng = derive(plan.seed, "fidelity")
    return first + [rest[i] for i in stratified(values, min(num, len(rest)), rng=rng)]


def _truths(
    plan: Plan, chosen: Sequence[Trial], study: Study, seeds: int
) -> dict[str, list[float]]:
    """Return the scores on validation of each trial trained as the finalists were, by its number.

    Each is trained once with each seed, as many at once as the executor can. One of which a
    training failed, then or before, is left out: a mean over the others would be too good.
    """
    left = []
    for seed, trial in itertools.product(range(seeds), chosen):
        if study.get(_key(trial, seed)) is None:
            known = _of_finalist(plan, trial, seed, study)
            if known is None:
                left.append((trial, seed))
            else:
                _keep(plan, trial, seed, study, partial(dict, known))
    ctx = Context(
        plan.space, plan.task, plan.recipe, plan.executor, plan.train_on, plan.seed,
        History(plan.space),
    )  # fmt: skip
    for i, job in run_each(ctx, left, partial(_training, plan, study)):
        _keep(plan, *left[i], study, partial(_trained, plan, study, job))
    kept = {
        str(t.number): [(study.get(_key(t, s)) or _FAILED)["figures"] for s in range(seeds)]
        for t in chosen
    }
    return {
        number: [plan.task.score_of(figures) for figures in of]
        for number, of in kept.items()
        if None not in of
    }


def _keep(
    plan: Plan, trial: Trial, seed: int, study: Study, outcome: Callable[[], Mapping[str, Any]]
) -> None:
    """Keep what came of a training, or that nothing did; not what another time may."""
    try:
        known = outcome()
        score = plan.task.score_of(known["figures"])
        if not np.isfinite(score):
            raise NotFinite(f"its {plan.task.score} is {score}")
    except Unwritable:  # the booking of it, which is no fault of the training's
        raise
    except Exception as error:  # the others are compared without it
        study.add_failure("fidelity", trial.number, reason(error), traceback.format_exc())
        if may_pass(error):
            return
        known = _FAILED
    study.put(_key(trial, seed), known)


def _of_finalist(plan: Plan, trial: Trial, seed: int, study: Study) -> dict[str, Any] | None:
    """Return what a finalist's own training gave, unless it began with the supernet's weights."""
    if plan.finalists.weights != "scratch":
        return None
    for row in study.finalists():
        if row["trial"] == trial.number and row["state"] == "done" and row["seed"] == seed:
            figures = {k: v for k, v in row["metrics"].items() if k != "training_s"}
            return {"figures": figures, "seconds": row["metrics"]["training_s"]}
    return None


def _training(plan: Plan, study: Study, one: tuple[Trial, int]) -> Training:
    trial, seed = one
    steps = int(study.phase("finalists").counts["steps"])
    drawn = int(derive(plan.seed, "finalist", seed).integers(2**31))
    network = plan.space.fresh(trial.architecture, drawn)
    recipe = plan.finalists.recipe or plan.recipe
    task = plan.task.over(plan.task.train, plan.task.valid)  # the search has opened the test split
    return Training(network, task, recipe, steps, steps, plan.train_on, drawn)


def _trained(plan: Plan, study: Study, job: Job[Trained]) -> dict[str, Any]:
    """Return what a training gave, and book it; those that run at once share their seconds."""
    trained = job.result()
    seconds = trained.cost.wall_s / plan.executor.at_once
    study.book("fidelity", replace(trained.cost, wall_s=seconds))
    if trained.diverged:
        raise NotFinite(trained.diverged)
    return {"figures": dict(trained.figures), "seconds": seconds}


def _table(
    plan: Plan,
    chosen: Sequence[Trial],
    truths: Mapping[str, Sequence[float]],
    study: Study,
    seeds: int,
) -> Table:
    name = type(plan.estimator).__name__
    measures = Measures(plan.space, plan.target, plan.task.example(plan.target.batch))
    scores, costs = baselines(measures, {str(t.number): t.architecture for t in chosen})
    scores[name] = {str(t.number): _score(t) for t in chosen}
    kind = name_of(ESTIMATORS, plan.estimator)
    costs[name] = Price(study.ledger().get("train", Cost()).wall_s, _each_s(chosen, study), kind)
    seconds = [study.get(_key(t, seed))["seconds"] for t in chosen for seed in range(seeds)]
    return Table.make(
        truths, scores, costs, baselines=BASELINES, claims=CLAIMS,
        train_s=sum(seconds) / len(seconds), seed=plan.seed,
    )  # fmt: skip


def _each_s(chosen: Sequence[Trial], study: Study) -> float:
    """Return the seconds of scoring one of these, those of the rungs below its own included.

    The seconds of all scoring are shared out by what each estimate says that it took, so that
    estimates which ran at once share them, too; evenly where none says anything.
    """
    costs = [(t.architecture, t.estimate.cost.wall_s) for t in study.trials() if t.estimate]
    told = any(cost_s for _, cost_s in costs)
    spent_s: dict[Architecture, float] = defaultdict(float)
    for architecture, cost_s in costs:
        spent_s[architecture] += cost_s if told else 1.0
    share = sum(spent_s[t.architecture] for t in chosen) / sum(spent_s.values())
    return share * study.ledger()["score"].wall_s / len(chosen)


def _key(trial: Trial, seed: int) -> str:
    return f"fidelity {trial.number}" + f" {seed}" * bool(seed)


def _score(trial: Trial) -> float:
    assert trial.estimate is not None
    return trial.estimate.score
