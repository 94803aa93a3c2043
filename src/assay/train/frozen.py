"""What is frozen in a model: parts that take no gradient, which keep statistics of norms too."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["frozen_norms", "frozen_parts"]


def frozen_parts(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a model that have parameters, of which none takes a gradient."""
    if all(parameter.requires_grad for parameter in model.parameters()):
        return  # as of most models; what follows asks for each parameter at each depth
    for part in model.modules():
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            yield part


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """Return the norms in frozen parts, each once: they gather no statistics, nor are given any.

    A norm without parameters is frozen with what it stands in, and trained by itself.
    """
    inside = (module for part in frozen_parts(model) for module in part.modules())
    return list(dict.fromkeys(module for module in inside if isinstance(module, _NormBase)))
