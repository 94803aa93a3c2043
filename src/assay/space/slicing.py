"""How a layer shrinks: which part of each of its tensors an option keeps.

A rule names, for every tensor of a layer, the sizes its dimensions have. The layer's own forward
then runs on views of its tensors, with padding, groups and the like worked out to match. A module
without tensors of its own (a pooling, a user's block that keeps a width) needs no rule: its code
reads the sizes it keeps at the values of the path.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from assay.errors import InvalidSpace, UnsupportedLayer
from assay.space.sizes import OpenSize, Pieces, Size, Values, resolve, roots_in

__all__ = ["Box", "OpenLayer", "boxes", "remember", "take"]

Box: TypeAlias = tuple[slice, ...]
"""A rectangular part of a tensor, one slice for each dimension."""

_Plan: TypeAlias = tuple[list[tuple[str, str, Any]], dict[str, Any]]

_MOST_KNOWN = 256
_T = TypeVar("_T")

Dims: TypeAlias = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> the size of each dimension, open or plain."""


def _conv(layer: Any) -> Dims:
    # weight [out, in / groups, *kernel]
    fan_in = layer.in_channels if layer.groups == 1 else layer.in_channels // layer.groups
    return {
        "weight": (layer.out_channels, fan_in, *layer.kernel_size),
        "bias": (layer.out_channels,),
    }


def _linear(layer: Any) -> Dims:
    return {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}


def _batch_norm(layer: Any) -> Dims:
    names = ("weight", "bias", "running_mean", "running_var")
    return dict.fromkeys(names, (layer.num_features,)) | {"num_batches_tracked": ()}


def _layer_norm(layer: Any) -> Dims:
    return dict.fromkeys(("weight", "bias"), tuple(layer.normalized_shape))


def _group_norm(layer: Any) -> Dims:
    return dict.fromkeys(("weight", "bias"), (layer.num_channels,))


def _prelu(layer: Any) -> Dims:
    return {"weight": (layer.num_parameters,)}


RULES: Mapping[type[nn.Module], Callable[[Any], Dims]] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.PReLU: _prelu,
}


class OpenLayer:
    """A layer that holds open sizes, and what each option leaves of it.

    Args:
        path: Module path.
        layer: A torch layer, a subclass that adds no tensors of its own, or any module without
            tensors of its own. Of a module without open sizes all is left.
    Raises:
        UnsupportedLayer: no rule, tensors that the rule does not know, or a parametrization.
        InvalidSpace: an option that does not divide by the groups.
    """

    def __init__(self, path: str, layer: nn.Module) -> None:
        self.path = path
        self.layer = layer
        self.attributes = open_attributes(layer)
        self.roots: tuple[OpenSize, ...] = tuple(
            dict.fromkeys(root for value in self.attributes.values() for root in roots_in(value))
        )
        self._dims = self._rule()
        self._largest = {root: int(root) for root in self.roots}
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._written: RemovableHandle | None = None  # writes copies of buffers back

    def _rule(self) -> dict[str, tuple[int, ...]]:
        layer, named = self.layer, self.path or type(self.layer).__name__
        tensors = {n: t for n, t in {**layer._parameters, **layer._buffers}.items()
                   if t is not None}  # fmt: skip
        if not self.roots:
            return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if is_parametrized(layer):
            raise UnsupportedLayer(
                f"{named}: {type(layer).__name__} works its tensors out of others, and no rule "
                "says how these shrink; give this layer a plain int, or take the parametrization "
                "away"
            )
        rule = next((RULES[t] for t in type(layer).__mro__ if t in RULES), None)
        if rule is None and not tensors:
            return {}
        if rule is None:
            names = ", ".join(map(repr, self.roots))
            raise UnsupportedLayer(
                f"{named}: {type(layer).__name__} holds {names} but has no slicing rule; "
                f"open sizes may reach {', '.join(sorted(t.__name__ for t in RULES))}: "
                "give this layer a plain int"
            )
        dims = rule(layer)
        unknown = [n for n in tensors if n not in dims]
        if unknown:
            raise UnsupportedLayer(
                f"{named}: {type(layer).__name__} adds the tensors {', '.join(unknown)} to its "
                "torch layer, and no rule says how they shrink; give this layer a plain int"
            )
        self._check_groups(named)
        return {n: d for n, d in dims.items() if n in tensors}

    def _check_groups(self, named: str) -> None:
        """Refuse sizes that the layer's groups cannot divide, before anything is trained."""
        for name in ("in_channels", "out_channels", "num_channels"):
            size = getattr(self.layer, name, None)
            groups = getattr(self.layer, "groups", getattr(self.layer, "num_groups", 1))
            if not isinstance(size, int) or (int(groups) == 1 and not isinstance(groups, Size)):
                continue
            roots = tuple(dict.fromkeys([*roots_in(size), *roots_in(groups)]))
            for combination in itertools.product(*(r.options for r in roots)):
                values = dict(zip(roots, combination))
                channels, parts = resolve(size, values), resolve(groups, values)
                if parts < 1 or channels % parts:
                    raise InvalidSpace(
                        f"{named}: {name}={channels} does not divide into {parts} groups; "
                        f"choose other options for {', '.join(map(repr, roots))}"
                    )

    @property
    def shrinks(self) -> bool:
        """Whether it has tensors, which shrink with its sizes."""
        return bool(self._dims)

    def regions(self, values: Values) -> dict[str, tuple[Pieces, ...]]:
        """Return, for each tensor, the pieces kept of each dimension."""
        return {
            name: tuple(d.pieces(values) if isinstance(d, Size) else (slice(0, d),) for d in dims)
            for name, dims in self._dims.items()
        }

    def shadow(self, values: Values) -> None:
        """Let the layer's own forward see its tensors and sizes at these values.

        The views stand in the instance's dict, in front of the parameters, which stay as they
        are; `unshadow` takes them away. Where a buffer has gaps its place is taken by a copy, and
        what a forward in train mode leaves there goes into the buffer at once, so that a state
        saved with a path selected has it.
        """
        key = tuple([values[root] for root in self.roots])
        plan = self._plans.get(key)
        if plan is None:
            plan = remember(self._plans, key, self._plan(values))
        narrowed, sizes = plan
        if not sizes:
            return
        here = self.layer.__dict__
        copies: list[tuple[Tensor, Tensor]] = []
        for name, held, cuts in narrowed:
            tensor = here[held][name]
            if isinstance(cuts, list):
                here[name] = _narrow(tensor, cuts)
                continue
            here[name] = take(tensor, cuts)
            if held == "_buffers":
                copies.append((tensor, here[name]))
                channels = cuts  # of every buffer of a norm
        if copies:
            write = partial(_write_back, copies, channels)
            self._written = self.layer.register_forward_hook(write)
        here.update(sizes)

    def _plan(self, values: Values) -> _Plan:
        """Work out once what `shadow` does at some values; nothing at the largest."""
        if all(values[root] == size for root, size in self._largest.items()):
            return [], {}
        narrowed: list[tuple[str, str, Any]] = []
        for name, pieces in self.regions(values).items():
            held = "_parameters" if name in self.layer._parameters else "_buffers"
            shape = self.layer.__dict__[held][name].shape
            if any(len(runs) > 1 for runs in pieces):
                narrowed.append((name, held, pieces))
                continue
            cuts = [
                (dim, run.start, run.stop - run.start)
                for dim, (run,) in enumerate(pieces)
                if run.stop - run.start != shape[dim]
            ]
            if cuts:
                narrowed.append((name, held, cuts))
        return narrowed, {n: resolve(v, values) for n, v in self.attributes.items()}

    def unshadow(self) -> None:
        """Put the layer back as it was built."""
        here = self.layer.__dict__
        if self._written is not None:
            self._written.remove()
            self._written = None
        for name in self._dims:
            here.pop(name, None)
        here.update(self.attributes)


