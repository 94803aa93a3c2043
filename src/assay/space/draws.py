"""Drawing among options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from assay.architecture import Option
from assay.errors import InvalidSetting
from assay.space.structure import Choice

__all__ = ["check_generator", "draw", "drawn", "pick"]


def check_generator(rng: np.random.Generator) -> None:
    """Refuse what draws cannot come from.

    Raises:
        InvalidSetting: it is no numpy generator.
    """
    if not isinstance(rng, np.random.Generator):
        raise InvalidSetting(
            f"draws come from a numpy generator, not from {rng!r}; "
            "make one by np.random.default_rng(seed)"
        )


def pick(options: Any, rng: np.random.Generator) -> Any:
    """Draw one of a sequence, each equally often."""
    return options[int(rng.integers(len(options)))]


def drawn(rng: np.random.Generator) -> Callable[[Choice], Option]:
    """Return what draws one of the options of a choice, for `Space.complete`."""
    return lambda choice: pick(choice.options, rng)


def draw(weights: list[int], rng: np.random.Generator) -> int:
    """Draw an index with exact probabilities, also where the weights exceed 64 bits."""
    if len(weights) == 1:
        return 0
    total = sum(weights)
    bits = total.bit_length()
    while True:  # ends: each draw is accepted with probability over one half
        value = int.from_bytes(rng.bytes((bits + 7) // 8), "big") >> (-bits % 8)
        if value < total:
            break
    for i, weight in enumerate(weights):
        if value < weight:
            return i
        value -= weight
    raise AssertionError("weights do not add up")  # pragma: no cover - impossible
