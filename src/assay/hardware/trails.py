"""What a module's own code does next: run once, followed from then on.

While code runs, its events are taken down: the open sizes it reads off its layers, the calls it
makes, and its end. Being deterministic, it does the same again as long as the sizes read and the
results of its calls are the same. So the events form a tree that branches at sizes and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from assay.architecture import Architecture, Option
from assay.errors import InvalidSpace
from assay.hardware.count import watched
from assay.hardware.values import Given, Values
from assay.space.choices import ChoiceModule
from assay.space.space import Space

__all__ = ["Code", "State", "Tracer"]

_MOST_STATES = 100_000
Run = Callable[[Any, Given, Any], tuple[Given, bool]]
"""(module called, arguments, module that feeds it or None) -> (result, whether that is its only
argument handed on); modules are told by the keys given to `Tracer.install`."""


class State:
    """One moment of some code: what it does next.

    Attributes:
        event: "read" the option of `label`, "call" the module of `key`, or "end".
        label: Of the decision read.
        key: Of the module called.
        given: Arguments of the call.
        fed_by: Key of the module that just returned what is the only argument of this call.
        out: Result at the end.
        handed_on: Whether that is the only argument, the very object.
        macs: Multiply-accumulates of the code itself, at the end.
        uncounted: Operations of the code itself that are not in them, at the end.
    """

    __slots__ = (
        "_after", "event", "fed_by", "given", "handed_on", "key", "label", "macs", "out",
        "uncounted",
    )  # fmt: skip

    def __init__(self, event: str) -> None:
        self._after: dict[Any, State] = {}
        self.event = event
        self.label = ""
        self.key: Any = None
        self.given: Any = None
        self.fed_by: Any = None
        self.out: Any = None
        self.handed_on = False
        self.macs = 0
        self.uncounted: tuple[str, ...] = ()

    def after(self, found: Any) -> State | None:
        """Return the state behind an option read or a result, None if it was never met."""
        return self._after.get(found)

    def tells(self) -> tuple[Any, ...]:
        """Return what the event is, to compare."""
        return (self.event, self.label, self.key, self.given, self.out)


class Code:
    """The own code of a module, and the events it is known for.

    Args:
        path: Of the module.
        forward: Its own forward.
    """

    def __init__(self, path: str, forward: Callable[..., Any]) -> None:
        self.path = path
        self.forward = forward
        self.size = 0
        self._starts: dict[Given, State] = {}

    def start(self, given: Given) -> State | None:
        """Return the state in which a call of given arguments starts, None if never met."""
        return self._starts.get(given)


class _Log:
    """The run of some code that is under way."""

    def __init__(self, code: Code, given: Given) -> None:
        self.code = code
        self.read: set[str] = set()
        self.macs = 0
        self.uncounted: list[str] = []
        self.fed_by: Any = None
        self.fed: Any = None
        self._known: dict[Any, State] = code._starts
        self._found: Any = given

    def event(self, event: str, found: Any = None, **told: Any) -> State:
        """Go on by one event, whose outcome is `found`.

        Raises:
            InvalidSpace: the code did otherwise before, in the same circumstances.
        """
        state = State(event)
        for name, value in told.items():
            setattr(state, name, value)
        known = self._known.get(self._found)
        if known is not None and known.tells() != state.tells():
            raise InvalidSpace(
                f"{self.code.path or 'the model'} does not do the same each time it is given the "
                f"same shapes ({known.event} {known.label or known.key}, then {event} "
                f"{state.label or state.key}); take chance and state out of its forward"
            )
        if known is None and self.code.size < _MOST_STATES:
            self._known[self._found] = state
            self.code.size += 1
        self._known, self._found = (known or state)._after, found
        return known or state


class Tracer:
    """Runs the code of a model's modules, and takes down its events.

    Args:
        space: A space of its own: its modules are altered for good.
        values: Makes the `Given`s.
        run: Answers the calls that code makes.
    """

    def __init__(self, space: Space, values: Values, run: Run) -> None:
        self._space = space
        self._values = values
        self._run = run
        self._architecture = Architecture()
        self._options: Mapping[str, Option] = {}
        self._selected = False
        self._watching = False
        self._log: _Log | None = None

    def begin(self, architecture: Architecture, options: Mapping[str, Option]) -> None:
        """Say which architecture runs from now on."""
        self._architecture, self._options, self._selected = architecture, options, False

    def install(self, keys: Iterable[tuple[nn.Module, Any]]) -> None:
        """Take over the calls of modules, and notice who reads open sizes.

        Args:
            keys: Modules of the model, each with what `run` knows it by.
        """
        labels = self._space.sites
        for layer, _ in self._space.structure.layers:
            _spy(layer.layer, labels[layer.path], set(layer.attributes), self.read)
        for module, key in keys:
            module.__dict__["forward"] = self._answering(key)

    def code(self, path: str, module: nn.Module) -> Code:
        """Return the code of a module, before `install`."""
        forward = module.forward
        if not isinstance(module, ChoiceModule):
            return Code(path, forward)
        labels = self._space.sites[path]

        def choosing(*args: Any, **kwargs: Any) -> Any:
            self.read(labels)
            return forward(*args, **kwargs)

        return Code(path, choosing)

    def read(self, labels: tuple[str, ...]) -> None:
        """Take down that the code under way reads the options of some decisions."""
        log = self._log
        for label in labels if log is not None else ():
            assert log is not None
            if label not in log.read:
                log.read.add(label)
                log.event("read", self._options.get(label), label=label)

    def op(self, name: str, macs: int | None) -> None:
        """Take down that the code under way carried out an operation; see `watched`."""
        log = self._log
        if log is None:
            return
        log.fed = None  # what is called next is not fed by a call alone
        if macs is None:
            log.uncounted.append(f"{name} in {log.code.path or 'the model'}")
        else:
            log.macs += macs

    def run(self, code: Code, given: Given) -> State:
        """Run code for real and return its end."""
        if not self._selected:
            self._space.select(self._architecture)
            self._selected = True
        args, kwargs = given.fresh()
        log = _Log(code, given)
        with self._watched():
            self._log = log
            try:
                output = code.forward(*args, **kwargs)
            finally:
                self._log = None
        return log.event(
            "end",
            out=self._values.of(output),
            handed_on=self._values.handed_on(given, args, output),
            macs=log.macs,
            uncounted=tuple(dict.fromkeys(log.uncounted)),
        )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self._watching:
            yield
            return
        self._watching = True
        try:
            with watched(self):
                yield
        finally:
            self._watching = False

    def _answering(self, key: Any) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            log, self._log = self._log, None  # what the call does is not the code's own doing
            assert log is not None
            try:
                fed = len(args) == 1 and not kwargs and args[0] is log.fed
                fed_by = log.fed_by if fed else None
                given = self._values.of((args, kwargs))
                out, handed_on = self._run(key, given, fed_by)
                value = args[0] if handed_on else out.fresh()
            finally:
                self._log = log
            log.event("call", (out, handed_on), key=key, given=given, fed_by=fed_by)
            log.fed, log.fed_by = value, key
            return value

        return answer


def _spy(
    layer: nn.Module,
    labels: tuple[str, ...],
    attributes: set[str],
    read: Callable[[tuple[str, ...]], None],
) -> None:
    """Let a layer tell when its open attributes or its tensors are read."""
    names = attributes | set(layer._parameters) | set(layer._buffers)
    kind = type(layer)

    class Spied(kind):  # type: ignore[misc, valid-type]
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                read(labels)
            return super().__getattribute__(name)

    Spied.__name__, Spied.__qualname__ = kind.__name__, kind.__qualname__
    layer.__class__ = Spied
