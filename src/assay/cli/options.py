"""`assay options`: what can be set, read from the classes themselves."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from docstring_parser import DocstringStyle, parse
from rich.console import Console
from rich.table import Table

from assay.errors import InvalidSetting, nearest

__all__ = ["Option", "options", "options_named"]

_PARTS = {
    "recipe": "assay.train.recipe:Recipe",
    "finalists": "assay.run.plan:Finalists",
    "target": "assay.hardware.device:Device",
}
_OF_THE_TASK = ("input_shape", "num_classes")  # of a space; the task gives them


class Option(NamedTuple):
    """One thing that can be set.

    Attributes:
        name: As `--set SECTION.NAME=VALUE` has it.
        default: As text.
        meaning: What its class says of it.
    """

    name: str
    default: str
    meaning: str


def options(name: str | None = None, /) -> None:
    """List what can be set of an estimator, strategy, space or task, and how networks are trained.

    Args:
        name: Such as one-shot, darts or mobile; or recipe, finalists or target. Without one, all
            names are listed.
    Raises:
        InvalidSetting: nothing is called so.
    """
    console = Console()
    if name is None:
        sections = {**_named(), "and": _PARTS}
        for section, known in sections.items():
            console.print(f"{section:10} {', '.join(known)}", highlight=False)
        return
    for section, found in options_named(name).items():
        said = f"{section}.OPTION=VALUE"
        also = f"; in an audit --set {name}.OPTION=VALUE" if section == "estimator" else ""
        console.print(f"{name}: --set {said}{also}", highlight=False, style="bold")
        table = Table("option", "default", "meaning", box=None, pad_edge=False)
        for option in found:
            table.add_row(*option)
        console.print(table, highlight=False)


def options_named(name: str) -> Mapping[str, list[Option]]:
    """Return the options of all that has a name: section -> options.

    Args:
        name: Of an estimator, strategy, space or task, or a section without names.
    Raises:
        InvalidSetting: nothing is called so.
    """
    bare, sections = name.partition(":")[0], _sections()
    found = {
        section: list(_options(section, known[bare]))
        for section, known in sections.items()
        if bare in known
    }
    if not found:
        every = {one for known in sections.values() for one in known}
        raise InvalidSetting(f"nothing called {name!r} has options; {nearest(name, every)}")
    return found


def _sections() -> Mapping[str, Mapping[str, str]]:
    """Return section -> name -> "module:attribute"; a section without names is its own."""
    return {**_named(), **{part: {part: target} for part, target in _PARTS.items()}}


def _named() -> Mapping[str, Mapping[str, str]]:
    """Return the sections that have names: section -> name -> "module:attribute"."""
    from assay.run.names import ESTIMATORS, STRATEGIES
    from assay.train import READY
    from assay.zoo import SPACES

    return {"estimator": ESTIMATORS, "strategy": STRATEGIES, "space": SPACES, "task": READY}


def _options(section: str, target: str) -> Iterator[Option]:
    module, _, attribute = target.partition(":")
    thing = getattr(importlib.import_module(module), attribute)
    told = parse(thing.__doc__ or "", DocstringStyle.GOOGLE).params
    meanings = {one.arg_name: " ".join((one.description or "").split()) for one in told}
    for name, parameter in inspect.signature(thing).parameters.items():
        if not (section == "space" and name in _OF_THE_TASK):
            yield Option(name, _default(thing, name, parameter.default), meanings[name])


def _default(thing: Any, name: str, default: Any) -> str:
    if dataclasses.is_dataclass(thing):
        made = next(f.default_factory for f in dataclasses.fields(thing) if f.name == name)
        if made is not dataclasses.MISSING:
            default = made()
    return default if isinstance(default, str) and default else repr(default)
