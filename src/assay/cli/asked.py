"""What was asked for on the command line, made into the objects that a run takes."""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.errors import InvalidSetting, InvalidStudy, nearest, reason

__all__ = [
    "PROXIED",
    "command_line",
    "default_out",
    "display",
    "executor_asked",
    "how_to_continue",
    "keep_once",
    "limits_asked",
    "origin",
    "plain",
    "reach_own",
    "read_settings",
    "space_asked",
    "stored",
    "task_asked",
]

PROXIED = "low-fidelity"
"""The estimator that --proxy-task is for."""


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's arguments as JSON values, without what was not given or only shows.

    Raises:
        InvalidSetting: two of them say the same thing, or one would say nothing.
    """
    if (given.get("task") is not None and given.get("data") is not None) or (
        given.get("space") is not None and given.get("model") is not None
    ):
        raise InvalidSetting("give --task or --data, and --space or --model, not both")
    if given.get("size") is not None and given.get("data") is None:
        raise InvalidSetting(
            f"--size {given['size']} is for the images of --data, and a ready task has its own; "
            "leave it out"
        )
    kept = {k: v for k, v in given.items() if v is not None and k not in ("json", "quiet")}
    return {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()}


def read_settings(texts: Sequence[str], known: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what `--set SECTION.OPTION=VALUE` says: section -> option -> text.

    Args:
        texts: As typed.
        known: Sections there are; one with ":" in it is a user's own class.
    Raises:
        InvalidSetting: another shape of text, or an unknown section (the nearest are given).
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        section, dot, option = name.rpartition(".")
        if not dot or not equals:
            example = "estimator" if "estimator" in known else "one-shot"
            raise InvalidSetting(
                f"--set {text!r} must be written SECTION.OPTION=VALUE, as {example}.paths=fair"
            )
        if section not in known and ":" not in section:
            raise InvalidSetting(f"--set {text!r}: no {section!r}; {nearest(section, known)}")
        keep_once(settings.setdefault(section, {}), option, value, f"--set {name}")
    return settings


def keep_once(known: dict[str, Any], name: str, value: Any, called: str) -> None:
    """Keep a value under a name of which there is none yet.

    Args:
        known: What is kept.
        name: Under which.
        value: The value.
        called: What messages call it.
    Raises:
        InvalidSetting: there is another.
    """
    if name in known:
        raise InvalidSetting(f"{called} is given twice ({known[name]} and {value}); give one")
    known[name] = value


def origin(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to name the space and the task again, and all arguments but the folder."""
    named = {k: arguments.get(k) for k in ("model", "data")}
    space = None if named["model"] else arguments.get("space") or "mobile"
    task = None if named["data"] else arguments.get("task") or "digits"
    told = {k: v for k, v in arguments.items() if k != "out"}
    return {"space": space, "task": task, **named, "arguments": told}


