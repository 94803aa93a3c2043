"""Short names of strategies, estimators and executors, resolved on use."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from assay.contracts import Estimator, Executor, Strategy
from assay.errors import InvalidSetting, nearest
from assay.options import options_of, read_option

__all__ = [
    "ESTIMATORS",
    "EXECUTORS",
    "STRATEGIES",
    "changed",
    "describe",
    "is_import",
    "is_variant",
    "name_of",
    "resolve",
]

STRATEGIES = {
    "random": "assay.strategies.random:Random",
    "evolution": "assay.strategies.evolution:Evolution",
    "nsga2": "assay.strategies.nsga2:NSGA2",
    "halving": "assay.strategies.halving:Halving",
    "hyperband": "assay.strategies.halving:Hyperband",
    "asha": "assay.strategies.halving:ASHA",
    "smash": "assay.strategies.smash:Smash",
    "optuna": "assay.strategies.optuna:Optuna",
    "reinforce": "assay.strategies.learned.reinforce:Reinforce",
    "darts": "assay.strategies.learned.darts:DARTS",
    "enas": "assay.strategies.learned.enas:ENAS",
    "proxyless": "assay.strategies.learned.proxyless:Proxyless",
}
"""Strategies: name -> "module:class"."""
ESTIMATORS = {
    "one-shot": "assay.estimators.one_shot:OneShot",
    "scratch": "assay.estimators.scratch:Scratch",
    "low-fidelity": "assay.estimators.low_fidelity:LowFidelity",
    "predictor": "assay.estimators.predictor:Predictor",
    "fused": "assay.estimators.fused:Fused",
    "hypernet": "assay.estimators.hypernet:Hypernet",
    "inherit": "assay.estimators.inherit:Inherit",
    "zero-cost": "assay.estimators.zero_cost:ZeroCost",
}
"""Estimators: name -> "module:class"."""
EXECUTORS = {
    "inline": "assay.executors.inline:Inline",
    "processes": "assay.executors.processes:Processes",
}
"""Executors: name -> "module:class"."""
_PROTOCOLS: Mapping[str, Any] = {
    "strategy": Strategy, "estimator": Estimator, "executor": Executor,
}  # fmt: skip
_VARIANTS = {"optuna": "sampler"}
"""Names that may be followed by ":" and the value of a field, such as "optuna:tpe": that field."""
_PARTS: Mapping[str, Mapping[str, str]] = {
    "low-fidelity": {"proxy": "task"},
    "predictor": {"of": "estimator", "signals": "estimator"},
    "fused": {"of": "estimator", "others": "estimators", "signals": "estimator"},
    "inherit": {"supernet": "estimator"},
}
"""Name of an estimator -> options that take other objects -> what these are. Text names them."""


def resolve(
    kind: str, known: Mapping[str, str], given: Any, settings: Mapping[str, Any] | None = None
) -> Any:
    """Return the object meant by a name, a "name:variant", a "module:attr" or an object.

    Args:
        kind: "strategy", "estimator" or "executor".
        known: Short name -> "module:attr".
        given: A short name, one with a variant such as "optuna:tpe", "module:attr", or an object.
            Of an estimator or strategy of Assay's, and of its parts, a new one of the same settings
            is returned: what the given one learned in another search is not of this one. An object
            of a class of your own is returned as it is.
        settings: Fields of the class to set; strings are read as the field's type. Where a named
            estimator takes another one or a task, they are short names.
    Raises:
        InvalidSetting: an unknown name, field or value; the nearest names are given. Or what is no
            object of the kind.
    """
    if not isinstance(given, str):
        if settings:
            raise InvalidSetting(
                f"settings {sorted(settings)} go with a {kind} given by name, not with {given!r}"
            )
        _refuse_alien(kind, given, known)
        return given if kind == "executor" else _afresh(given)
    name = given.partition(":")[0]
    if name in known and is_variant(given):
        given, settings = name, _with_variant(kind, given, _VARIANTS[name], dict(settings or {}))
    if given not in known and ":" not in given:
        raise InvalidSetting(f"unknown {kind} {given!r}; {nearest(given, known)}")
    module, _, attribute = known.get(given, given).partition(":")
    if not is_import(f"{module}:{attribute}"):
        raise InvalidSetting(
            f"{kind} {given!r} must be written package.module:Class, as one imports it"
        )
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidSetting(
            f"{kind} {given!r} cannot be imported ({error}); install its package, or run "
            "this in its folder"
        ) from error
    made = _construct(kind, cls, _with_parts(kind, given, dict(settings or {})))
    _refuse_alien(kind, made, known)
    return made


def is_import(name: str) -> bool:
    """Whether it is written as one imports it, such as "package.module:Class"."""
    module, _, attribute = name.partition(":")
    return attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def name_of(known: Mapping[str, str], thing: Any) -> str:
    """Return the short name of an object's class, whatever its settings; "" where it has none.

    Args:
        known: Short name -> "module:attr".
        thing: An object.
    """
    where = f"{type(thing).__module__}:{type(thing).__qualname__}"
    return next((name for name, target in known.items() if target == where), "")


def is_variant(name: str) -> bool:
    """Whether it is a short name with a variant, such as "optuna:tpe"."""
    known, _, variant = name.partition(":")
    return bool(variant) and known in _VARIANTS


def _with_variant(kind: str, given: str, field: str, settings: dict[str, Any]) -> dict[str, Any]:
    if field in settings:
        raise InvalidSetting(
            f"{kind} {given!r} names its {field}; leave out {kind}.{field}={settings[field]}"
        )
    return {field: given.partition(":")[2], **settings}


def _with_parts(kind: str, given: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the objects that names in them mean, each with its defaults."""
    parts = _PARTS.get(given, {})
    return {
        option: _part(f"{kind}.{option}", parts[option], value)
        if option in parts and _named(value)
        else _afresh(value)
        for option, value in settings.items()
    }


