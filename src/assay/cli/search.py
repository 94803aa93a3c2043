"""`assay search` and `assay resume`."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from assay.errors import InvalidSetting, InvalidStudy, nearest

__all__ = ["resume", "search"]

_SECTIONS = ("estimator", "strategy", "recipe", "finalists", "target", "space", "task", "executor")


def search(
    *,
    task: str | None = None,
    space: str | None = None,
    model: str | None = None,
    data: Path | None = None,
    size: int = 32,
    estimator: str = "one-shot",
    strategy: str = "evolution",
    limit: Annotated[list[str] | None, Parameter(negative="")] = None,
    objective: Annotated[list[str] | None, Parameter(negative="")] = None,
    budget: str = "110s",
    out: Path | None = None,
    seed: int = 0,
    train_on: str = "auto",
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
        size: Side in pixels that images of --data are resized to.
        estimator: Says what an architecture is worth.
        strategy: Proposes: random, evolution or nsga2.
        limit: NAME=VALUE, such as latency_ms=0.5; VALUE may be "median". Repeat for several.
        objective: What is maximised, "-" in front to minimise; by default score and -latency_ms.
        budget: For everything: "20min", or counts such as "steps=300,trials=50,epochs=4".
        out: Folder of the study; the same command on the same folder continues.
        seed: Names every random draw.
        train_on: auto, cpu or cuda.
        table: A saved latency table in place of measuring one.
        set_: SECTION.OPTION=VALUE, such as estimator.paths=fair. Repeat for several.
        json: Print machine-readable lines.
        quiet: Print the result only.
    Raises:
        InvalidSetting: an option, name or value that does not exist or fit.
    """
    if (task is not None and data is not None) or (space is not None and model is not None):
        raise InvalidSetting("give --task or --data, and --space or --model, not both")
    given = {k: v for k, v in locals().items() if v is not None and k not in ("json", "quiet")}
    arguments = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    # A search that names nothing is the demonstration: half of the space is too slow for it.
    if limit is None and task is None and data is None and model is None and space is None:
        arguments["limit"] = ["latency_ms=median"]
    arguments["out"] = str(out) if out is not None else _default_out(arguments)
    _run(arguments, _display(json=json, quiet=quiet))


def resume(
    out: Path,
    /,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Continue a search that was stopped or killed.

    Args:
        out: Folder of the study.
        json: Print machine-readable lines.
        quiet: Print the result only.
    Raises:
        InvalidStudy: no study there, or one that `resume` alone cannot name again.
    """
    from assay.study.store import Study

    with Study.read(out) as study:
        arguments = study.settings.get("origin", {}).get("arguments")
    if not arguments:
        raise InvalidStudy(
            f"{out} was begun by assay.search(...) in Python; call it again with out={str(out)!r} "
            "and the same arguments to continue"
        )
    arguments = {**arguments, "out": str(out)}
    if "model" in arguments or "data" in arguments:
        raise InvalidStudy(
            f"{out} searches a model or data of your own, of which the study keeps the name only; "
            f"to continue, type: {_line(arguments)}"
        )
    _run(arguments, _display(json=json, quiet=quiet))


def _run(arguments: Mapping[str, Any], display: AbstractContextManager[Any]) -> None:
    _check_sections(arguments.get("set_") or [])
    from assay.cli.show import print_result
    from assay.run.face import search as find

    settings = _settings(arguments.get("set_") or [])
    task = _task(arguments, settings.pop("task", {}))
    space = _space(arguments, task, settings.pop("space", {}))
    with display as listener:
        try:
            result = find(
                space, task,
                estimator=arguments["estimator"], strategy=arguments["strategy"],
                limits=_limits(arguments.get("limit") or []),
                objectives=tuple(arguments.get("objective") or ("score", "-latency_ms")),
                budget=arguments["budget"], out=arguments["out"], seed=arguments["seed"],
                train_on=arguments["train_on"], table=arguments.get("table"),
                settings=settings, on_event=listener, origin=_origin(arguments),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Continue with: {_line(arguments)}") from None
    print_result(result.out, json=listener.json)


def _origin(arguments: Mapping[str, Any]) -> dict[str, Any]:
    named = {k: arguments.get(k) for k in ("model", "data")}
    space = None if named["model"] else arguments.get("space") or "mobile"
    task = None if named["data"] else arguments.get("task") or "digits"
    told = {k: v for k, v in arguments.items() if k != "out"}
    return {"space": space, "task": task, **named, "arguments": told}


def _task(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    from assay.train.ready import checked_options, load_task
    from assay.train.task import Task

    if "data" in arguments:
        checked = checked_options(Task.from_folder, options)
        return Task.from_folder(
            arguments["data"], size=arguments["size"], seed=arguments["seed"], **checked
        )
    return load_task(arguments.get("task") or "digits", **options)


def _space(arguments: Mapping[str, Any], task: Any, options: Mapping[str, Any]) -> Any:
    from assay.space.space import Space
    from assay.zoo import load_space

    if "model" in arguments:
        return Space(_imported(arguments["model"]))
    return load_space(arguments.get("space") or "mobile", task, **options)


def _imported(name: str) -> Any:
    """Import "module:attribute", with the current folder among the places to look."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InvalidSetting(f"--model {name!r} must be written package.module:Class")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise InvalidSetting(
            f"--model {name!r}: {module} cannot be imported ({error}); run this beside it"
        ) from error
    except AttributeError:
        known = [n for n in vars(sys.modules[module]) if not n.startswith("_")]
        raise InvalidSetting(
            f"--model {name!r}: {module} has no {attribute!r}; {nearest(attribute, known)}"
        ) from None
    finally:
        sys.path.remove(os.getcwd())


def _limits(texts: Sequence[str]) -> dict[Any, float | str]:
    limits: dict[Any, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidSetting(f"--limit {text!r} must be written NAME=VALUE, as latency_ms=0.5")
        try:
            limits[name] = value if value == "median" else float(value)
        except ValueError:
            raise InvalidSetting(f"--limit {text!r}: {value!r} is no number") from None
    return limits


def _check_sections(texts: Sequence[str]) -> None:
    for text in texts:
        section, dot, rest = text.partition(".")
        if not dot or "=" not in rest:
            raise InvalidSetting(
                f"--set {text!r} must be written SECTION.OPTION=VALUE, as estimator.paths=fair"
            )
        if section not in _SECTIONS:
            raise InvalidSetting(f"--set {text!r}: no {section!r}; {nearest(section, _SECTIONS)}")


def _settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        section, _, rest = text.partition(".")
        option, _, value = rest.partition("=")
        settings.setdefault(section, {})[option] = value
    return settings


def _default_out(arguments: Mapping[str, Any]) -> str:
    """Name a folder after the task and space, so that the same command continues."""
    data = Path(arguments["data"]).name if "data" in arguments else None
    task = data or arguments.get("task") or "digits"
    model = arguments.get("model") or arguments.get("space") or "mobile"
    return str(Path("runs") / f"{task}-{model.rpartition(':')[2]}")


def _line(arguments: Mapping[str, Any]) -> str:
    """Return the command to type again."""
    words = ["assay", "search"]
    for name, value in arguments.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        for item in value if isinstance(value, list) else [value]:
            words += [flag, str(item)]
    return shlex.join(words)


def _display(*, json: bool, quiet: bool) -> Any:
    from assay.cli.display import Bars, Lines, Quiet

    return Lines() if json else Quiet() if quiet else Bars()