def task_asked(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the task: a ready one, or of a folder of images.

    Raises:
        InvalidSetting: an option that does not exist or fit, or is given twice.
    """
    from assay.train.ready import checked_options, load_task
    from assay.train.task import Task

    if "data" in arguments:
        # What has an option of its own on the command line may be set either way.
        given = {"seed": arguments["seed"], **options}
        if "size" in arguments:
            keep_once(given, "size", arguments["size"], "the size of images (task.size, --size)")
        return Task.from_folder(arguments["data"], **checked_options(Task.from_folder, given))
    return load_task(arguments.get("task") or "digits", **options)


def space_asked(arguments: Mapping[str, Any], task: Any, options: Mapping[str, Any]) -> Any:
    """Return the space: a ready one that fits the task, or of a module.

    Raises:
        InvalidSetting: an option that does not exist or fit; a module has none.
    """
    from assay.space.space import Space
    from assay.zoo import load_space

    if "model" in arguments:
        if options:
            raise InvalidSetting(
                f"--set space.{next(iter(options))} is for a ready --space, and --model "
                f"{arguments['model']} is your own; set it in there, and leave the option out"
            )
        return Space(_made_alone(arguments["model"]))
    return load_space(arguments.get("space") or "mobile", task, **options)


def _made_alone(name: str) -> Any:
    """Return a module, which any call fits, or what makes one without being told anything."""
    found = _imported(name)
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise InvalidSetting(
            f"--model {name!r} makes no module by itself ({error}); name a class or function that "
            "needs no arguments"
        ) from error
    return found


def executor_asked(workers: int) -> Any:
    """Return where trainings run: in this process, or in so many others, 0 for one a core."""
    if workers == 1:
        return "inline"
    from assay.run import names

    return names.resolve("executor", names.EXECUTORS, "processes", {"workers": workers})


def _imported(name: str) -> Any:
    """Import "module:attribute", with the current folder among the places to look."""
    from assay.run import names

    module, _, attribute = name.partition(":")
    if not names.is_import(name):
        raise InvalidSetting(
            f"--model {name!r} must be written package.module:Class, as one imports it"
        )
    sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise InvalidSetting(
            f"--model {name!r}: {module} cannot be imported ({error}); run this beside it"
        ) from error
    except Exception as error:
        raise InvalidSetting(
            f"--model {name!r}: {module} fails while it is imported ({reason(error)}); mend it "
            f"(python -c 'import {module}' shows where)"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(imported, attribute):
        known = [n for n in vars(imported) if not n.startswith("_")]
        raise InvalidSetting(
            f"--model {name!r}: {module} has no {attribute!r}; {nearest(attribute, known)}"
        )
    return getattr(imported, attribute)


def reach_own(arguments: Mapping[str, Any]) -> None:
    """Let classes of the user's own be imported from the current folder, after all others."""
    from assay.run import names

    own = any(":" in name and not names.is_variant(name) for name in _named(arguments))
    if own and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def default_out(arguments: Mapping[str, Any], prefix: str = "") -> str:
    """Name a folder after the task and space, so that the same command continues."""
    # "." has no name, and a link keeps its own.
    data = os.path.basename(os.path.abspath(arguments["data"])) if "data" in arguments else None
    task = data or arguments.get("task") or "digits"
    model = arguments.get("model") or arguments.get("space") or "mobile"
    return str(Path("runs") / f"{prefix}{task}-{model.rpartition(':')[2]}")


def command_line(command: str, arguments: Mapping[str, Any]) -> str:
    """Return the command to type again."""
    words = ["assay", command]
    for name, value in arguments.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        for item in value if isinstance(value, list) else [value]:
            words += [flag, str(item)]
    return shlex.join(words)


def stored(out: Path) -> tuple[str, dict[str, Any]]:
    """Return which command began a study, and with which arguments it can be continued.

    Raises:
        InvalidStudy: no study there, or one that cannot be named again from what it keeps.
    """
    from assay.study.store import Study

    with Study.read(out) as study:
        command = "audit" if study.identity.get("kind") == "audit" else "search"
        known = {**study.settings, **(study.get("asked") or {})}
    arguments = known.get("arguments") or known.get("origin", {}).get("arguments")
    if not arguments:
        raise InvalidStudy(
            f"{out} was begun by assay.{command}(...) in Python; call it again with "
            f"out={str(out)!r} and the same arguments to continue"
        )
    arguments = {**arguments, "out": str(out)}
    if "model" in arguments or "data" in arguments:
        raise InvalidStudy(
            f"{out} is of a model or data of your own, of which the study keeps the name only; "
            f"to continue, type: {command_line(command, arguments)}"
        )
    from assay.run import names

    if any(":" in name and not names.is_variant(name) for name in _named(arguments)):
        raise InvalidStudy(
            f"{out} names a class of your own, and what is in a study is never imported; to "
            f"continue, type: {command_line(command, arguments)}"
        )
    return command, arguments


def how_to_continue(out: Path) -> str:
    """Say what to type to go on with a study that is not finished."""
    try:
        stored(out)
    except InvalidStudy as error:
        return str(error)
    return f"continue with: {shlex.join(['assay', 'resume', str(out)])}"


def limits_asked(arguments: Mapping[str, Any]) -> dict[Any, float | str]:
    """Return the limits of --limit by quantity.

    Raises:
        InvalidSetting: one is not written NAME=VALUE, is no number or "median", or is given twice.
    """
    limits: dict[Any, float | str] = {}
    for text in arguments.get("limit") or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidSetting(f"--limit {text!r} must be written NAME=VALUE, as latency_ms=0.5")
        try:
            limit: float | str = value if value == "median" else float(value)
        except ValueError:
            raise InvalidSetting(
                f"--limit {text!r}: {value!r} must be a number or 'median'"
            ) from None
        keep_once(limits, name, limit, f"--limit {name}")
    return limits


def _named(arguments: Mapping[str, Any]) -> list[str]:
    """Return what a command's arguments name that could be imported."""
    kinds = [str(arguments.get(kind, "")) for kind in ("estimator", "strategy")]
    rows = str(arguments.get("estimators", "")).split(",")
    sections = [text.partition("=")[0] for text in arguments.get("set_") or []]
    return [*kinds, *rows, *sections]


def display(*, json: bool, quiet: bool, steps: Mapping[str, str] | None = None) -> Any:
    """Return what shows a run while it goes on.

    Args:
        json: Lines for a program.
        quiet: Nothing.
        steps: Name -> title of those that are known before they begin.
    """
    from assay.cli.display import Bars, Lines, Quiet

    return Lines() if json else Quiet() if quiet else Bars(steps or {})
