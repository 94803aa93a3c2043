"""What tells a layer from others of its class, as text that is the same in every process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from assay.train.content import written
from assay.train.teller import Teller

__all__ = ["settings_of"]

_OF_ANY_MODULE = frozenset({*vars(nn.Module()), "forward"})


def settings_of(module: nn.Module) -> str:
    """Return what tells a layer from others of its class, of which latency may depend.

    That is what its repr tells in parentheses; where that is not torch's or tells nothing, also
    its attributes, and the code of a class that was made within a function, of which there may be
    others by its name. Of tensors shapes and types count, not their values.

    Args:
        module: Without children, or with a rule.
    """
    kind, teller = type(module), _Teller()
    told = " ".join(module.extra_repr().split())
    own = vars(module).get("forward")
    if own is not None and not _is_ours(own):
        told = f"{told}; forward={teller.told(own)}"
    torchs = kind.__module__.startswith("torch.nn.")
    if torchs and kind.extra_repr is not nn.Module.extra_repr:
        return told
    mine = {name: " ".join(teller.told(v).split()) for name, v in sorted(_attributes(module))}
    if torchs and not mine:
        return told
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    return f"{told}; {_class(kind, teller)} {mine} {shapes}"


class _Teller(Teller):
    """Tells tensors by shape and type, objects by all that they hold, modules by their layers."""

    def tensor(self, tensor: Tensor) -> str:
        """Return the shape and type of a tensor `[...]`."""
        return f"{tuple(tensor.shape)} {tensor.dtype}"

    def held(self, thing: Any) -> Mapping[str, Any]:
        """Return what an object holds: name -> value; of a module what each of its layers does."""
        if isinstance(thing, nn.Module):
            return {path or "itself": _layer(part) for path, part in thing.named_modules()}
        slots = (name for kind in type(thing).__mro__ for name in _slots(kind))
        kept = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
        return {**kept, **getattr(thing, "__dict__", {})}

    def state(self, module: nn.Module) -> Mapping[str, Any]:
        """Return nothing: what counts of it is with the layers."""
        return {}


def _layer(module: nn.Module) -> list[Any]:
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
    # a choice of the model's, which a function captured, may have a path selected now or not
    kept = {} if _is_ours(type(module)) else dict(_attributes(module))
    return [type(module), module.extra_repr(), kept, shapes]


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, v) for name, v in vars(module).items() if name not in _OF_ANY_MODULE]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _class(kind: type, teller: Teller) -> str:
    """Return the name of a class; of one that was made within a function also what it does."""
    local = [k for k in kind.__mro__ if "<locals>" in k.__qualname__]
    does = f" {teller.told([written(k, teller) for k in local])}" if local else ""
    return f"{kind.__module__}:{kind.__qualname__}{does}"


def _is_ours(thing: Any) -> bool:
    """Whether a class is Assay's, or a forward that it put on a module while it looks on."""
    return str(getattr(thing, "__module__", "")).startswith("assay.")
