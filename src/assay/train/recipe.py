"""How weights are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Literal

from assay.errors import InvalidSetting, nearest

__all__ = ["Recipe"]

_MOST_JUDGED = 256


@dataclass(frozen=True)
class Recipe:
    """How weights are trained: optimiser, schedule, length, regularisation, precision.

    Parameters of fewer than two dimensions (norms, biases) are not decayed.

    Args:
        optimizer: "sgd" (Nesterov momentum) or "adamw".
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: Coupled in SGD, decoupled in AdamW.
        batch_size: Samples of a step; at most the training split's size is used.
        epochs: Passes over the training split.
        schedule: "cosine" to zero, or "constant".
        warmup: Share of the steps in which the rate rises linearly.
        label_smoothing: Of the default loss on classes, in training only.
        ema: Decay of an exponential moving average of the weights, which `finish` hands out; 0 for
            none. The decay of update n = 1, 2, ... is min(ema, (1 + n) / (10 + n)).
        clip: Largest norm of the gradient of all parameters together; 0 for none.
        precision: "fp32", "bf16", "fp16" (CUDA), or "auto": on CUDA bf16, or fp16 where that is
            emulated; on a CPU with AMX bf16 for networks wide enough, else fp32.
        channels_last: Memory format of images, or "auto": for networks with 2-D convolutions,
            unless their forward cannot take it, or a backward on the CPU would corrupt memory.
    Raises:
        InvalidSetting: a value out of range.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    epochs: int = 60
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    label_smoothing: float = 0.0
    ema: float = 0.0
    clip: float = 5.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value: Any = getattr(self, name)
            kind: Any = Integral if isinstance(low, int) else Real
            if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
                number = "a whole number" if kind is Integral else "a number"
                raise InvalidSetting(
                    f"recipe.{name}={value!r} must be {number} from {low} to {high}"
                )
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise InvalidSetting(
                    f"recipe.{name}={getattr(self, name)!r}; there are: "
                    f"{', '.join(map(str, known))}"
                )

    def with_(self, **changes: Any) -> Recipe:
        """Return a recipe with some values changed.

        Raises:
            InvalidSetting: an unknown field (the nearest are given) or a value out of range.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise InvalidSetting(f"unknown option recipe.{name}; {nearest(name, known)}")
        return replace(self, **changes)

    @property
    def evaluation_batch(self) -> int:
        """Samples judged at once: without gradients there is room for more than in a step."""
        return min(_MOST_JUDGED, 4 * self.batch_size)

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0 .. steps - 1.

        Rises as (step + 1) / (w + 1) over the first w = ceil(warmup x steps); then constant, or
        half a cosine that begins at the peak and would reach 0 at `steps`.
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return self.lr
        done = (step - rising) / max(1, steps - rising)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("lr", 1e-8, 100.0),
    ("momentum", 0.0, 0.9999),
    ("weight_decay", 0.0, 1.0),
    ("batch_size", 1, 1 << 20),
    ("epochs", 1, 1 << 20),
    ("warmup", 0.0, 1.0),
    ("label_smoothing", 0.0, 0.9),
    ("ema", 0.0, 0.99999),
    ("clip", 0.0, 1e6),
)
_WORDS: dict[str, tuple[Any, ...]] = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "channels_last": (True, False, "auto"),
}
