"""Buffers that a module's own state leaves out, such as counters and caches."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["loose", "put_back"]


def loose(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers `[...]` of a module, by path, that are not persistent; the live ones."""
    kept = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in kept}


def put_back(module: nn.Module, buffers: Mapping[str, Tensor], device: str) -> None:
    """Give a module such buffers of another of its kind, of whatever shape they have by now.

    A buffer that several modules share stays shared.

    Args:
        module: On the device already.
        buffers: As `loose` returned them, `[...]`; they are copied.
        device: Torch device; a buffer that the module has not yet made goes there, too.
    """
    places = [(owner, name) for owner in module.modules() for name in owner._buffers]
    for path, value in buffers.items():
        parent, _, own = path.rpartition(".")
        owner = module.get_submodule(parent)
        old = owner._buffers[own]
        new = value.detach().clone().to(device)
        shared = [] if old is None else [at for at in places if at[0]._buffers[at[1]] is old]
        for place, name in [(owner, own), *shared]:
            place._buffers[name] = new
