"""`assay audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    task_asked,
)
from assay.errors import InvalidSetting, nearest

__all__ = ["audit", "run_audit"]

_SECTIONS = ("recipe", "space", "target", "task")
_COLUMNS = {"truth_key": "arch_str", "truth_value": "c10_test_200"}
_BENCHMARKS = {"nasbench201": {"task": "cifar10", "space": "cell"}}


def audit(
    *,
    task: str | None = None,
    space: str | None = None,
    model: str | None = None,
    data: Path | None = None,
    size: int | None = None,
    estimators: str = "all",
    num: int = 40,
    seeds: int = 2,
    limit: Annotated[list[str] | None, Parameter(negative="")] = None,
    budget: Annotated[str, Parameter(allow_leading_hyphen=True)] = "1h",
    out: Path | None = None,
    seed: int = 0,
    train_on: str = "auto",
    workers: int = 1,
    proxy_task: str | None = None,
    table: Path | None = None,
    benchmark: str | None = None,
    truth: Path | None = None,
    truth_key: str | None = None,
    truth_value: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Tell what each estimator costs on a task, how well it ranks there, and which to use.

    Args:
        task: A ready task (`assay tasks`); by default digits.
        space: A ready space (`assay spaces`); by default mobile.
        model: Your own module with choices, "package.module:Class" or any callable that makes one.
        data: Your own folder of images, one sub-folder for each class; with --benchmark the folder
            of its data (CIFAR-10's binary version).
        size: Side in pixels that images of --data are resized to, by default 32.
        estimators: Names with commas between them, or "all".
        num: Architectures with a truth. More than before, and the audit there grows.
        seeds: Trainings of each, which tell the noise of the truth.
        limit: NAME=VALUE, such as latency_ms=0.5; VALUE may be "median". Only architectures that
            hold it are trained and judged. Repeat for several.
        budget: For everything, half of it for the truth: "3h", or counts: "steps=300,epochs=4".
        out: Folder of the audit, by default runs/audit-TASK-SPACE; the same command on the same
            folder continues.
        seed: Names every random draw.
        train_on: auto, cpu or cuda.
        workers: Trainings at once, each in a process of its own; 0 for as many as there are cores.
        proxy_task: A ready task; a second row of low-fidelity trains on it, to be judged on the
            task itself beside the first.
        table: A latency table measured before on this machine, for a limit on latency_ms.
        benchmark: nasbench201: judge by published truths, and train none.
        truth: Its CSV file of truths.
        truth_key: Column of the architectures, as the benchmark writes them; by default arch_str.
        truth_value: Column of the truths, higher is better; by default c10_test_200.
        set_: ESTIMATOR.OPTION=VALUE, such as one-shot.paths=fair, or recipe., space., target. or
            task.OPTION=VALUE. Repeat for several.
        json: Print machine-readable lines.
        quiet: Print the result only.
    Raises:
        InvalidSetting: an option, name or value that does not exist or fit.
    """
    arguments = plain(locals())
    _check_benchmark(arguments)
    named = {**arguments, **_BENCHMARKS.get(benchmark or "", {})}
    arguments["out"] = str(out) if out is not None else default_out(named, "audit-")
    run_audit(arguments, display(json=json, quiet=quiet))


