"""Evaluating many paths on one batch, each shared beginning computed once.

A module's output is fixed by the batch and by the decisions read before it ends, in the order in
which the forward reads them. So when the next path agrees with the last one in its first k
decisions, every call that ended before decision k was read may return what it returned then. The
model's own forward runs each time, with those calls answered from memory: nothing is traced. A
population is walked depth first, so only the calls along one path are held.

A decision that a forward never shows, as where the weights of a layer are read and the layer is not
called, may have been read anywhere: such decisions count as read before all others.

This serves any forward that is deterministic and keeps no state between modules. What is written
into is noticed by its version counter: an output that was is computed anew, a call that writes into
what it is given runs each time, and the inputs of a batch are put back for the next path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from assay.architecture import Architecture, Option
from assay.space.space import Space
from assay.train.splits import leaves, map_tensors
from assay.train.task import call_model
from assay.train.writes import times_written

__all__ = ["PrefixWalk"]

_Key = tuple[int, ...]
_EVERYTHING = 1 << 30


@dataclass
class _Call:
    """A finished call: its output, and how many decisions had been read by its end."""

    module: nn.Module
    output: Any
    reads: int
    versions: list[int]

    def intact(self) -> bool:
        return times_written(self.output) == self.versions


class _Given:
    """The inputs of a batch, which every path finds as they were given, whatever is written there.

    Args:
        inputs: `[N, ...]` or a tuple or dict of such; a copy of them is held.
    """

    def __init__(self, inputs: Any) -> None:
        self._inputs = inputs
        self._copy = map_tensors(inputs, Tensor.clone)
        self._versions = times_written(inputs)

    def whole(self) -> Any:
        """Return the inputs, put back if something was written into them."""
        if times_written(self._inputs) != self._versions:
            for tensor, copy in zip(leaves(self._inputs), leaves(self._copy)):
                tensor.copy_(copy)
            self._versions = times_written(self._inputs)
        return self._inputs


class PrefixWalk:
    """Runs architectures of a space on one batch after another.

    Args:
        space: The space; its model runs, in whatever mode it is in.
        shared: Whether calls are answered from memory; otherwise each path runs whole.
    """

    def __init__(self, space: Space, *, shared: bool = True) -> None:
        self._space = space
        self._shared = shared
        self._calls: dict[_Key, _Call] = {}
        self._last: list[tuple[str, Option]] = []
        self._reads: list[tuple[str, Option]] = []
        self._known: set[str] = set()
        self._unseen: dict[str, None] = {}
        self._architecture = Architecture()
        self._key: _Key = ()
        self._ordinal = 0
        # The walk of the last population: its order, how far each path agreed with the one before.
        self._planned: list[Architecture] = []
        self._order: list[int] = []
        self._agreed: list[int] = []
        self._keep = _EVERYTHING

    @property
    def path(self) -> Architecture:
        """The architecture that runs."""
        return self._architecture

    @property
    def num_unseen(self) -> int:
        """How many decisions are known that no forward shows; every prefix begins with them."""
        return len(self._unseen)

    def prefix(self) -> tuple[tuple[str, Option], ...]:
        """Return the decisions read so far in the forward under way."""
        return tuple(self._reads)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within: the calls of the model's modules around its decisions go through the walk."""
        watched = list(self._watched()) if self._shared else []
        own = [(m.__dict__, m.__dict__.get("forward")) for _, m in watched]
        for path, module in watched:
            module.__dict__["forward"] = self._watch(module, self._space.sites.get(path, ()))
        try:
            yield
        finally:
            for here, forward in own:
                del here["forward"]
                if forward is not None:  # a user may have given one to the instance
                    here["forward"] = forward
            self._space.select(None)
            self._calls.clear()

    def population(
        self,
        architectures: Sequence[Architecture],
        inputs: Any,
        visit: Callable[[int, Any], None],
    ) -> None:
        """Run every architecture on one batch, inside `installed`.

        The first batch of a population finds the order in which it is walked; the batches after it
        follow this order, and remember only what the next path will ask for.

        Args:
            architectures: Any order, any number.
            inputs: Inputs of the batch, `[N, ...]` or a tuple or dict of such; afterwards they are
                as they were.
            visit: Called with (index into `architectures`, output) as each is done.
        """
        self._calls.clear()
        self._last = []
        given = _Given(inputs)
        try:
            self._run_all(architectures, given, visit)
        finally:
            given.whole()

    def _run_all(
        self,
        architectures: Sequence[Architecture],
        given: _Given,
        visit: Callable[[int, Any], None],
    ) -> None:
        if not self._shared:
            for index, architecture in enumerate(architectures):
                visit(index, self._run(architecture, given))
            return
        if self._order and self._planned == list(architectures):
            for index, keep in zip(self._order, [*self._agreed[1:], -1]):
                self._keep = keep
                visit(index, self._run(architectures[index], given))
            return
        self._keep, self._order, self._agreed = _EVERYTHING, [], []
        self._walk(architectures, given, visit)
        self._planned = list(architectures)

    def _walk(
        self,
        architectures: Sequence[Architecture],
        given: _Given,
        visit: Callable[[int, Any], None],
    ) -> None:
        """Run one after the other, each time one of those that agree longest with what ran."""
        groups = [list(range(len(architectures)))] if architectures else []
        while groups:
            first, *others = groups.pop()
            self._order.append(first)
            self._agreed.append(_agreement(self._last, architectures[first]))
            visit(first, self._run(architectures[first], given))
            by_depth: dict[int, list[int]] = {}
            for index in others:
                depth = _agreement(self._last, architectures[index])
                by_depth.setdefault(depth, []).append(index)
            groups += (by_depth[depth] for depth in sorted(by_depth))

    def _run(self, architecture: Architecture, given: _Given) -> Any:
        agreed = _agreement(self._last, architecture) if self._shared else -1
        self._calls = {k: call for k, call in self._calls.items() if call.reads <= agreed}
        self._architecture = architecture
        self._reads, self._known = [], set()
        self._key, self._ordinal = (), 0
        # What the model's own code reads it may read before any call.
        for label in dict.fromkeys([*self._space.sites.get("", ()), *self._unseen]):
            if label in architecture:
                self._read(label, architecture[label])
        self._space.select(architecture)
        output = call_model(self._space.model, given.whole())
        unseen = [label for label in architecture if label not in self._known]
        if unseen and self._shared:
            self._unseen |= dict.fromkeys(unseen)
            self._calls, self._last = {}, []
            return output
        self._last = self._reads
        # What ended after the last decision can serve no other path.
        self._calls = {k: c for k, c in self._calls.items() if c.reads < len(self._reads)}
        return output

    def _watched(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules that hold decisions, and their siblings; never the model itself."""
        modules = dict(self._space.model.named_modules())
        deciding = {path for site in self._space.sites for path in _ancestors(site)}
        for path, module in modules.items():
            if path and path.rpartition(".")[0] in deciding:
                yield path, module

    def _watch(self, module: nn.Module, labels: tuple[str, ...]) -> Callable[..., Any]:
        forward = module.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            key = (*self._key, self._ordinal)
            self._ordinal += 1
            known = self._calls.get(key)
            if known is not None and known.module is module and known.intact():
                for label, option in self._last[len(self._reads) : known.reads]:
                    self._read(label, option)
                return known.output
            versions = times_written((args, kwargs))
            outer, self._key, self._ordinal = (self._key, self._ordinal), key, 0
            for label in labels:
                if label not in self._known:
                    self._read(label, self._architecture[label])
            try:
                output = forward(*args, **kwargs)
            finally:
                children, (self._key, self._ordinal) = self._ordinal, outer
            if times_written((args, kwargs)) == versions:  # an answer from memory writes nothing
                self._remember(module, key, children, output)
            return output

        return call

    def _read(self, label: str, option: Option) -> None:
        self._reads.append((label, option))
        self._known.add(label)

    def _remember(self, module: nn.Module, key: _Key, children: int, output: Any) -> None:
        reads = len(self._reads)
        if reads > self._keep:
            return
        for i in range(children):
            # Between this child's end and the module's no decision was read: the module serves.
            if (child := self._calls.get((*key, i))) is not None and child.reads == reads:
                del self._calls[*key, i]
        self._calls[key] = _Call(module, output, reads, times_written(output))


def _agreement(reads: Sequence[tuple[str, Option]], architecture: Architecture) -> int:
    for i, (label, option) in enumerate(reads):
        if architecture.get(label) != option:
            return i
    return len(reads)


def _ancestors(path: str) -> Iterator[str]:
    """Yield a module path and those of the modules around it, the model's "" included."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
