"""`assay search` and `assay resume`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from assay.cli.asked import (
    PROXIED,
    command_line,
    default_out,
    display,
    executor_asked,
    limits_asked,
    origin,
    plain,
    reach_own,
    read_settings,
    space_asked,
    stored,
    task_asked,
)
from assay.contracts import STEPS
from assay.errors import InvalidSetting

__all__ = ["resume", "search"]

_SECTIONS = ("estimator", "strategy", "recipe", "finalists", "target", "space", "task")


def search(
    *,
    task: str | None = None,
    space: str | None = None,
    model: str | None = None,
    data: Path | None = None,
    size: int | None = None,
    estimator: str = "one-shot",
    strategy: str = "evolution",
    limit: Annotated[list[str] | None, Parameter(negative="")] = None,
    objective: Annotated[
        list[str] | None, Parameter(negative="", allow_leading_hyphen=True)
    ] = None,
    budget: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    out: Path | None = None,
    seed: int = 0,
    train_on: str = "auto",
    workers: int = 1,
    proxy_task: str | None = None,
    table: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Search, train and hand back a network.

    Args:
        task: A ready task (`assay tasks`); by default digits.
        space: A ready space (`assay spaces`); by default mobile.
        model: Your own module with choices, "package.module:Class" or any callable that makes one.
        data: Your own folder of images, one sub-folder for each class.
        size: Side in pixels that images of --data are resized to, by default 32.
        estimator: Says what an architecture is worth: one-shot, zero-cost, low-fidelity, scratch,
            inherit, hypernet, predictor or fused; or your own "package.module:Class".
        strategy: Proposes: random, evolution, nsga2, halving, hyperband, asha, smash,
            reinforce, optuna:tpe, enas, darts or proxyless; or your own "package.module:Class".
        limit: NAME=VALUE, such as latency_ms=0.5; VALUE may be "median". Repeat for several; the
            search that names nothing has latency_ms=median.
        objective: What is maximised, "-" in front to minimise; by default score and -latency_ms.
        budget: For everything: "20min", counts such as "steps=300,trials=50,epochs=4", or both;
            by default 10min, and 110s for the search that names nothing.
        out: Folder of the study, by default runs/TASK-SPACE; the same command on the same folder
            continues.
        seed: Names every random draw.
        train_on: auto, cpu or cuda.
        workers: Trainings at once, each in a process of its own; 0 for as many as there are cores.
        proxy_task: A ready task that --estimator low-fidelity trains on in place of the task.
        table: A saved latency table in place of measuring one.
        set_: SECTION.OPTION=VALUE, such as estimator.paths=fair; sections are estimator, strategy,
            recipe, finalists, target, space and task. Repeat for several.
        json: Print machine-readable lines.
        quiet: Print the result only.
    Raises:
        InvalidSetting: an option, name or value that does not exist or fit.
    """
    arguments = plain(locals())
    # A search that names nothing is the demonstration: half of the space is too slow for it.
    demonstrates = all(given is None for given in (limit, task, data, model, space))
    if demonstrates:
        arguments["limit"] = ["latency_ms=median"]
    arguments.setdefault("budget", "110s" if demonstrates else "10min")
    arguments["out"] = str(out) if out is not None else default_out(arguments)
    _run(arguments, display(json=json, quiet=quiet, steps=STEPS))


def resume(
    out: Path,
    /,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Continue a search or an audit that was stopped or killed.

    Args:
        out: Folder of the study.
        json: Print machine-readable lines.
        quiet: Print the result only.
    Raises:
        InvalidStudy: no study there, or one that `resume` alone cannot name again.
    """
    command, arguments = stored(out)
    if (out / "table.json").is_file():  # it has taken over what was given
        arguments.pop("table", None)
    if command == "audit":
        from assay.cli.audit import run_audit

        run_audit(arguments, display(json=json, quiet=quiet))
        return
    _run(arguments, display(json=json, quiet=quiet, steps=STEPS))


def _run(arguments: Mapping[str, Any], shown: AbstractContextManager[Any]) -> None:
    settings = read_settings(arguments.get("set_") or [], _SECTIONS)
    from assay.cli.show import print_result
    from assay.run.face import search as find

    if "proxy_task" in arguments:
        _set_proxy(settings, arguments)
    reach_own(arguments)
    task = task_asked(arguments, settings.pop("task", {}))
    space = space_asked(arguments, task, settings.pop("space", {}))
    with shown as listener:
        try:
            result = find(
                space, task,
                estimator=arguments["estimator"], strategy=arguments["strategy"],
                limits=limits_asked(arguments),
                objectives=tuple(arguments.get("objective") or ("score", "-latency_ms")),
                budget=arguments["budget"], out=arguments["out"], seed=arguments["seed"],
                train_on=arguments["train_on"], table=arguments.get("table"),
                executor=executor_asked(arguments.get("workers", 1)), settings=settings,
                on_event=listener, origin=origin(arguments),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Continue with: {command_line('search', arguments)}") from None
    print_result(result.out, json=listener.json)


def _set_proxy(settings: dict[str, dict[str, Any]], arguments: Mapping[str, Any]) -> None:
    """Set the proxy of the estimator to the task named by --proxy-task."""
    if arguments["estimator"] != PROXIED:
        raise InvalidSetting(
            f"--proxy-task is for --estimator {PROXIED}, not for {arguments['estimator']!r}; leave "
            "it out"
        )
    if "proxy" in settings.setdefault("estimator", {}):
        raise InvalidSetting("give --proxy-task or --set estimator.proxy, not both")
    settings["estimator"]["proxy"] = arguments["proxy_task"]