def run_audit(arguments: Mapping[str, Any], shown: AbstractContextManager[Any]) -> None:
    """Audit as a command line asks for, and print what was found.

    Args:
        arguments: Of `audit`, as JSON values.
        shown: Listens to the run.
    Raises:
        InvalidSetting: an option, name or value that does not exist or fit.
    """
    from assay.cli.audited import print_audit
    from assay.hardware.device import Device
    from assay.run import names
    from assay.run.audit import audit as hold_against_truth
    from assay.train.recipe import Recipe

    estimators = [name.strip() for name in arguments["estimators"].split(",")]
    known = (*names.ESTIMATORS, *_SECTIONS)
    settings = read_settings(arguments.get("set_") or [], known)
    recipe = names.changed("recipe", Recipe(), settings.pop("recipe", {}))
    limits, of_target = limits_asked(arguments), settings.pop("target", {})
    target = names.changed("target", Device(), of_target)
    if of_target and "latency_ms" not in limits:
        raise InvalidSetting(
            "--set target.* says where latency_ms is measured, which is not limited here; give "
            "--limit latency_ms=VALUE, or leave it out"
        )
    reach_own(arguments)
    task, space, truths = _asked(arguments, settings.pop("task", {}), settings.pop("space", {}))
    rows: Any = estimators
    if "proxy_task" in arguments:
        rows = _with_proxy(estimators, arguments["proxy_task"], settings)
    with shown as listener:
        try:
            found = hold_against_truth(
                space, task, estimators=rows, num=arguments["num"],
                seeds=arguments["seeds"], budget=arguments["budget"], out=arguments["out"],
                seed=arguments["seed"], recipe=recipe, truths=truths,
                train_on=arguments["train_on"], executor=executor_asked(arguments["workers"]),
                limits=limits, target=target, table=arguments.get("table"),
                settings=settings, on_event=listener, origin=origin(arguments),
            )  # fmt: skip
        except KeyboardInterrupt:
            line = command_line("audit", arguments)
            raise KeyboardInterrupt(f"Continue with: {line}") from None
    print_audit(found.out, json=listener.json)


def _with_proxy(
    estimators: Sequence[str], task: str, settings: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Return rows by name, with one of the proxied estimator on another task, set like its own."""
    from assay.run import names

    wanted = [n for name in estimators for n in (names.ESTIMATORS if name == "all" else (name,))]
    if PROXIED not in wanted:
        raise InvalidSetting(
            f"--proxy-task {task} is for {PROXIED!r}, which is not audited: {', '.join(wanted)}; "
            "add it to --estimators"
        )
    row = f"{PROXIED} on {task}"
    settings[row] = {**settings.get(PROXIED, {}), "proxy": task}
    return {**{name: name for name in wanted}, row: PROXIED}


def _check_benchmark(arguments: Mapping[str, Any]) -> None:
    benchmark = arguments.get("benchmark")
    if benchmark is None:
        for name in ("truth", *_COLUMNS):
            if name in arguments:
                flag = name.replace("_", "-")
                raise InvalidSetting(
                    f"--{flag} goes with --benchmark nasbench201; give both or neither"
                )
        return
    if benchmark not in _BENCHMARKS:
        raise InvalidSetting(f"no benchmark {benchmark!r}; {nearest(benchmark, _BENCHMARKS)}")
    if "truth" not in arguments:
        raise InvalidSetting(f"--benchmark {benchmark} needs its truths; give --truth FILE.csv")
    for name in ("task", "space", "model", "size"):
        if name in arguments:
            raise InvalidSetting(f"--benchmark {benchmark} has its own {name}; leave --{name} out")
    if not Path(arguments["truth"]).is_file():  # before data are fetched
        raise InvalidSetting(f"--truth {arguments['truth']} is no file; give that of the truths")


def _asked(
    arguments: Mapping[str, Any], of_task: Mapping[str, Any], of_space: Mapping[str, Any]
) -> tuple[Any, Any, Any]:
    """Return task, space and published truths, None where they are to be trained."""
    if "benchmark" not in arguments:
        task = task_asked(arguments, of_task)
        return task, space_asked(arguments, task, of_space), None
    from assay.cli.benchmark import published

    own = _BENCHMARKS[arguments["benchmark"]]
    folder = {"folder": arguments["data"]} if "data" in arguments else {}
    task = task_asked(own, {**folder, **of_task})
    space = space_asked(own, task, of_space)
    path = Path(arguments["truth"])
    columns = {**_COLUMNS, **{name: arguments[name] for name in _COLUMNS if name in arguments}}
    truths = published(space, path, key=columns["truth_key"], value=columns["truth_value"])
    return task, space, truths
