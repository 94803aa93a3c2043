"""What the numbers among a strategy's settings may be; NaN and infinity are never."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Literal, TypeAlias

from assay.errors import InvalidSetting

__all__ = ["refuse_out_of_range"]

_Range: TypeAlias = Literal["count", "not negative", "positive", "share"]
_RANGES: Mapping[_Range, tuple[Callable[[Any], bool], str]] = {
    "count": (lambda x: isinstance(x, Integral) and int(x) >= 1, "a whole number of at least 1"),
    "not negative": (lambda x: 0 <= x < math.inf, "finite and 0 or more"),
    "positive": (lambda x: 0 < x < math.inf, "finite and above 0"),
    "share": (lambda x: 0 <= x < 1, "from 0 to below 1"),
}


def refuse_out_of_range(settings: object, ranges: Mapping[_Range, tuple[str, ...]]) -> None:
    """Refuse the first setting that is out of its range.

    Args:
        settings: A strategy.
        ranges: Range -> names of the settings that must lie in it.
    Raises:
        InvalidSetting: there is one.
    """
    for kind, names in ranges.items():
        holds, said = _RANGES[kind]
        for name in names:
            if not holds(given := getattr(settings, name)):
                raise InvalidSetting(f"strategy.{name}={given} must be {said}")
