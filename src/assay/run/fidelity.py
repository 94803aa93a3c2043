"""How far the scores of a finished search can be trusted: some of its trials, trained for real."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from assay.contracts import Trial
from assay.cost import Cost, derive
from assay.errors import InvalidStudy, NotFinite
from assay.estimators.training import Training
from assay.hardware.measures import Measures
from assay.report.html import write_report
from assay.run.auditing import BASELINES, Audit, baselines
from assay.run.failing import may_pass, reason
from assay.run.plan import Plan, versions
from assay.study.store import Study
from assay.trust.stratify import stratified
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict

__all__ = ["fidelity"]


def fidelity(plan: Plan, trials: Sequence[Trial], *, num: int) -> Audit:
    """Hold a search's scores against trained networks: its finalists and a sample of its trials.

    The sample is spread over the scores. Each is trained as the finalists were, from scratch, and
    its score on the validation split is its truth. What was trained before is not trained again. A
    training that fails leaves its trial out, and is listed among the failures. The search's report
    shows the table from then on.

    Args:
        plan: Of the search.
        trials: All its trials.
        num: Trials of the sample, beside the finalists.
    Returns:
        The table, with parameters and MACs as rows beside the estimator's; its verdict; the folder.
    Raises:
        InvalidStudy: the search has not finished, fewer than two of its trials have a score, or
            fewer than two could be trained.
    """
    with Study.open(
        plan.out, identity=plan.identity(), settings=plan.settings(), url=plan.url
    ) as study:
        study.begin_session(versions())
        if study.get("winner") is None:
            raise InvalidStudy(f"{plan.out} has not finished; run the same search again, then ask")
        chosen = _chosen(plan, trials, study, num)
        scores = {t.number: _truth(plan, t, study) for t in chosen}
        truths = {str(number): [score] for number, score in scores.items() if score is not None}
        if len(truths) < 2:
            raise InvalidStudy(
                f"{len(truths)} of {len(chosen)} trials could be trained, and 2 are the least to "
                f"compare; see the failures in {plan.out}"
            )
        kept = [t for t in chosen if str(t.number) in truths]
        table = _table(plan, kept, truths, study)
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
            f"{plan.out} has {len(scored)} scored trials; 2 are the least to compare"
        )
    finalists = {row["trial"] for row in study.finalists()}
    first = [t for t in scored if t.number in finalists]
    rest = [t for t in scored if t.number not in finalists]
    values = [_score(t) for t in rest]
    rng = derive(plan.seed, "fidelity")
    return first + [rest[i] for i in stratified(values, min(num, len(rest)), rng=rng)]


def _truth(plan: Plan, trial: Trial, study: Study) -> float | None:
    """Return the score on validation of a trial trained as the finalists were, trained once.

    None where its training failed, then or before.
    """
    known = study.get(f"fidelity {trial.number}")
    if known is None:
        try:
            known = _of_finalist(plan, trial, study) or _trained(plan, trial, study)
            score = plan.task.score_of(known["figures"])
            if not np.isfinite(score):
                raise NotFinite(f"its {plan.task.score} is {score}")
        except Exception as error:  # the others are compared without it
            study.add_failure("fidelity", trial.number, reason(error), traceback.format_exc())
            if may_pass(error):
                return None
            known = {"figures": None, "seconds": 0.0}
        study.put(f"fidelity {trial.number}", known)
    return None if known["figures"] is None else plan.task.score_of(known["figures"])


def _of_finalist(plan: Plan, trial: Trial, study: Study) -> dict[str, Any] | None:
    """Return what a finalist's own training gave, unless it began with the supernet's weights."""
    if plan.finalists.weights != "scratch":
        return None
    for row in study.finalists():
        if row["trial"] == trial.number and row["state"] == "done" and row["seed"] == 0:
            figures = {k: v for k, v in row["metrics"].items() if k != "training_s"}
            return {"figures": figures, "seconds": row["metrics"]["training_s"]}
    return None


def _trained(plan: Plan, trial: Trial, study: Study) -> dict[str, Any]:
    steps = int(study.phase("finalists").counts["steps"])
    seed = int(derive(plan.seed, "finalist", 0).integers(2**31))
    network = plan.space.fresh(trial.architecture, seed)
    recipe = plan.finalists.recipe or plan.recipe
    job = plan.executor.submit(
        Training(network, plan.task, recipe, steps, steps, plan.train_on, seed)
    )
    for ended in plan.executor.gather([job]):
        ended.result()
    trained = job.result()
    study.book("fidelity", trained.cost)
    return {"figures": dict(trained.figures), "seconds": trained.cost.wall_s}


def _table(
    plan: Plan, chosen: Sequence[Trial], truths: Mapping[str, Sequence[float]], study: Study
) -> Table:
    name = type(plan.estimator).__name__
    ledger = study.ledger()
    scored = sum(t.state == "scored" for t in study.trials())
    measures = Measures(plan.space, plan.target, plan.task.example(plan.target.batch))
    scores, costs = baselines(measures, {str(t.number): t.architecture for t in chosen})
    scores[name] = {str(t.number): _score(t) for t in chosen}
    costs[name] = Price(
        ledger.get("train", Cost()).wall_s, ledger.get("score", Cost()).wall_s / max(1, scored)
    )
    seconds = [study.get(f"fidelity {t.number}")["seconds"] for t in chosen]
    return Table.make(
        truths, scores, costs, baselines=BASELINES, train_s=sum(seconds) / len(seconds),
        seed=plan.seed,
    )  # fmt: skip


def _score(trial: Trial) -> float:
    assert trial.estimate is not None
    return trial.estimate.score
