"""From the weights of one architecture to those of another, between any two of a space."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture
from assay.space.space import Space
from assay.train.splits import map_tensors
from assay.weights.morph.blocks import identities, new_blocks
from assay.weights.morph.channels import Axis, Group, Picks
from assay.weights.morph.depth import neutralise, silence
from assay.weights.morph.flow import trace
from assay.weights.morph.kernel import centred
from assay.weights.morph.layers import Layer
from assay.weights.morph.rewrite import copied, disturbed, picked, wider, widest
from assay.weights.morph.same import InDouble, assert_same_function
from assay.weights.morph.steps import KINDS, Morph, origins, plan

__all__ = ["Inherited", "inherit"]


@dataclass(frozen=True)
class Inherited:
    """A child, and how it came from its parent.

    Attributes:
        network: With the parent's weights wherever it could take them.
        morphs: The steps taken, cheapest first.
    """

    network: nn.Module
    morphs: tuple[Morph, ...]


def inherit(
    space: Space,
    parent: Architecture,
    parent_network: nn.Module,
    child: Architecture,
    *,
    rng: np.random.Generator,
    example: Any,
    noise: float = 0.0,
) -> Inherited:
    """Build a child that begins with the weights of a parent.

    A layer that both have, at the same place and under the same options, takes the parent's
    weights. Where a width grows, channels are copied and shared out as in `widen`, over all layers
    that share them; where it shrinks, those weighed most stay. A larger kernel is zero around the
    old one, a smaller one is its centre. A block that is new begins as the identity if it is
    residual, or a chain of layers that can be the identity behind an idempotent activation, its
    batch norms set on the example; behind another one such a chain keeps these weights, and is not
    the identity. Any other begins, as an operation exchanged for another does, with fresh weights.

    The steps that keep the function are taken first, in float64, also where a forward casts to
    float32, and what they lead to must give the parent's outputs to 1e-9; then noise is added, and
    the other steps are taken from there.

    Source: Chen, Goodfellow, Shlens 2015, "Net2Net: Accelerating Learning via Knowledge Transfer",
    arXiv:1511.05641; shrinking after Cai et al. 2020, "Once-for-All", arXiv:1908.09791, section 3;
    differs: any architecture of a space may follow any other.

    Args:
        space: Of both architectures.
        parent: The architecture of `parent_network`.
        parent_network: As `space.build` or `space.fresh` makes it, trained; left as it is.
        child: The architecture wanted.
        rng: Draws fresh weights and which channels are copied.
        example: Inputs `[N, ...]` on the parent's device, on which functions are compared and
            batch norms set; some dozens.
        noise: Deviation of what is added to the weights that make a copied channel, as a multiple
            of the deviation of the layer's weights. Without it, and without dropout, a copy and its
            original stay alike however long they are trained.
    Raises:
        InvalidArchitecture: no point of the space, or a network of another architecture.
        UnsupportedLayer: torch.fx cannot trace a network of this space.
        AssayError: steps that should keep the function did not.
    """
    planned = plan(space, parent, child)
    _check_network(space, parent, parent_network)
    point, goal = space.check(parent), space.check(child)
    like = next(parent_network.parameters(), torch.zeros(()))
    network, exact = copied(parent_network).double(), _exact(example)
    growing = {morph.label for morph in planned if morph.preserving}
    taken: list[Morph] = []
    while growing:
        middle = _grown(space, point, goal, growing)
        heir = _Heir.of(space, point, network, middle, rng)
        with InDouble():
            settled = heir.settled(exact)
        lost = {morph.label for morph in settled if not morph.preserving}
        if not lost:
            with InDouble():
                assert_same_function(network, heir.new, exact)
            if noise:
                heir.disturb(noise, rng)
            point, network, taken = middle, heir.new, settled
            break
        growing = growing - lost if growing & lost else set()
    if point != goal or not taken:
        heir = _Heir.of(space, point, network, goal, rng)
        with InDouble():
            settled = heir.settled(exact)
        if not settled:  # the very same architecture
            with InDouble():
                assert_same_function(network, heir.new, exact)
        if noise:
            heir.disturb(noise, rng)
        network = heir.new
        taken += [replace(morph, preserving=False) for morph in settled]
    morphs = sorted(taken, key=lambda morph: KINDS.index(morph.kind))
    return Inherited(network.to(like), tuple(morphs))


def _exact(example: Any) -> Any:
    """Return inputs with floats in float64."""
    return map_tensors(example, lambda t: t.double() if t.is_floating_point() else t)


def _grown(
    space: Space, parent: Architecture, child: Architecture, growing: Collection[str]
) -> Architecture:
    """Return the parent with some decisions as in the child; what these open is as there, too."""
    wanted = {**child, **parent, **{label: child[label] for label in growing}}
    return space.complete(wanted, lambda choice: choice.options[0])


def _check_network(space: Space, architecture: Architecture, network: nn.Module) -> None:
    wanted, found = _shapes(space.build(architecture)), _shapes(network)
    if wanted != found:
        odd = min(k for k in {**wanted, **found} if wanted.get(k) != found.get(k))
        raise InvalidArchitecture(
            f"the parent's network is none of {architecture!r}: {odd} is {found.get(odd)} and "
            f"should be {wanted.get(odd)}; give the network that was built of this architecture"
        )


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    state = network.state_dict()  # some modules have extra state, which may be no tensor
    return {k: tuple(t.shape) for k, t in state.items() if isinstance(t, Tensor)}


class _Heir:
    """A child network, and what becomes of each of its layers.

    Args:
        space: Of both.
        parent: Architecture of `old`.
        old: The parent's network.
        child: Architecture of `new`.
        new: The child's network, with fresh weights.
    """

    def __init__(
        self,
        space: Space,
        parent: Architecture,
        old: nn.Module,
        child: Architecture,
        new: nn.Module,
    ) -> None:
        self.space = space
        self.old, self.new = old, new
        self.before, self.after = trace(old), trace(new)
        self.origins = origins(space, child)
        place = {model: built for built, model in origins(space, parent).items()}
        self.twins = {b: place[m] for b, m in self.origins.items() if m in place}
        self.morphs = plan(space, parent, child)
        places = {model: built for built, model in self.origins.items()}
        self.added = {
            m.label: list(new_blocks(space, child, m, places))
            for m in self.morphs
            if m.kind == "deepen"
        }
        self.fresh: list[str] = []
        self.broken: set[str] = set()  # in the model: where widths or kernels change the function
        self._copies: dict[str, Tensor] = {}
        self._maps: dict[tuple[Group, int], Tensor] = {}

    @classmethod
    def of(
        cls,
        space: Space,
        parent: Architecture,
        old: nn.Module,
        child: Architecture,
        rng: np.random.Generator,
    ) -> _Heir:
        """Make a child's network, on the parent's type and device, with what it can take over."""
        like = next(old.parameters(), torch.zeros((), dtype=torch.float64))
        new = space.fresh(child, int(rng.integers(2**31))).to(like)
        heir = cls(space, parent, old, child, new)
        heir.silence_added()  # first: a layer that such a block shares keeps the parent's weights
        heir.take_over(rng)
        return heir

    # --- what both have -----------------------------------------------------------------------

    def take_over(self, rng: np.random.Generator) -> None:
        """Give every part that the parent has too the parent's weights."""
        for path, module in self.new.named_modules():
            new = dict(_own_tensors(module))
            if path not in self.twins:
                if new and path not in self.origins:
                    self.fresh.append(path)
                continue
            taken = self._taken(path, rng) if new else {}
            if any(name not in taken or taken[name].shape != t.shape for name, t in new.items()):
                self.fresh.append(path)
                self._copies.pop(path, None)
                continue
            for name, tensor in new.items():
                tensor.data.copy_(taken[name])

    def _taken(self, path: str, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return the parent's tensors of a part, in the child's sizes where that can be."""
        old, new = self.before.layers.get(self.twins[path]), self.after.layers.get(path)
        if old is None or new is None:
            return dict(_own_tensors(self.old.get_submodule(self.twins[path])))
        try:
            rows = self._picks(old.makes, new.makes, rng)
            columns = self._picks(old.reads, new.reads, rng)
        except _NoMap:
            return {}
        if getattr(old.module, "groups", 1) != getattr(new.module, "groups", 1) and old.mixes:
            return {}
        self._note(path, old, new, rows is not None or columns is not None)
        if rows is not None and new.mixes:
            self._copies[path] = rows.copies
        taken = picked(old, rows, columns)
        if hasattr(new.module, "kernel_size"):
            taken["weight"] = centred(taken["weight"], new.module.kernel_size)
        return taken

    def _picks(self, old: Axis | None, new: Axis | None, rng: np.random.Generator) -> Picks | None:
        """Map the channels of a child's tensor to the parent's; None where they are the same."""
        if old is None or new is None:
            return None
        pairs = list(zip(old.runs, new.runs))
        if len(old.runs) != len(new.runs) or any(a.times != b.times for a, b in pairs):
            if old.length == new.length:
                return None
            raise _NoMap
        if all(a.group.size == b.group.size for a, b in pairs):
            return None
        return Picks.along(old, [self._map(a.group.root, b.group.size, rng) for a, b in pairs])

    def _map(self, group: Group, width: int, rng: np.random.Generator) -> Tensor:
        """Return the one map by which a group takes a width, for all who share it."""
        if width % group.parts:
            raise _NoMap
        if (group, width) not in self._maps:
            grows = width > group.size
            self._maps[group, width] = (
                wider(group, width, rng) if grows else widest(group, width, self.before)
            )
        return self._maps[group, width]

    def _note(self, path: str, old: Layer, new: Layer, resized: bool) -> None:
        """Note a layer through which a change of width or kernel changes the function."""
        axes = [axis for axis in (old.makes, old.reads) if axis is not None]
        fixed = any(
            run.group.obstacles and any(g is run.group.root for g, _ in self._maps)
            for axis in axes
            for run in axis.runs
        )
        if (resized and fixed) or not _padded_alike(old.module, new.module):
            self.broken.add(self.origins[path])

    def disturb(self, noise: float, rng: np.random.Generator) -> None:
        """Add noise to the weights that make a copied channel."""
        for path, copies in self._copies.items():
            weight = self.after.layers[path].module.weight
            weight.data.copy_(disturbed(weight.data, copies, noise, rng))

    # --- what is new --------------------------------------------------------------------------

    def silence_added(self) -> None:
        """Let new residual blocks begin as the identity."""
        for blocks in self.added.values():
            for block in blocks:
                silence(self.new.get_submodule(block))

    def settled(self, example: Any) -> list[Morph]:
        """Let new plain blocks begin as the identity; say which steps keep the function.

        Whether a new block is the identity is seen on the example.
        """
        blocks = [block for added in self.added.values() for block in added]
        with self._neutralised(block for block in blocks if self._is_fresh(block)):
            same = identities(self.new, blocks, example) if blocks else set()
        found = [replace(m, preserving=m.preserving and self._keeps(m, same)) for m in self.morphs]
        found += [Morph("fresh", path, None, None, False) for path in self.fresh]
        return sorted(found, key=lambda morph: KINDS.index(morph.kind))

    def _is_fresh(self, block: str) -> bool:
        """Whether none of a block's tensors came from the parent, tied ones included."""
        shared = (self.new.get_submodule(path) for path in self.twins)
        taken = {id(t) for module in shared for _, t in _own_tensors(module)}
        tensors = (t for m in self.new.get_submodule(block).modules() for _, t in _own_tensors(m))
        return taken.isdisjoint(map(id, tensors))

    @contextmanager
    def _neutralised(self, blocks: Iterable[str]) -> Iterator[None]:
        """Within: a plain block becomes the identity on what it is given when it is called first.

        So each sees what those before it give out when they are the identity already.
        """
        left = {block: self.new.get_submodule(block) for block in blocks}
        hooks = []

        def watch(block: str) -> None:
            def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
                if block in left and len(given) == 1 and isinstance(given[0], Tensor):
                    neutralise(left.pop(block), given[0])

            hooks.append(left[block].register_forward_pre_hook(hook))

        for block in list(left):
            watch(block)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keeps(self, morph: Morph, same: set[str]) -> bool:
        """Whether a step that grows has kept the function."""
        if morph.kind == "deepen":
            return same.issuperset(self.added[morph.label])
        lost = self.broken | {self.origins.get(path, "") for path in self.fresh}
        return lost.isdisjoint(p for p, las in self.space.sites.items() if morph.label in las)


class _NoMap(Exception):
    """The channels of a layer have no counterpart in the parent."""


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _padded_alike(old: Any, new: Any) -> bool:
    """Whether a larger kernel sees at each position what the old one saw, and more."""
    if not hasattr(old, "kernel_size") or old.kernel_size == new.kernel_size:
        return True
    if isinstance(old.padding, str):
        return bool(old.padding == "same")
    sides = zip(old.kernel_size, new.kernel_size, old.padding, new.padding, new.dilation)
    return all(2 * (q - p) == d * (n - k) for k, n, p, q, d in sides)
