"""How weights are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from assay.errors import InvalidSetting

__all__ = ["Recipe"]


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
        ema: Decay of an exponential moving average of the weights; 0 for none.
        clip: Largest gradient norm; 0 for none.
        precision: "auto", "fp32", "bf16" or "fp16".
        channels_last: "auto" for networks with 2-D convolutions, or a bool.
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
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidSetting(f"recipe.{name}={value!r} must lie in {low:g} to {high:g}")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise InvalidSetting(
                    f"recipe.{name}={getattr(self, name)!r}; there are: {', '.join(known)}"
                )

    def with_(self, **changes: Any) -> Recipe:
        """Return a recipe with some values changed."""
        return replace(self, **changes)

    def steps(self, num_samples: int, epochs: int | None = None) -> int:
        """Return the optimiser steps of `epochs` passes (by default the recipe's own)."""
        per_epoch = max(1, num_samples // min(self.batch_size, num_samples))
        return per_epoch * (self.epochs if epochs is None else epochs)

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0 .. steps - 1.

        Rises as (step + 1) / w over the first w = warmup x steps; then constant, or half a cosine.
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return self.lr
        done = (step - rising) / max(1, steps - rising)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))


_RANGES = (
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
_WORDS = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
