"""Graphs of modules by torch.fx, which leave the modules as they were."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

from assay.errors import UnsupportedLayer

__all__ = ["block_graph", "graphs", "unmarked"]

_CONSTANTS = (type(None), bool, int, float, str)


@contextmanager
def unmarked(model: nn.Module) -> Iterator[None]:
    """Within: a trace may set on modules what it will; after: they have what they had.

    torch.fx keeps constants on the model, and a forward that keeps a feature keeps a proxy.
    """
    had = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for now, before in had:
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)


def graphs(model: nn.Module) -> Iterator[fx.Graph]:
    """Yield all graphs that a forward can be: in both modes, with and without optional arguments.

    Optional are those that default to None. A model that does not run without them is taken to be
    called with them. Other defaults are taken as they are.

    Args:
        model: Its modes change, and it may be marked: call this within `unmarked`.
    Raises:
        UnsupportedLayer: torch.fx cannot trace it.
    """
    _, *parameters = inspect.signature(type(model).forward).parameters.values()
    constants = {p.name: p.default for p in parameters if type(p.default) in _CONSTANTS}
    given = {name: value for name, value in constants.items() if value is not None}
    required = any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)
    for training in (False, True):
        model.train(training)
        try:
            graph = _traced(model, given)
        except Exception as error:  # a user's forward can raise anything on symbolic tensors
            raise _refusal(model, error) from error
        yield graph
        if required and given != constants:
            yield from _without_optional(model, constants)


def _without_optional(model: nn.Module, constants: Mapping[str, Any]) -> Iterator[fx.Graph]:
    try:
        graph = _traced(model, constants)
    except fx.proxy.TraceError as error:
        raise _refusal(model, error) from error
    except Exception:  # whatever a forward does with None in the place of a tensor
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    if not any(None in node.args for node in calls):  # torch.fx does not run its own layers
        yield graph


def _traced(model: nn.Module, constants: Mapping[str, Any]) -> fx.Graph:
    return fx.Tracer().trace(model, concrete_args=dict(constants) or None)


def _refusal(model: nn.Module, error: Exception) -> UnsupportedLayer:
    return UnsupportedLayer(
        f"{type(model).__name__} cannot be traced by torch.fx ({error}); to change its "
        "widths or depth it needs a forward without control flow that depends on a tensor"
    )


def block_graph(block: nn.Module) -> fx.Graph | None:
    """Return the graph of a part of a model; None of a module of torch's own, which has none.

    Neither has one whose control flow depends on what the model tells it.

    Args:
        block: Left as it is.
    """
    tracer = fx.Tracer()
    if tracer.is_leaf_module(block, ""):
        return None
    try:
        with unmarked(block):
            return tracer.trace(block)
    except fx.proxy.TraceError:
        return None
