"""All architectures of a model with choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
from torch import nn

from assay.architecture import Architecture, Option
from assay.errors import InvalidArchitecture, InvalidSetting, InvalidSpace, UnsupportedMix, nearest
from assay.space import extremes, fresh
from assay.space.build import build
from assay.space.canonical import Canonical
from assay.space.digest import digest
from assay.space.draws import check_generator, draw, drawn, pick
from assay.space.sizes import OpenSize
from assay.space.slicing import OpenLayer
from assay.space.structure import Choice, Lattice, State, explore, meets
from assay.space.suggest import Suggests, suggest

__all__ = ["Space"]

Over = Literal["architectures", "decisions"]


class Space:
    """All architectures of a model: size, sample, mutate, cross, enumerate, encode, build.

    Knows nothing of data or scores. The model keeps its weights and stays an ordinary module;
    `select` says which of its paths a forward takes.

    Args:
        model: A module with choices, or a callable (such as its class) that makes one. Only with a
            callable can networks be initialised anew as the model's own code does it.
        example: One example input `[N, ...]` (or tuple or dict), used to rank by MACs in `largest`
            and `smallest`; without it every layer counts as if it ran at one position. On it is
            seen too which Sequentials are called as a whole, on which `canonical` rests.
        canonical: Extends the canonical form: a function from architecture to architecture that
            maps all architectures of one network to one of them.
        remake: Makes the space by other options, such as fewer cells; see `variant`.
        cheap: Options of `variant` that make networks cheap and change their order little; what
            estimates by proxy use by default.
        features: More of an architecture than `encode` tells, for predictors: a function from
            architecture to a list of floats, such as the paths of a cell.
    Raises:
        InvalidSpace: no choice, or choices that do not fit together.
        UnsupportedLayer: an open size reaches a layer without a slicing rule.
    Example:
        >>> from assay.space.choices import OneOf
        >>> net = nn.Sequential(OneOf(a=nn.Linear(2, 2), skip=nn.Identity()), nn.Linear(2, 2))
        >>> Space(net).size
        2
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        *,
        example: Any = None,
        canonical: Callable[[Architecture], Architecture] | None = None,
        remake: Callable[..., Space] | None = None,
        cheap: Mapping[str, Any] | None = None,
        features: Callable[[Architecture], Sequence[float]] | None = None,
    ) -> None:
        self.factory = None if isinstance(model, nn.Module) else model
        self.model: nn.Module = fresh.made(model)
        self.given: Mapping[str, Any] | None = None  # an instance's own state, once it is needed
        self.example = example
        self.structure = explore(self.model)
        self.choices: dict[str, Choice] = self.structure.choices
        self.sites: dict[str, tuple[str, ...]] = self.structure.sites
        self._lattice = Lattice(list(self.choices.values()))
        if self.size < 2:
            raise InvalidSpace("the model has one architecture only; open another option")
        self._own_form = Canonical(self)
        self._more_form = canonical
        self._remake = remake
        self.cheap: Mapping[str, Any] = dict(cheap or {})
        self.features = features
        self._groups = self.structure.grouped_layers()
        # What `select` has set, the path's layers of `structure`, and the value of each size.
        self.selected: Architecture | Mapping[str, Mapping[Option, Any]] | None = None
        self.shadowed: list[OpenLayer] = []
        self.values: dict[OpenSize, int] = {}
        self._extremes: dict[int, tuple[Any, Architecture]] = {}  # sign -> (example, found on it)

    @property
    def size(self) -> int:
        """How many architectures there are, as an exact integer."""
        return self._lattice.size

    def __repr__(self) -> str:
        return f"Space({type(self.model).__name__}, {len(self.choices)} choices, size {self.size})"

    def variant(self, **options: Any) -> Space:
        """Return a space of the same choices whose networks are made by other options.

        Args:
            options: Keyword arguments of the function that made this space, such as `cells=1`.
        Raises:
            InvalidSetting: an unknown option, a space that no function made, or options with
                which the choices are others.
        """
        if self._remake is None:
            raise InvalidSetting(
                f"{self!r} cannot be made with {options}: only ready spaces have such variants; "
                "give Space(..., remake=) a function of these options"
            )
        try:
            made = self._remake(**options)
        except TypeError as error:
            raise InvalidSetting(f"no variant with {options}: {error}") from error
        if set(made.choices) == set(self.choices) and list(made.choices) != list(self.choices):
            raise InvalidSetting(
                f"with {options} the choices come in another order, {', '.join(made.choices)}; a "
                "variant meets them as the space does"
            )
        for label in [*self.choices, *made.choices]:
            own, other = self.choices.get(label), made.choices.get(label)
            if _decides(own) != _decides(other):
                raise InvalidSetting(
                    f"with {options} the choice {label!r} is {_told(other)}, not {_told(own)}; a "
                    "variant keeps all choices"
                )
        return made

    # --- points -------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator, over: Over = "architectures") -> Architecture:
        """Draw an architecture.

        Args:
            rng: Where the draws come from.
            over: "architectures" draws each architecture equally often; "decisions" draws each
                active decision's options equally often, which favours shallow branches.
        Raises:
            InvalidSetting: `over` is neither, or `rng` is no generator.
        """
        check_generator(rng)
        if over not in ("architectures", "decisions"):
            raise InvalidSetting(
                f"sample over {over!r}; {nearest(str(over), ['architectures', 'decisions'])}"
            )
        options: dict[str, Option] = {}
        state: State = ()
        for i, choice in enumerate(self.choices.values()):
            ways = self._lattice.ways(i, state)
            weights = [n if over == "architectures" else 1 for _, _, n in ways]
            option, state, _ = ways[draw(weights, rng)]
            if option is not None:
                options[choice.label] = option
        return Architecture(options)

    def all(self) -> Iterator[Architecture]:
        """Yield every architecture once, in the order of the choices' options."""

        def walk(i: int, state: State, options: dict[str, Option]) -> Iterator[Architecture]:
            if i == len(labels):
                yield Architecture(options)
                return
            for option, after, _ in self._lattice.ways(i, state):
                more = options if option is None else {**options, labels[i]: option}
                yield from walk(i + 1, after, more)

        labels = list(self.choices)
        return walk(0, (), {})

    def contains(self, architecture: Mapping[str, Any]) -> bool:
        """Whether every active decision has a valid option and no other label is present."""
        try:
            return self._fault(_as_point(architecture)) is None
        except InvalidArchitecture:  # an option that no choice could have
            return False

    def check(self, architecture: Mapping[str, Any]) -> Architecture:
        """Return it as an `Architecture`; a list, as JSON has it, is read as a tuple.

        Raises:
            InvalidArchitecture: it is no point of this space; the message names the label.
        """
        point = _as_point(architecture)
        if (fault := self._fault(point)) is not None:
            raise InvalidArchitecture(fault)
        return point

    def _fault(self, architecture: Architecture) -> str | None:
        for label in architecture:
            if label not in self.choices:
                return f"the space has no choice {label!r}; {nearest(str(label), self.choices)}"
        for label, choice in self.choices.items():
            active = choice.active(architecture)
            if active and label not in architecture:
                return f"the architecture lacks {label!r}; its options are {choice.options}"
            if active and architecture[label] not in choice.options:
                given = architecture[label]
                return f"{label!r} cannot be {given!r}; its options are {choice.options}"
            if not active and label in architecture:
                return f"{label!r} lies in an option that is not taken; leave it out"
        return None

    def complete(
        self, wanted: Mapping[str, Option], default: Callable[[Choice], Option]
    ) -> Architecture:
        """Return the architecture that takes the wanted options where they are active.

        Args:
            wanted: Options by label; those of inactive decisions are left out.
            default: Gives the option of an active decision that is not in `wanted`.
        """
        options: dict[str, Option] = {}
        for label, choice in self.choices.items():
            if choice.active(options):
                options[label] = wanted[label] if label in wanted else default(choice)
        return Architecture(options)

    def suggest(self, trial: Suggests) -> Architecture:
        """Let an Optuna trial decide, for an objective of your own.

        Each active decision is a categorical parameter named by its label.

        Args:
            trial: An `optuna.Trial`, a finished one of a study, or an `optuna.trial.FixedTrial`.
        """
        return suggest(self.choices, trial)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one active decision; decisions that this opens are drawn uniformly."""
        check_generator(rng)
        open_labels = [la for la in architecture if len(self.choices[la].options) > 1]
        label = open_labels[int(rng.integers(len(open_labels)))]
        others = [o for o in self.choices[label].options if o != architecture[label]]
        return self.complete({**architecture, label: pick(others, rng)}, drawn(rng))

    def cross(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Take each active decision from either parent with equal chance, if it has it."""
        check_generator(rng)
        wanted = {}
        for label in self.choices:
            having = [p[label] for p in (a, b) if label in p]
            if having:
                wanted[label] = pick(having, rng)
        return self.complete(wanted, drawn(rng))

    def canonical(self, architecture: Architecture) -> Architecture:
        """Return the one architecture that stands for all of the same network.

        Exact for runs of `OneOf` with an identity in `nn.Sequential` and `Depth`; the identity
        elsewhere, unless the space was given a `canonical` of its own. A `Sequential` that is not
        called as a whole is left alone if the space has an example, on which the model runs once.

        Raises:
            InvalidSpace: a path does not run on the example; names the module.
        """
        settled = self._own_form(architecture)
        return settled if self._more_form is None else self._more_form(settled)

    def encode(self, architecture: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a vector `[number of options of all choices]`: one-hot for each choice in order.

        An inactive decision is all zeros.
        """
        point = _as_point(architecture)
        parts = [
            [float(label in point and point[label] == o) for o in choice.options]
            for label, choice in self.choices.items()
        ]
        return np.concatenate([np.asarray(p) for p in parts])

    def largest(self, example: Any = None) -> Architecture:
        """Return the architecture with most MACs, found by improving one decision at a time.

        Args:
            example: Example input in place of the space's own; see the class.
        """
        return self._extreme(+1, example)

    def smallest(self, example: Any = None) -> Architecture:
        """Return the architecture with fewest MACs; see `largest`."""
        return self._extreme(-1, example)

    def _extreme(self, sign: int, example: Any) -> Architecture:
        example = self.example if example is None else example
        known = self._extremes.get(sign)
        if known is None or known[0] is not example:
            known = self._extremes[sign] = (example, extremes.extreme(self, sign, example))
        return known[1]

    # --- networks -----------------------------------------------------------------------------

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        """Return a plain module of only the chosen parts, with their weights, sliced and copied.

        Raises:
            InvalidArchitecture: it is no point of this space.
            InvalidSpace: an open size is kept where no path could follow it.
        """
        point = self.check(architecture)
        with self._whole():
            return build(self.model, self.structure, point)

    def fresh(self, architecture: Mapping[str, Any], seed: int) -> nn.Module:
        """Return the plain module with weights initialised anew, as for training from scratch."""
        return fresh.fresh(self, self.check(architecture), seed)

    def select(self, mix: Mapping[str, Any] | None) -> None:
        """Say which path or mix of the model a forward computes; None undoes it.

        Only what is active computes. Layers with open sizes run on views of their tensors until
        the next `select`. Select anew for each training step and after moving the model.

        Args:
            mix: An architecture, or label -> {option: weight} for a weighted sum; weights may be
                tensors, which then receive gradients.
        Raises:
            InvalidArchitecture: a plain dict of options that is no point of this space.
            UnsupportedMix: a size is asked to be several options at once.
        """
        if not (mix is None or isinstance(mix, Architecture)) and not all(
            isinstance(weighed, Mapping) for weighed in mix.values()
        ):
            mix = self.check(mix)
        self._unshadow()
        self.selected = mix
        weights: Mapping[str, Mapping[Option, Any]] = (
            {label: {option: 1.0} for label, option in mix.items()}
            if isinstance(mix, Architecture)
            else mix or {}
        )
        for label, modules in self.structure.modules.items():
            for module in modules:
                module.__dict__["mix"] = weights.get(label)
        if mix is not None:
            on = [g for conditions, g in self._groups if meets(conditions, weights)]
            self._shadow([layer for group in on for layer in group], self._sizes(weights))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within: no path is selected, and layers hold the sizes that are open."""
        selected, values = self.shadowed, self.values
        self._unshadow()
        try:
            yield
        finally:
            self._shadow(selected, values)

    def _shadow(self, layers: list[OpenLayer], values: dict[OpenSize, int]) -> None:
        for layer in layers:
            layer.shadow(values)
        self.shadowed, self.values = layers, values

    def _unshadow(self) -> None:
        for layer in self.shadowed:
            layer.unshadow()
        self.shadowed = []

    def _sizes(self, weights: Mapping[str, Mapping[Option, Any]]) -> dict[OpenSize, int]:
        values: dict[OpenSize, int] = {}
        for label, roots in self.structure.roots.items():
            options = list(weights.get(label, ()))
            if len(options) > 1:
                raise UnsupportedMix(
                    f"{label!r} is a size and cannot be {options} at once; select one of them"
                )
            for root in roots:
                values[root] = int(options[0]) if options else int(root)  # type: ignore[arg-type]
        return values

    def open_layers(self, architecture: Mapping[str, Option]) -> list[OpenLayer]:
        """Return the layers with open sizes that an architecture runs."""
        return self.structure.open_layers(architecture)

    def sizes(self, architecture: Mapping[str, Option]) -> dict[OpenSize, int]:
        """Return the value that each open size takes in an architecture."""
        return self._sizes({label: {option: 1.0} for label, option in architecture.items()})

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of choices, parameters, layers and their code, as it is first asked for."""
        with self._whole():
            return digest(self.model, self.choices.values())


def _decides(choice: Choice | None) -> Any:
    """Return what two spaces have in common where a choice of theirs is the same."""
    return choice and (choice.kind, choice.options, frozenset(choice.conditions))


def _told(choice: Choice | None) -> str:
    if choice is None:
        return "absent"
    inside = " or ".join(sorted({label for con in choice.conditions for label, _ in con}))
    return f"{choice.kind}{choice.options}" + f" in options of {inside}" * bool(inside)


def _as_point(architecture: Mapping[str, Any]) -> Architecture:
    return architecture if isinstance(architecture, Architecture) else Architecture(architecture)
