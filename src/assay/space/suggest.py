"""An architecture whose decisions somebody else makes, asked one at a time as Optuna asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from assay.architecture import Architecture, Option

if TYPE_CHECKING:
    from assay.space.structure import Choice

__all__ = ["Suggests", "category", "suggest"]


class Suggests(Protocol):
    """Makes decisions: an `optuna.Trial`, or whatever has this method of it."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices for the decision of this name."""
        ...


def category(option: Option) -> str | int:
    """Return an option as a plain value: a tuple as its text, any other as it is.

    Example:
        >>> category("conv3"), category(48), category((0, 2))
        ('conv3', 48, '(0, 2)')
    """
    return str(option) if isinstance(option, tuple) else option


def suggest(choices: Mapping[str, Choice], trial: Suggests) -> Architecture:
    """Ask for the option of each active decision, in order; inactive ones are not asked for.

    Args:
        choices: Label -> choice, every choice after those it depends on.
        trial: Decides.
    """
    taken: dict[str, Option] = {}
    for label, choice in choices.items():
        if choice.active(taken):
            options = {category(option): option for option in choice.options}
            taken[label] = options[trial.suggest_categorical(label, list(options))]
    return Architecture(taken)
