"""A quantity in the loop: its target, and its part in a loss and in a reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from assay.architecture import Architecture
from assay.errors import InvalidSetting, SpaceExhausted
from assay.strategies.learned.expected import Expected

__all__ = ["FORMS", "Aim", "Form"]

Form: TypeAlias = Literal["linear", "power", "log"]
"""How a quantity enters a loss; see `Aim`."""
FORMS: tuple[Form, ...] = get_args(Form)
"""All of them."""


@dataclass(frozen=True)
class Aim:
    """A quantity that is to come to a target, beside what a network is worth.

    With E what is expected of it and T the target, the whole loss is

    - "linear": loss + weight * E / T
    - "power": loss * (E / T) ** weight
    - "log": loss * (log E / log T) ** weight, which depends on the unit and needs more than 1 of it

    and the whole reward of an architecture is reward * (its own / T) ** -weight.

    Source: Cai et al. 2019, "ProxylessNAS", arXiv:1812.00332, section 3.3, and for "log" the
    released code; differs: the paper does not divide E by T, which only says what its weight means.
    A sum that was fitted can fall below what any network has, so E counts as no less than the least
    above 0 that it was fitted to, and that is what a network without any of it counts for.

    Args:
        quantity: Its name.
        measure: The quantity of an architecture.
        expected: The same as a sum over decisions.
        target: T.
        weight: See above.
        form: See above.
    Raises:
        InvalidSetting: logarithms of a quantity that can be 1 or less.
    """

    quantity: str
    measure: Callable[[Architecture], float]
    expected: Expected
    target: float
    weight: float
    form: Form = "linear"

    def __post_init__(self) -> None:
        if self.form == "log" and min(self._least, self.target) <= 1:
            raise InvalidSetting(
                f"strategy.form='log' needs more than 1 of {self.quantity} everywhere, but its "
                f"target is {self.target:.4g}, and the space has down to {self._least:.4g}; use "
                "'power'"
            )

    @property
    def _least(self) -> float:
        """The least above 0 that the sum was fitted to."""
        return float(self.expected.values[self.expected.values > 0].min())

    def refuse_hopeless(self) -> None:
        """Refuse a target that neither what was drawn meets nor the least that is found from there.

        Raises:
            SpaceExhausted: with what the space has, as far as it was found.
        """
        drawn = self.expected.values
        if drawn.min() <= self.target:
            return
        least = self.measure(self.expected.cheapest())
        if least <= self.target:
            return
        raise SpaceExhausted(
            f"no architecture was found that meets the target {self.quantity} = {self.target:g}: "
            f"the space has min {least:.4g}, as far as found, and up to {max(drawn):.4g} among "
            f"{len(drawn)} random architectures; raise the limit or strategy.target, or widen the "
            "space"
        )

    def in_loss(self, loss: float, expected: float) -> tuple[float, float]:
        """Return the derivatives of the whole loss by the loss, and by the expected quantity.

        Args:
            loss: Of the task.
            expected: E.
        Raises:
            InvalidSetting: the loss is below 0, and the form multiplies it: more of the quantity
                would make the whole less.
        """
        amount = max(expected, self._least)
        if self.form == "linear":
            return 1.0, self.weight / self.target
        if loss < 0:  # at 0, where a batch is all right, the quantity has no part: no harm
            raise InvalidSetting(
                f"strategy.form={self.form!r} multiplies the loss, which is {loss:.4g} here: below "
                f"0 it would reward {self.quantity}; use 'linear', or a loss that is not negative"
            )
        if self.form == "power":
            ratio, slope = amount / self.target, 1 / self.target
        else:
            ratio = math.log(amount) / math.log(self.target)
            slope = 1 / (amount * math.log(self.target))
        return ratio**self.weight, loss * self.weight * ratio ** (self.weight - 1) * slope

    def reward(self, worth: float, architecture: Architecture) -> float:
        """Return the whole reward of an architecture.

        Args:
            worth: What it is worth on the task.
            architecture: Of which the quantity is measured.
        """
        measured = self.measure(architecture)
        amount = measured if measured > 0 else self._least
        return float(worth * (amount / self.target) ** -self.weight)