def _write_back(
    copies: list[tuple[Tensor, Tensor]],
    channels: tuple[Pieces],
    layer: nn.Module,
    _args: Any,
    _out: Any,
) -> None:
    """Write what a forward left in the copies of buffers `[C]` into the buffers."""
    if not layer.training:
        return
    whole, _ = copies[0]
    kept = take(torch.arange(len(whole), device=whole.device), channels)
    for whole, copy in copies:
        whole.data.index_copy_(0, kept, copy)  # as a norm writes: graphs that hold it stay valid


def _narrow(tensor: Tensor, cuts: list[tuple[int, int, int]]) -> Tensor:
    for cut in cuts:
        tensor = tensor.narrow(*cut)
    return tensor


def remember(known: dict[Any, _T], key: Hashable, value: _T) -> _T:
    """Keep what was worked out under a key, and return it; where much is kept the oldest goes.

    A layer that reads the sum of many widths has more values than there will be steps.

    Args:
        known: What is kept of one layer.
        key: Of none that is kept.
        value: What was worked out.
    """
    if len(known) >= _MOST_KNOWN:
        del known[next(iter(known))]
    known[key] = value
    return value


def open_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that hold an open size."""
    return {
        name: value
        for name, value in module.__dict__.items()
        if isinstance(value, Size | tuple | list | dict) and next(roots_in(value), None) is not None
    }


def take(tensor: Tensor, pieces: tuple[Pieces, ...]) -> Tensor:
    """Return the part of a tensor that stays: a view, or a copy where a dimension has gaps.

    Args:
        tensor: `[d0, d1, ...]`.
        pieces: For each dimension the runs kept.
    """
    for dim, runs in enumerate(pieces):
        if len(runs) == 1:
            start, stop = runs[0].start, runs[0].stop
            if stop - start != tensor.shape[dim]:
                tensor = tensor.narrow(dim, start, stop - start)
        else:
            tensor = torch.cat([tensor.narrow(dim, r.start, r.stop - r.start) for r in runs], dim)
    return tensor


def boxes(pieces: tuple[Pieces, ...]) -> list[Box]:
    """Return the rectangular parts that the pieces of all dimensions make up."""
    return list(itertools.product(*pieces))
