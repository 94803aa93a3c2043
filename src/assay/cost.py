"""What computing costs, and how much of it a run may spend."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from assay.errors import InvalidSetting, nearest

__all__ = ["Budget", "Cost", "derive"]

_UNITS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_COUNTS = ("steps", "trials", "epochs")


@dataclass(frozen=True)
class Cost:
    """What a piece of work took; costs add up.

    Attributes:
        wall_s: Seconds of wall clock.
        samples: Samples passed through a network, forwards with or without a backward.
        macs: Multiply-accumulates of those passes, a backward as two forwards; 0 if unknown.
        device: Where it ran, "cpu" or "cuda:0"; "" for none.
    """

    wall_s: float = 0.0
    samples: int = 0
    macs: int = 0
    device: str = ""

    def __add__(self, other: Cost) -> Cost:
        device = self.device if self.device == other.device else self.device or other.device
        return Cost(
            self.wall_s + other.wall_s,
            self.samples + other.samples,
            self.macs + other.macs,
            device,
        )

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the fields as plain numbers, for a row of the study."""
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """How much all six steps together may spend: seconds, counts, or seconds and no more than such
    counts.

    Attributes:
        seconds: Wall clock of the whole run; None where only counts are given.
        steps: Optimiser steps of the supernet (or of whatever the estimator prepares).
        trials: Architectures that are scored.
        epochs: Epochs of each finalist's training.
    """

    seconds: float | None = None
    steps: int | None = None
    trials: int | None = None
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str | float | Budget) -> Budget:
        """Read "90s", "20min", a number of seconds, "steps=300,trials=50", or "20min,trials=500".

        A budget is returned as it is, if it is one that a run can have.

        Raises:
            InvalidSetting: it is neither, a count is unknown or there twice, a value is not
                positive, or none is given.
        Example:
            >>> Budget.parse("20min").seconds, Budget.parse("steps=300,trials=50").trials
            (1200.0, 50)
        """
        if isinstance(text, Budget):
            text._check()
            return text
        if not isinstance(text, str):
            return cls(seconds=_positive(float(text), text))
        parts = [part.strip() for part in text.split(",") if part.strip()]
        counts: dict[str, int] = {}
        for name, value in (_count(part) for part in parts if "=" in part):
            if name in counts:
                raise InvalidSetting(
                    f"budget {text!r}: {name} is given twice ({counts[name]} and {value}); give one"
                )
            counts[name] = value
        times = [part for part in parts if "=" not in part]
        if len(times) == 1 or not parts:
            return cls(_seconds("".join(times), text), **counts)
        if times:
            raise InvalidSetting(f"budget {text!r} has the times {times}; give one")
        return cls(**counts)

    @property
    def in_counts(self) -> bool:
        """Whether the run is bounded by counts alone, and therefore repeats bit for bit."""
        return self.seconds is None

    def _check(self) -> None:
        given = {name: getattr(self, name) for name in ("seconds", *_COUNTS)}
        if all(value is None for value in given.values()):
            raise InvalidSetting(
                "the budget names neither a time nor a count; give seconds, steps, trials or epochs"
            )
        if self.seconds is not None:
            _positive(self.seconds, self)
        for name in _COUNTS:
            value: Any = given[name]
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise _no_count(name, value)

    def __str__(self) -> str:
        time = [] if self.seconds is None else [f"{float(self.seconds)!r}".removesuffix(".0") + "s"]
        given = {name: getattr(self, name) for name in _COUNTS}
        return ",".join(time + [f"{name}={value}" for name, value in given.items() if value])


def _seconds(time: str, text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", time)
    if match is None or (match[2] or "s") not in _UNITS:
        raise InvalidSetting(
            f"budget {text!r} is neither a time nor counts; "
            'write "90s", "20min", "steps=300,trials=50" or "20min,trials=500"'
        )
    return _positive(float(match[1]) * _UNITS[match[2] or "s"], text)


def _positive(value: Any, text: object) -> float:
    if not isinstance(value, Real) or not 0 < float(value) < float("inf"):
        raise InvalidSetting(f"budget {text!r} must be positive and finite")
    return float(value)


def _count(part: str) -> tuple[str, int]:
    name, _, value = (p.strip() for p in part.partition("="))
    if name not in _COUNTS:
        raise InvalidSetting(f"unknown count {name!r} in the budget; {nearest(name, _COUNTS)}")
    if not value.isdecimal() or int(value) < 1:
        raise _no_count(name, value)
    return name, int(value)


def _no_count(name: str, value: object) -> InvalidSetting:
    return InvalidSetting(f"budget count {name}={value!r} must be a whole number of at least 1")


def derive(seed: int, *names: object) -> np.random.Generator:
    """Return the generator that belongs to a seed and a purpose.

    Every random draw of a run comes from such a generator, named by the study's seed and by what
    is drawn ("trial", 17), so that a resumed run draws what the uninterrupted one would have.

    Example:
        >>> bool(derive(0, "trial", 3).integers(99) == derive(0, "trial", 3).integers(99))
        True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
