"""Tasks, recipes, and the one loop that trains weights."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["READY"]

READY: Mapping[str, str] = {
    "digits": "assay.train.ready:digits",
    "fashion-mnist": "assay.train.ready:fashion_mnist",
    "cifar10": "assay.train.ready:cifar10",
}
"""Ready tasks: name -> "module:function"; here, since to list names takes no torch."""
