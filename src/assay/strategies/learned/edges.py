"""Nodes that choose inputs: which operations lie on the way of each, and how strong it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from assay.architecture import Option
from assay.space.space import Space
from assay.strategies.learned.symptoms import open_options

__all__ = ["led_to", "strengths"]


def led_to(space: Space) -> dict[str, list[list[str]]]:
    """Return for each choice of inputs the choices of operations that its options lead to."""

    def led(label: str, option: Option) -> list[str]:
        way = (label, frozenset([option]))
        return [k for k, c in space.choices.items() if any(w[-1:] == (way,) for w in c.conditions)]

    return {
        label: [led(label, option) for option in choice.options]
        for label, choice in space.choices.items()
        if choice.kind == "Inputs"
    }


def strengths(
    space: Space,
    led: Sequence[Sequence[str]],
    weights: Mapping[str, Tensor],
    exclude: Collection[Option],
) -> Tensor:
    """Return the log of how strong each option of a choice of inputs is, `[options]`.

    The strength of an input is the largest weight on it, those excluded left aside; of several
    inputs it is the product, which is largest for the strongest.

    Args:
        space: Of the choices.
        led: For each option the labels of the operations that it leads to.
        weights: Label -> weight of each operation, `[number of options]`.
        exclude: Options that are not proposed.
    """

    def best(label: str) -> Tensor:
        return weights[label][open_options(space.choices[label], exclude)].max()

    return torch.stack([torch.stack([best(e) for e in edges]).log().sum() for edges in led])
