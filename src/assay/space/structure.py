"""Which decisions a model holds, and when each of them is active.

A decision is active where one of its sites is reached: a site lies inside options of other
choices, and is reached when all of these are taken. Counting and uniform sampling walk the
decisions in order; the state they carry is what is left open of the conditions of later decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeAlias

from torch import nn
from torch.nn.parameter import is_lazy

from assay.architecture import Option
from assay.errors import InvalidSpace
from assay.space.choices import ChoiceModule, Depth, OneOf
from assay.space.sizes import OpenSize, roots_in
from assay.space.slicing import OpenLayer, open_attributes
from assay.space.ties import refuse_uneven_ties, sharing

__all__ = [
    "Choice",
    "Condition",
    "Lattice",
    "Structure",
    "explore",
    "meets",
    "reached",
    "still_asked",
]

Condition: TypeAlias = tuple[tuple[str, frozenset[Option]], ...]
"""Labels and the options of each that lead to a site; all must hold."""

Asked: TypeAlias = frozenset[Condition]
"""Conditions of which one is enough; one without labels holds."""

State: TypeAlias = tuple[Asked, ...]
_LARGEST_LATTICE = 500_000
_MET: Asked = frozenset([()])


@dataclass
class Choice:
    """An open decision of a space.

    Attributes:
        label: Its name: the module path, or as given by `label=`.
        kind: "OneOf", "Depth", "Inputs", "Width" or "Kernel".
        options: What it can be set to.
        conditions: It is active where one of these holds; an empty one always does.
    """

    label: str
    kind: str
    options: tuple[Option, ...]
    conditions: list[Condition] = field(default_factory=list)

    def active(self, chosen: Mapping[str, Option]) -> bool:
        """Whether the options chosen so far lead to one of its sites."""
        return reached(self.conditions, chosen)


@dataclass
class Structure:
    """What `explore` finds in a model.

    Attributes:
        choices: Label -> choice, every choice after those it depends on.
        modules: Label -> the choice modules that obey it.
        roots: Label -> the open sizes that obey it.
        layers: The layers (and other modules) that keep open sizes, with the conditions under
            which they run.
        plain: The modules without open sizes that share a parameter with one of these, likewise.
        sites: Module path -> the labels that this module itself reads.
    """

    choices: dict[str, Choice]
    modules: dict[str, list[ChoiceModule]]
    roots: dict[str, list[OpenSize]]
    layers: list[tuple[OpenLayer, list[Condition]]]
    plain: list[tuple[OpenLayer, list[Condition]]]
    sites: dict[str, tuple[str, ...]]

    def open_layers(self, chosen: Mapping[str, Option]) -> list[OpenLayer]:
        """Return the layers with open sizes that an architecture runs."""
        return [layer for layer, conditions in self.layers if reached(conditions, chosen)]

    def grouped_layers(self) -> list[tuple[list[Condition], list[OpenLayer]]]:
        """Return all layers, those that run under the same conditions together, to ask once."""
        groups: dict[tuple[Condition, ...], list[OpenLayer]] = {}
        for layer, conditions in [*self.layers, *self.plain]:
            groups.setdefault(tuple(conditions), []).append(layer)
        return [(list(conditions), group) for conditions, group in groups.items()]


def reached(conditions: Sequence[Condition], chosen: Mapping[str, Option]) -> bool:
    """Whether the options chosen make one of the conditions hold."""
    for condition in conditions:  # plain loops: this is asked for every choice of every candidate
        for label, options in condition:
            if chosen.get(label) not in options:
                break
        else:
            return True
    return False


def meets(conditions: Sequence[Condition], mix: Mapping[str, Mapping[Option, Any]]) -> bool:
    """Whether some of the options mixed make one of the conditions hold."""
    for condition in conditions:
        for label, options in condition:
            if label not in mix or options.isdisjoint(mix[label]):
                break
        else:
            return True
    return False


def explore(model: nn.Module) -> Structure:
    """Find every choice of a model, labelled by module path.

    Raises:
        InvalidSpace: no choice; one label with different options; choices that contain each other;
            one tensor in two layers that shrink it differently; a layer without shape.
        UnsupportedLayer: an open size in a layer with tensors but without a slicing rule.
    """
    return _Explorer().run(model)


class _Explorer:
    def __init__(self) -> None:
        self.choices: dict[str, Choice] = {}
        self.modules: dict[str, list[ChoiceModule]] = {}
        self.layers: dict[int, tuple[OpenLayer, list[Condition]]] = {}
        self.paths: dict[int, str] = {}
        self.conditions: dict[int, list[Condition]] = {}

    def run(self, model: nn.Module) -> Structure:
        self._visit("", model, ())
        labels = self._label_sizes()
        roots: dict[str, list[OpenSize]] = {}
        for root, label in labels.items():
            roots.setdefault(label, []).append(root)
        for layer, conditions in self.layers.values():
            for root in layer.roots:
                for condition in conditions:
                    self._declare(labels[root], root.kind, root.options, condition)
        if not self.choices:
            raise InvalidSpace(
                f"{type(model).__name__} has no choice: put OneOf, Depth, Inputs, Width or Kernel "
                "where the architecture is open"
            )
        layers = list(self.layers.values())
        opened = [layer for layer, _ in layers]
        refuse_uneven_ties(model, opened, self.conditions, labels)
        plain = [(la, self.conditions[id(la.layer)]) for la in sharing(model, opened)]
        for choice in self.choices.values():
            choice.conditions = _weakest(choice.conditions)
        sites: dict[str, tuple[str, ...]] = {
            self.paths[id(m)]: (label,) for label, ms in self.modules.items() for m in ms
        }
        for layer, _ in layers:
            sites[layer.path] = tuple(dict.fromkeys(labels[root] for root in layer.roots))
        at = list(self.paths.values())
        first = {
            la: min(at.index(p) for p, las in sites.items() if la in las) for la in self.choices
        }
        in_order = _in_order(dict(sorted(self.choices.items(), key=lambda item: first[item[0]])))
        return Structure(in_order, self.modules, roots, layers, plain, sites)

    def _visit(self, path: str, module: nn.Module, condition: Condition) -> None:
        if is_new := id(module) not in self.paths:
            self.paths[id(module)] = path
            _refuse_lazy(path, module)
        path = self.paths[id(module)]
        conditions = self.conditions.setdefault(id(module), [])
        conditions.append(condition)
        if isinstance(module, ChoiceModule):
            self._visit_choice(path, module, condition)
            return
        if is_new and open_attributes(module):
            self.layers[id(module)] = (OpenLayer(path, module), conditions)
        for name, child in module._modules.items():
            if child is not None:
                self._visit(f"{path}.{name}" if path else name, child, condition)

    def _visit_choice(self, path: str, module: ChoiceModule, condition: Condition) -> None:
        label = module.label_in_space = module.label or path or module.kind
        if any(label == outer for outer, _ in condition):
            raise InvalidSpace(f"the choice {label!r} contains itself; give it another label")
        self._declare(label, module.kind, module.options, condition)
        holders = self.modules.setdefault(label, [])
        if not any(m is module for m in holders):
            holders.append(module)
        for i, (name, child) in enumerate(module._modules.items()):
            assert child is not None
            if isinstance(module, OneOf):
                taken: frozenset[Option] = frozenset([name])
            else:
                assert isinstance(module, Depth)
                taken = frozenset(d for d in module.options if int(d) > i)  # type: ignore[arg-type]
            inner = condition if len(taken) == len(module.options) else (*condition, (label, taken))
            self._visit(f"{path}.{name}" if path else name, child, inner)

    def _declare(
        self, label: str, kind: str, options: tuple[Any, ...], condition: Condition
    ) -> None:
        choice = self.choices.setdefault(label, Choice(label, kind, options))
        if (choice.kind, choice.options) != (kind, options):
            raise InvalidSpace(
                f"the label {label!r} names {choice.kind}{choice.options} and {kind}{options}; "
                "one label is one decision: give equal options or two labels"
            )
        if condition not in choice.conditions:
            choice.conditions.append(condition)

    def _label_sizes(self) -> dict[OpenSize, str]:
        """Name each open size by the first layer that holds it, and its attribute if two do.

        A layer with tensors names it rather than a module that only keeps it.
        """
        first: dict[OpenSize, tuple[str, str]] = {}
        for layer in sorted((la for la, _ in self.layers.values()), key=lambda la: not la.shrinks):
            for name, value in layer.attributes.items():
                for root in roots_in(value):
                    first.setdefault(root, (layer.path, name))
        paths = [path for root, (path, _) in first.items() if root.label is None]
        taken = set(self.choices)
        labels: dict[OpenSize, str] = {}
        for root, (path, name) in first.items():
            crowded = not path or paths.count(path) > 1 or path in taken
            labels[root] = root.label or (f"{path}.{name}".lstrip(".") if crowded else path)
        named = [label for root, label in labels.items() if root.label is None]
        if len(set(named)) != len(named):
            twice = next(label for label in named if named.count(label) > 1)
            raise InvalidSpace(f"two open sizes of {twice!r} need names: give each a label=")
        return labels


def _refuse_lazy(path: str, module: nn.Module) -> None:
    """Refuse a layer whose tensors take their shapes from its first inputs."""
    tensors = {**module._parameters, **module._buffers}
    if any(t is not None and is_lazy(t) for t in tensors.values()):
        kind = type(module).__name__
        raise InvalidSpace(
            f"{path or kind}: {kind} has no shape yet; run the model once before it is searched, "
            "or write the layer with its sizes"
        )


def _weakest(conditions: list[Condition]) -> list[Condition]:
    """Drop conditions that a weaker one implies: a site reached anyway entangles nothing."""

    def implies(one: Condition, other: Condition) -> bool:
        given = dict(one)
        return all(label in given and given[label] <= options for label, options in other)

    kept: list[Condition] = []
    for condition in sorted(conditions, key=len):
        if not any(implies(condition, weaker) for weaker in kept):
            kept.append(condition)
    return kept


def _in_order(choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """Put every choice behind those it depends on, otherwise as found."""
    ordered: dict[str, Choice] = {}
    open_now: list[str] = []

    def place(label: str) -> None:
        if label in ordered:
            return
        if label in open_now:
            raise InvalidSpace(f"the choices {', '.join(open_now)} contain each other; relabel one")
        open_now.append(label)
        for condition in choices[label].conditions:
            for outer, _ in condition:
                place(outer)
        open_now.pop()
        ordered[label] = choices[label]

    for label in choices:
        place(label)
    return ordered


class Lattice:
    """All architectures of a structure, as the ways through its decisions.

    Ways that leave the same open are one from there on: of a label that many sites share they tell
    whether one of these is reached, and not which.

    Args:
        choices: Every choice after those it depends on.
    Raises:
        InvalidSpace: the decisions are so entangled that they cannot be counted exactly.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = list(choices)
        self._asked = [frozenset(choice.conditions) for choice in self.choices]
        self._kept = self._asked_in_part()
        self._moves: list[dict[State, list[tuple[Option | None, State]]]] = []
        self._expand()
        self.counts = self._count()

    @property
    def size(self) -> int:
        """How many architectures there are, exactly."""
        return self.counts[0][()]

    def _asked_in_part(self) -> list[tuple[Asked, ...]]:
        """For each position what choices from there on ask, where earlier ones are asked about."""
        kept: list[tuple[Asked, ...]] = []
        for i in range(len(self.choices) + 1):
            earlier = {choice.label for choice in self.choices[:i]}
            later = dict.fromkeys(self._asked[i:])
            kept.append(tuple(a for a in later if any(la in earlier for con in a for la, _ in con)))
        return kept

    def _expand(self) -> None:
        states: set[State] = {()}
        total = 0
        for i, choice in enumerate(self.choices):
            moves: dict[State, list[tuple[Option | None, State]]] = {}
            settle = cache(partial(still_asked, choice.label))  # many states ask the same
            for state in states:
                left = dict(zip(self._kept[i], state))
                active = () in left.get(self._asked[i], self._asked[i])
                asked = [left.get(a, a) for a in self._kept[i + 1]]
                options = choice.options if active else (None,)
                moves[state] = [(o, tuple(settle(o, a) for a in asked)) for o in options]
            self._moves.append(moves)
            states = {after for ways in moves.values() for _, after in ways}
            total += len(states)
            if total > _LARGEST_LATTICE:
                raise InvalidSpace(
                    f"the choices up to {choice.label!r} depend on each other in over "
                    f"{_LARGEST_LATTICE} ways; nest fewer decisions under shared labels"
                )

    def _count(self) -> list[dict[State, int]]:
        counts: list[dict[State, int]] = [{(): 1}]
        for moves in reversed(self._moves):
            later = counts[-1]
            counts.append({s: sum(later[t] for _, t in ways) for s, ways in moves.items()})
        return counts[::-1]

    def ways(self, i: int, state: State) -> list[tuple[Option | None, State, int]]:
        """Return (option or None if inactive, next state, architectures behind it)."""
        return [(o, s, self.counts[i + 1][s]) for o, s in self._moves[i][state]]


def still_asked(label: str, option: Option | None, asked: Asked) -> Asked:
    """Return what some conditions still ask once a decision is made.

    Args:
        label: Of the decision.
        option: What it is; None if it is not active.
        asked: Conditions of which one is enough.
    """
    left = frozenset(
        tuple((name, options) for name, options in condition if name != label)
        for condition in asked
        if all(name != label or option in options for name, options in condition)
    )
    return _MET if () in left else left
