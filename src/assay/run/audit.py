"""`audit`: how far each estimator can be trusted on one task, and what it costs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from assay.architecture import Architecture
from assay.contracts import Estimator, Executor
from assay.cost import Budget
from assay.errors import InvalidSetting, nearest
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.report.audit import write_audit
from assay.run import names
from assay.run.arguments import refuse_wrong_types
from assay.run.audit_plan import AuditPlan
from assay.run.auditing import BASELINES, Audit, Auditing
from assay.run.events import Listener, silent
from assay.run.face import training_device
from assay.run.limits import Quantity
from assay.run.live import Live
from assay.run.plan import versions
from assay.run.refusals import refuse_broken_paths
from assay.run.steps import Steps
from assay.run.truths import check_published
from assay.space.space import Space
from assay.study.store import Study
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["audit"]


def audit(
    space: Space,
    task: Task,
    *,
    estimators: Sequence[str | Estimator] | Mapping[str, str | Estimator] = ("all",),
    num: int = 40,
    seeds: int = 2,
    budget: str | float | Budget = "1h",
    out: str | Path | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    truths: Mapping[Architecture, float] | None = None,
    train_on: str = "auto",
    executor: str | Executor = "inline",
    limits: Mapping[Quantity, float | str] | None = None,
    target: Device | None = None,
    table: str | Path | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    on_event: Listener = silent,
    origin: Mapping[str, Any] | None = None,
) -> Audit:
    """Hold estimators against the truth on a user's own task, and say which to use.

    A sample of distinct architectures, spread over the space's MACs, is trained by the whole recipe
    over some seeds; its mean score on the validation split is the truth. Under limits it is drawn
    from what holds them: what tells large networks from small ones may be of no use there. Then
    every estimator prepares and scores the same architectures; none sees a truth. Parameters and
    MACs are rows of the same table. The same call on the same folder continues; with more
    architectures, seeds or estimators the folder's audit grows, and no truth is trained twice. What
    is kept of a row holds for the settings of its estimator: set otherwise, it is prepared and
    scored anew, and a note tells the difference. Settings are the fields of a dataclass; of another
    object they are what `assay.options.options_of` can tell.

    An estimator that raises counts against itself, with its traceback among the failures, and the
    audit goes on.

    Args:
        space: What is audited on.
        task: Data, loss and score.
        estimators: Names or objects; "all" for every name there is. A mapping names each row of
            the table: {"small": Hypernet(hidden=8), "large": Hypernet(hidden=64)}.
        num: Architectures with a truth.
        seeds: Trainings of each, which tell the noise of the truth.
        budget: A time for everything ("3h"): half of it for the truths; of what is left then,
            the scoring of all estimators is set aside, and each prepares for an equal part of the
            rest. Or counts: "steps=300,epochs=4" for each estimator's preparation and each
            truth's training.
        out: Folder of the audit; None for a new one under `runs/`.
        seed: Names every random draw.
        recipe: How truths are trained; `epochs` are the most that a time budget gives each.
        truths: Published truths by canonical architecture, higher is better, in place of training;
            the sample is drawn from them.
        train_on: "cpu", "cuda", or "auto".
        executor: Name or object that runs trainings.
        limits: Quantity -> largest value allowed in the sample, or "median" for that of random
            architectures, as in `assay.search`.
        target: Where `latency_ms` is measured, if that is limited; None for `Device()`.
        table: A latency table of this space and target, in place of measuring one.
        settings: Options of estimators given by name: {"one-shot": {"paths": "fair"}}.
        on_event: Called with an `Event` whenever something happens.
        origin: How to name the space and task again, kept as text.
    Returns:
        Table, verdict and folder.
    Raises:
        InvalidSetting: a name, option or number that does not exist or fit; a row named like a
            baseline; published truths of fewer architectures than asked for, or that are no finite
            numbers of distinct canonical architectures of the space; a budget that pays for no
            epoch of each truth, or not for so many more; a limit that is unknown or no positive
            number, or that a user's function cannot tell.
        SpaceExhausted: none of many random architectures holds the limits.
        ForeignMachine: the table is of another machine or target.
        InvalidSpace: a path of the model does not run or differs from its network; see
            `assay.run.refusals.refuse_broken_paths`.
        InvalidStudy: `out` holds something else, an audit of another space, task or recipe, of
            other published truths, or truths of other epochs than the budget names; or fewer than
            two truths could be trained.
    """
    refuse_wrong_types(locals())
    if num < 2 or seeds < 1:
        raise InvalidSetting(
            f"an audit of num={num} architectures by seeds={seeds}: num must be at least 2, and "
            "seeds at least 1"
        )
    if truths is not None and len(truths) < num:
        raise InvalidSetting(
            f"{len(truths)} published truths for a sample of {num}; give more, or a smaller num"
        )
    if table is not None and "latency_ms" not in (limits or {}):
        raise InvalidSetting(
            f"table={str(table)!r} serves a limit on latency_ms, which is not given; add one "
            "(--limit latency_ms=VALUE, limits={'latency_ms': VALUE}), or leave the table out"
        )
    space.example = task.example(1)  # on which it can tell which architectures are one network
    if truths is not None:
        check_published(space, truths)
    chosen = _named(estimators, settings or {})
    plan = AuditPlan(
        space, task, recipe or Recipe(), chosen, num, seeds, Budget.parse(budget),
        Path(out) if out is not None else Path("runs") / f"audit-{datetime.now():%Y%m%d-%H%M%S}",
        seed, truths, training_device(train_on),
        names.resolve("executor", names.EXECUTORS, executor), dict(limits or {}),
        target or Device(), None if table is None else Path(table), dict(origin or {}),
    )  # fmt: skip
    for quantity in plan.limits:
        if not callable(quantity):
            Measures.check_name(quantity)
    refuse_broken_paths(space, task, seed=seed)
    with Study.open(
        plan.out, identity=plan.identity(), settings={"audit": True, **plan.origin}
    ) as study:
        study.begin_session(versions())
        page = plan.out / "report.html"
        live = Live(partial(write_audit, study, page, live=True), on_event)
        auditing = Auditing(plan, study, Steps(study, live))
        try:
            sample = auditing.settle()  # a question that is refused is not kept
            # What is asked may grow from call to call; the settings above stay those of the first.
            study.put("asked", {
                "num": num, "seeds": seeds, "budget": str(plan.budget),
                "estimators": list(chosen), **plan.origin,
            })  # fmt: skip
            found = auditing.run(sample)
        except Exception:
            study.withdraw()  # what is refused at its beginning leaves the folder as it was
            raise
        study.end_session()
        write_audit(study, page)  # which tells how the session ended
    return found


def _named(
    given: Sequence[str | Estimator] | Mapping[str, str | Estimator],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Estimator]:
    """Return the estimators by name; one given twice, or an object, is numbered."""
    if isinstance(given, Mapping):
        wanted = list(given.items())
    else:
        several = [n for g in given for n in (names.ESTIMATORS if g == "all" else (g,))]
        wanted = [(one if isinstance(one, str) else type(one).__name__, one) for one in several]
    chosen: dict[str, Estimator] = {}
    for i, (name, one) in enumerate(wanted):
        if name in BASELINES:
            raise InvalidSetting(
                f"a row named {name!r} would stand in place of the baseline; give another name"
            )
        made = names.resolve("estimator", names.ESTIMATORS, one, settings.get(name))
        chosen[name if name not in chosen else f"{name} {i}"] = made
    for name in settings:
        if name not in chosen:
            raise InvalidSetting(
                f"settings of {name!r}, which is not audited; {nearest(name, chosen)}"
            )
    return chosen
