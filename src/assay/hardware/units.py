"""Layers and chains of layers as they are in an architecture's plain network: run once, counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from assay.architecture import Architecture, Option
from assay.hardware.count import Call, Counts, record_call, sums, tensors_in
from assay.hardware.values import Given, Values, mapped
from assay.space.build import build
from assay.space.space import Space

__all__ = ["Layers", "Part", "Unit", "shapes_of", "unselected"]


@dataclass(frozen=True)
class Unit:
    """A layer, or a chain of layers that feed each other with no choice of module among them.

    Attributes:
        key: What is computed: the layers with their settings, and the shapes of the inputs.
        path: Module path in the model with choices, of the first layer or their Sequential.
        shape: Of the output, such as (1, 16, 8, 8).
        counts: What the call takes.
        calls: Of its layers, in order.
    """

    key: str
    path: str
    shape: tuple[int, ...]
    counts: Counts
    calls: tuple[Call, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """What a call ran.

    Attributes:
        units: In order.
        out: Its result.
        handed_on: Whether that is its only argument, the very object.
        loose_macs: Multiply-accumulates outside the units.
        uncounted: What multiplies in it and is not in the sums, by name.
        plain: For a single layer or chain: its plain modules, which feed each other.
        given: For a single layer or chain: its arguments.
        sums: Over the units and what is outside, without parameters.
    """

    units: tuple[Unit, ...]
    out: Given
    handed_on: bool = False
    loose_macs: int = 0
    uncounted: tuple[str, ...] = ()
    plain: tuple[nn.Module, ...] = ()
    given: Any = None
    sums: Counts = field(init=False)

    def __post_init__(self) -> None:
        calls = [call for unit in self.units for call in unit.calls]
        object.__setattr__(self, "sums", sums(calls, self.loose_macs, self.uncounted))


class Layers:
    """Runs the layers of a space's model, each as the plain module it is in an architecture.

    Args:
        space: The space; a path selected in its model stays selected.
        values: Makes the `Given`s.
    """

    def __init__(self, space: Space, values: Values) -> None:
        self._space = space
        self._values = values
        self._sources: dict[str, tuple[tuple[nn.Module, ...], Given]] = {}

    def to_run(self, unit: Unit) -> tuple[nn.Module, Any]:
        """Return a plain module and inputs for it that repeat a unit."""
        return _to_run(*self._sources[unit.key])

    def run(self, path: str, given: Given, options: Mapping[str, Option]) -> Part:
        """Run a layer, or a Sequential of nothing else, as it is in the plain network.

        Args:
            path: Of the module.
            given: Its arguments.
            options: The architecture.
        """
        plain = self._plain(path, options)
        args, kwargs = given.fresh()
        with unselected(self._space):  # which a layer's settings may tell of, where it holds part
            recording = record_call(plain, args, kwargs)
        out = self._values.of(recording.output)
        at = path or "."
        names = tuple(_below(at, name, plain) for name in recording.uncounted)
        calls = tuple(replace(c, path=_below(at, c.path, plain)) for c in recording.calls)
        units = (self._unit(at, calls, out, (plain,), given),) if calls else ()
        handed_on = self._values.handed_on(given, args, recording.output)
        return Part(units, out, handed_on, recording.loose_macs, names, (plain,), given)

    def chain(self, first: Part, second: Part) -> Part:
        """Return the part of two layers, or chains of such, of which one feeds the other."""
        calls = [call for part in (first, second) for unit in part.units for call in unit.calls]
        plain, uncounted = first.plain + second.plain, first.uncounted + second.uncounted
        units: tuple[Unit, ...] = ()
        if calls:
            path = (first.units or second.units)[0].path
            units = (self._unit(path, tuple(calls), second.out, plain, first.given),)
        handed_on = first.handed_on and second.handed_on
        loose_macs = first.loose_macs + second.loose_macs
        return Part(units, second.out, handed_on, loose_macs, uncounted, plain, first.given)

    def _unit(
        self,
        path: str,
        calls: tuple[Call, ...],
        out: Given,
        plain: tuple[nn.Module, ...],
        given: Given,
    ) -> Unit:
        key = f"{' > '.join(map(str, calls))} on {shapes_of(given.value)}"
        self._sources.setdefault(key, (plain, given))
        states = {id(t): t for m in plain for t in (*m.parameters(), *m.buffers())}
        params = sum(t.numel() for t in states.values() if isinstance(t, nn.Parameter))
        held = sum(t.numel() * t.element_size() for t in states.values())
        shapes = [tuple(t.shape) for t in tensors_in(out.value)]
        counts = replace(sums(calls), params=params, weight_bytes=held)
        return Unit(key, path, shapes[0] if shapes else (), counts, calls)

    def _plain(self, path: str, options: Mapping[str, Option]) -> nn.Module:
        """Return the plain module that the architecture at hand has in the place of a layer."""
        space = self._space
        module = space.model.get_submodule(path)
        inside = {id(m) for m in module.modules()}
        layers = [(la, cs) for la, cs in space.structure.layers if id(la.layer) in inside]
        with unselected(space):
            structure = replace(space.structure, layers=layers)
            plain = build(module, structure, Architecture(options))
        return plain.cpu().eval()


@contextmanager
def unselected(space: Space) -> Iterator[None]:
    """Within: the layers of a space's model are whole; the path selected is put back after."""
    for layer in space.shadowed:
        layer.unshadow()
    try:
        yield
    finally:
        for layer in space.shadowed:
            layer.shadow(space.values)


def _below(path: str, name: str, plain: nn.Module) -> str:
    """Return the path in the model of what is called `name` in a part of it.

    A part's own name is its class; an operation reads "matmul in path".
    """
    operation, sign, place = name.rpartition(" in ")
    inner = "" if place == type(plain).__name__ else f".{place}"
    return f"{operation}{sign}{path}{inner}"


def _to_run(plain: tuple[nn.Module, ...], given: Given) -> tuple[nn.Module, Any]:
    """Return a module and inputs for it that repeat a call."""
    args, kwargs = given.value
    module = plain[0] if len(plain) == 1 else nn.Sequential(*plain).eval()
    if not kwargs and all(isinstance(a, Tensor) for a in args):
        return module, args[0] if len(args) == 1 else args
    if not args and all(isinstance(v, Tensor) for v in kwargs.values()):
        return module, kwargs
    return _Applied(module, args, kwargs), tuple(tensors_in([args, kwargs]))


class _Applied(nn.Module):
    """A module with the arguments of one call that are no tensors; takes those that are."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self._given = (args, kwargs)

    def forward(self, *tensors: Tensor) -> Any:
        left = iter(tensors)
        args, kwargs = mapped(self._given, lambda _: next(left))
        return self.module(*args, **kwargs)


def shapes_of(value: Any) -> tuple[Any, ...]:
    """Return what of an argument may matter: shapes and types of tensors, other values as such.

    Of a tensor that is given again only its number among those of the argument.
    """
    return _shapes_of(value, {})


def _shapes_of(value: Any, seen: dict[int, int]) -> tuple[Any, ...]:
    if isinstance(value, Tensor):
        if id(value) in seen:
            return (seen[id(value)],)
        seen[id(value)] = len(seen)
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(_shapes_of(item, seen) for item in value)
    if isinstance(value, dict):
        return tuple((name, _shapes_of(item, seen)) for name, item in value.items())
    return (repr(value),)
