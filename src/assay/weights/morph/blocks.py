"""The blocks that a child has and its parent has not, and whether they begin as the identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from assay.architecture import Architecture
from assay.space.choices import Depth
from assay.space.space import Space
from assay.train.task import call_model
from assay.weights.morph.same import judging
from assay.weights.morph.steps import Morph, below

__all__ = ["identities", "new_blocks"]


def new_blocks(
    space: Space, child: Architecture, morph: Morph, places: Mapping[str, str]
) -> Iterator[str]:
    """Yield the blocks that a "deepen" adds: of a depth, or in the place of a skip.

    Args:
        space: The space.
        child: The child's architecture.
        morph: Of kind "deepen".
        places: Module path in the space's model -> module path in the child's network.
    """
    choices = space.structure.modules[morph.label]
    for path, module in space.model.named_modules():
        if not any(module is choice for choice in choices):
            continue
        if not isinstance(module, Depth):
            taken = below(path, str(child[morph.label]))
            yield from [places[taken]] if taken in places else []
        elif path in places:
            added = range(int(morph.before), int(morph.after))  # type: ignore[arg-type]
            yield from (below(places[path], str(i)) for i in added)


def identities(network: nn.Module, blocks: Iterable[str], example: Any) -> set[str]:
    """Return the blocks that give out, bit for bit, what they are given on an example.

    Args:
        network: Called in eval mode; left as it is.
        blocks: Module paths.
        example: Inputs `[N, ...]`.
    """
    found: dict[str, bool] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            same = len(args) == 1 and torch.equal(args[0], out)
            found[path] = found.get(path, True) and same

        return network.get_submodule(path).register_forward_hook(hook)

    hooks = [watch(path) for path in blocks]
    try:
        with judging(network):
            call_model(network, example)
    finally:
        for hook in hooks:
            hook.remove()
    return {path for path, same in found.items() if same}
