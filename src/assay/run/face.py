"""`search`: the whole of Assay behind one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from assay.contracts import Estimator, Executor, Strategy
from assay.cost import Budget
from assay.errors import InvalidSetting, nearest
from assay.hardware.device import Device
from assay.hardware.measures import COSTS, Measures
from assay.report.html import write_report
from assay.run import names
from assay.run.arguments import refuse_wrong_types
from assay.run.ending import finish
from assay.run.events import Listener, silent
from assay.run.limits import Aims, Quantity
from assay.run.live import Live
from assay.run.plan import Finalists, Plan, versions
from assay.run.result import Result
from assay.run.steps import Steps
from assay.run.workflow import Workflow
from assay.space.space import Space
from assay.study.store import Study
from assay.train.recipe import Recipe
from assay.train.task import Task

__all__ = ["search", "training_device"]


def search(
    space: Space,
    task: Task,
    *,
    estimator: str | Estimator = "one-shot",
    strategy: str | Strategy = "evolution",
    limits: Mapping[Quantity, float | str] | None = None,
    objectives: Sequence[Quantity] = ("score", "-latency_ms"),
    budget: str | float | Budget = "10min",
    out: str | Path | None = None,
    seed: int = 0,
    target: Device | None = None,
    train_on: str = "auto",
    recipe: Recipe | None = None,
    finalists: Finalists | None = None,
    executor: str | Executor = "inline",
    on_event: Listener = silent,
    table: str | Path | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    study_url: str | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Result:
    """Find a network of a space under limits, train it, and hand it back with its report.

    Six steps: build the supernet, train it once, measure the hardware, search, score instantly,
    train finalists. All of it is kept in `out`; the same call on the same folder continues.

    Args:
        space: What may be chosen.
        task: What is learned, and the score that ranks.
        estimator: Name or object that says what an architecture is worth.
        strategy: Name or object that proposes.
        limits: Quantity -> largest value allowed, or "median" for the median over the space. A
            quantity is `latency_ms`, `macs`, `params`, `memory_bytes`, `model_bytes` or a user's
            f(module) -> float, which gets the network on the CPU, in eval mode, and must return a
            finite number. Its values are kept under its name; a lambda has none and is refused, a
            `functools.partial` has that of what it calls, an object of a class with `__call__`
            that of the class.
        objectives: What is maximised; a leading "-" minimises. `result.front()` is of these; the
            finalists are the best by score.
        budget: For all steps together: a time ("20min"), counts ("steps=300,trials=50,epochs=4"),
            or a time and no more than such counts ("20min,trials=500"). With counts alone, a saved
            table and one thread count, the same seed gives the same bits.
        out: Folder of the study; None for a new one under `runs/`.
        seed: Names every random draw.
        target: Where the network will run; by default ONNX Runtime, one thread, batch 1.
        train_on: "cpu", "cuda", "cuda:1" for the second device, or "auto" for CUDA where there is
            a device.
        recipe: How weights are trained.
        finalists: How many of the best are trained for real, and how.
        executor: Name or object that runs trainings and scorings.
        on_event: Called with an `Event` whenever something happens.
        table: A saved latency table of this space and target, in place of measuring one.
        settings: Options of what is given by name: {"estimator": {"paths": "fair"}}.
        study_url: SQLAlchemy URL of the study's database; by default SQLite in `out`.
        origin: How to name the space and task again, kept as text for `resume`.
    Returns:
        The result; `result.best()` is the trained network.
    Raises:
        InvalidSetting: a name, option, limit or budget that does not exist or fit, or a user's
            function that cannot measure the smallest or the largest network.
        InvalidStudy: `out` holds another search, is in use, or is no study.
        SpaceExhausted: no architecture within the limits.
        InvalidSpace: a path of the model does not run, or differs from its built network.
    """
    refuse_wrong_types(locals())
    given = {key: dict(value) for key, value in (settings or {}).items()}
    _refuse_unknown(given)
    target = _fields("target", target or Device(), given)
    plan = Plan(
        space=space,
        task=task,
        estimator=_named("estimator", names.ESTIMATORS, estimator, given),
        strategy=_named("strategy", names.STRATEGIES, strategy, given),
        executor=_named("executor", names.EXECUTORS, executor, given),
        limits=dict(limits or {}),
        objectives=tuple(objectives),
        budget=Budget.parse(budget),
        target=target,
        train_on=training_device(train_on),
        recipe=_fields("recipe", recipe or Recipe(), given),
        finalists=_fields("finalists", finalists or Finalists(), given),
        out=Path(out) if out is not None else Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}",
        seed=seed,
        table=None if table is None else Path(table),
        url=study_url,
        origin=origin,
    )
    _refuse_unmeasurable(plan)
    _refuse_idle_rungs(plan)
    plan = _with_paths(plan)
    _check(plan)
    with Study.open(
        plan.out, identity=plan.identity(), settings=plan.settings(), url=plan.url
    ) as study:
        study.begin_session(versions())
        page = plan.out / "report.html"
        live = Live(partial(write_report, study, page, live=True), on_event)
        try:
            history = _run(plan, study, live)
        except Exception:
            study.withdraw()  # what is refused at its beginning leaves the folder as it was
            raise
        study.end_session()
        write_report(study, page)  # which tells how the session ended
    return Result(plan.out, space, history, plan)


def _run(plan: Plan, study: Study, listener: Listener) -> list[Any]:
    workflow = Workflow(plan, study, Steps(study, listener))
    workflow.run()
    finish(workflow)
    return list(workflow.history)


def _named(
    kind: str, known: Mapping[str, str], value: Any, given: Mapping[str, dict[str, Any]]
) -> Any:
    return names.resolve(kind, known, value, given.get(kind))


def _fields(kind: str, value: Any, given: Mapping[str, dict[str, Any]]) -> Any:
    if kind not in given:
        return value
    return names.changed(kind, value, given[kind])


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = ("estimator", "strategy", "executor", "recipe", "finalists", "target")
    for kind in given:
        if kind not in known:
            raise InvalidSetting(f"unknown setting {kind!r}; {nearest(kind, known)}")


def _refuse_unmeasurable(plan: Plan) -> None:
    """Refuse unknown quantities before anything is written."""
    for objective in plan.objectives:
        if isinstance(objective, str):
            Measures.check_name(objective.removeprefix("-"), known=(*COSTS, "score"))
        if objective in ("latency_ms", "memory_bytes"):
            raise InvalidSetting(
                f"objective {objective!r} asks for as much of it as can be had; write "
                f"'-{objective}' for as little"
            )
    for quantity, value in plan.limits.items():
        if quantity == "score":
            raise InvalidSetting("'score' is what the search maximises and cannot be limited")
        if isinstance(quantity, str):
            Measures.check_name(quantity)
        if isinstance(value, str) and value != "median":
            raise InvalidSetting(f"limit {quantity}={value!r} must be a number or 'median'")
    numbers: dict[Quantity, float] = {
        q: v for q, v in plan.limits.items() if not isinstance(v, str)
    }
    Aims(numbers, plan.objectives, Measures.order)


def _with_paths(plan: Plan) -> Plan:
    """Let a strategy that learns bring its own paths to the supernet, and what these prefer."""
    paths = getattr(plan.strategy, "paths", None)
    if paths is None:
        return plan
    estimator: Any = plan.estimator
    if not hasattr(estimator, "paths"):
        raise InvalidSetting(
            f"the strategy {type(plan.strategy).__name__} learns while a supernet trains, and the "
            f"estimator {type(estimator).__name__} has none; use estimator='one-shot'"
        )
    own = {f.name: f.default for f in fields(estimator)} if is_dataclass(estimator) else {}
    if "paths" not in own:
        raise InvalidSetting(
            f"the strategy {type(plan.strategy).__name__} brings paths of its own, and the "
            f"estimator {type(estimator).__name__} cannot be given them: make it a dataclass with "
            "the field `paths`, or use estimator='one-shot'"
        )
    left_open = {name for name, default in own.items() if getattr(estimator, name) == default}
    # The strategy that was given was made anew, and its paths with it.
    settings = getattr(estimator.paths, "settings", None)
    alike = type(estimator.paths) is type(paths) and settings == plan.strategy
    if "paths" not in left_open and estimator.paths is not paths and not alike:
        raise InvalidSetting(
            f"estimator.paths={estimator.paths!r} is of no use to the strategy "
            f"{type(plan.strategy).__name__}, which brings paths of its own; leave it out, or use "
            "a strategy that has none, such as 'evolution'"
        )
    preferred = {k: v for k, v in getattr(paths, "prefers", {}).items() if k in left_open}
    return replace(plan, estimator=replace(estimator, paths=paths, **preferred))


def _check(plan: Plan) -> None:
    """Let the strategy refuse the space and the limits."""
    strategy: Any = plan.strategy
    if hasattr(strategy, "check"):
        strategy.check(plan.space)
    if hasattr(strategy, "check_limits"):
        strategy.check_limits(plan.limits)


def _refuse_idle_rungs(plan: Plan) -> None:
    """Refuse halving over scores that do not depend on how long anything was trained."""
    climbs = hasattr(plan.strategy, "rungs")
    if climbs and not getattr(plan.estimator, "heeds_fidelity", False):
        raise InvalidSetting(
            f"the strategy {type(plan.strategy).__name__} trains some architectures longer than "
            f"others, which {type(plan.estimator).__name__} cannot; use the estimator "
            "'low-fidelity' or 'scratch'"
        )


def training_device(given: str) -> str:
    """Return the torch device that "auto", "cpu", "cuda" or "cuda:1" means here.

    Raises:
        InvalidSetting: another word, or a CUDA device that is not there.
    """
    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(given)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:  # of torch, for what names no device
        known = False
    if not known:
        raise InvalidSetting(f"train_on={given!r}; {nearest(given, ['auto', 'cpu', 'cuda'])}")
    if device.type == "cpu":
        return given
    if not torch.cuda.is_available():
        raise InvalidSetting(f"train_on={given!r}, but torch sees no CUDA device; use 'cpu'")
    last = torch.cuda.device_count() - 1
    if device.index is not None and device.index > last:
        raise InvalidSetting(
            f"train_on={given!r}, but the last CUDA device is 'cuda:{last}'; use one that is there"
        )
    return given
