"""The blocks that a child has and its parent has not, and whether they begin as the identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.space.choices import Depth, OneOf
from assay.space.space import Space
from assay.train.splits import leaves
from assay.train.task import call_model
from assay.weights.morph.same import judging
from assay.weights.morph.steps import Morph

__all__ = ["identities", "new_blocks"]

_ROUNDING = 1e-12  # of float64, in which functions are compared


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
    modules = space.structure.modules
    labels = {id(module): label for label, same in modules.items() for module in same}
    paths = {id(module): path for path, module in space.model.named_modules()}
    for choice in modules[morph.label]:
        if isinstance(choice, Depth):
            added = list(choice._modules.values())[int(morph.before) : int(morph.after)]  # type: ignore[arg-type]
        else:
            added = [choice]
        for block in added:
            while isinstance(block, OneOf) and labels[id(block)] in child:
                block = block.get_submodule(str(child[labels[id(block)]]))
            if paths[id(block)] in places:
                yield places[paths[id(block)]]


def identities(network: nn.Module, blocks: Iterable[str], example: Any) -> set[str]:
    """Return the blocks that give out what they are given on an example, but for rounding.

    Args:
        network: Called in eval mode; left as it is.
        blocks: Module paths.
        example: Inputs `[N, ...]`.
    """
    found: dict[str, bool] = {}
    given: dict[str, list[Any]] = {}

    def watch(path: str) -> Iterator[Any]:
        def before(module: nn.Module, args: Any) -> None:
            given[path] = [_copy(leaf) for leaf in leaves(args)]  # it may write into them

        def behind(module: nn.Module, args: Any, out: Any) -> None:
            gave = list(leaves(out))
            same = len(args) == 1 and len(given[path]) == len(gave)
            same = same and all(map(_are_close, given[path], gave))
            found[path] = found.get(path, True) and same

        block = network.get_submodule(path)
        yield block.register_forward_pre_hook(before)
        yield block.register_forward_hook(behind)

    hooks = [hook for path in blocks for hook in watch(path)]
    try:
        with judging(network):
            call_model(network, example)
    finally:
        for hook in hooks:
            hook.remove()
    return {path for path, same in found.items() if same}


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _are_close(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return one is other
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    most = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_ROUNDING * max(most, 1.0))