def _named(value: Any) -> bool:
    """Whether an option is a name, or a list of names as Python has it."""
    several = isinstance(value, tuple | list) and len(value) > 0
    return isinstance(value, str) or (several and all(isinstance(one, str) for one in value))


def _part(option: str, what: str, text: str | Sequence[str]) -> Any:
    """Make what a text names: short names only, so that `resume` imports nothing from a study."""
    if what == "estimators":
        names = read_option(option, list[str], text) if isinstance(text, str) else text
        return tuple(_part(option, "estimator", name) for name in names)
    if not isinstance(text, str):
        raise InvalidSetting(f"{option}={text!r}: give one name")
    if what == "task":
        from assay.train.ready import load_task

        return load_task(text)
    if text not in ESTIMATORS:
        raise InvalidSetting(f"{option}={text!r} is no estimator; {nearest(text, ESTIMATORS)}")
    return resolve("estimator", ESTIMATORS, text)


def _afresh(thing: Any) -> Any:
    """Return an object of the same settings that has learned nothing; see `resolve`."""
    if type(thing) in (tuple, list):
        return type(thing)(map(_afresh, thing))
    learns = any(hasattr(thing, method) for method in ("estimate", "ask"))
    ours = type(thing).__module__.split(".")[0] == __name__.split(".")[0]
    if not (learns and ours and dataclasses.is_dataclass(thing)):
        return thing
    return dataclasses.replace(thing, **{k: _afresh(v) for k, v in options_of(thing).items()})  # type: ignore[type-var]


def _refuse_alien(kind: str, thing: Any, known: Iterable[str]) -> None:
    if isinstance(thing, type):
        raise InvalidSetting(f"{kind} {thing.__name__} is a class; give {thing.__name__}()")
    methods = [
        n for n, v in vars(_PROTOCOLS[kind]).items() if callable(v) and not n.startswith("_")
    ]
    missing = [name for name in methods if not callable(getattr(thing, name, None))]
    if missing:
        raise InvalidSetting(
            f"an object of type {type(thing).__name__} is no {kind}: it has no "
            f"{', '.join(missing)}; give one that has, or one of the names {', '.join(known)}"
        )


def describe(thing: Any) -> dict[str, Any]:
    """Return an object's class and options as JSON values, for the study; a function's own name.

    Of a `functools.partial` also what it was given.
    """
    if isinstance(thing, functools.partial):
        given = {"args": _plain(thing.args), **{k: _plain(v) for k, v in thing.keywords.items()}}
        return {**describe(thing.func), **given}
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(fingerprint := getattr(thing, "fingerprint", None), str):
        return {"class": name, "fingerprint": fingerprint}  # a task, a space
    options = {} if kind is thing else options_of(thing)
    return {"class": name, **{k: _plain(v) for k, v in options.items()}}


def changed(kind: str, value: Any, changes: Mapping[str, Any]) -> Any:
    """Return a dataclass object with fields changed; strings are read as the field's type.

    Raises:
        InvalidSetting: an unknown field or a value that does not fit.
    """
    fields = [f.name for f in dataclasses.fields(value) if f.init]
    _refuse_unknown(kind, changes, fields)
    made = _construct(kind, type(value), dict(changes))
    return dataclasses.replace(value, **{name: getattr(made, name) for name in changes})


def _refuse_unbound(kind: str, cls: Any, settings: Mapping[str, Any]) -> None:
    """Refuse settings that the constructor of a class of the user's own does not take."""
    signature = inspect.signature(cls)
    several = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if not several:
        _refuse_unknown(kind, settings, list(signature.parameters))
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise InvalidSetting(
            f"{kind} {cls.__name__}: {error}; give it by --set {kind}.OPTION=VALUE"
        ) from error


def _refuse_unknown(kind: str, given: Iterable[str], fields: Iterable[str]) -> None:
    for name in given:
        if name not in set(fields):
            raise InvalidSetting(f"unknown option {kind}.{name}; {nearest(name, fields)}")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return describe(value)


def _construct(kind: str, cls: Any, settings: dict[str, Any]) -> Any:
    if not dataclasses.is_dataclass(cls):
        _refuse_unbound(kind, cls, settings)
        return cls(**settings)
    _refuse_unknown(kind, settings, [f.name for f in dataclasses.fields(cls) if f.init])
    hints = typing.get_type_hints(cls)
    read = {name: read_option(f"{kind}.{name}", hints[name], v) for name, v in settings.items()}
    return cls(**read)  # type: ignore[operator]
