"""What was published of each kind of estimator, to stand beside what is measured."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLAIMS"]

CLAIMS: Mapping[str, str] = {
    "scratch": "the truth, up to the noise of its seeds",
    "low-fidelity": "8 GPU-days against 3,150 by reduced training (EcoNAS, arXiv:2001.01233)",
    "hypernet": "tau 0.26 to 0.28 on 500 CIFAR-10 networks (graph hypernetworks, arXiv:2110.13100)",
    "one-shot": "tau 0.19 to 0.44 on NAS-Bench-101 (arXiv:1902.08142), 0.50 on 201 (2006.06863)",
    "zero-cost": "rho -0.29 to 0.80, by signal and space (NAS-Bench-Suite-Zero, arXiv:2210.03230)",
}
"""Registered name of an estimator -> what is claimed of its speed or worth, with its source; those
not in it have no published figure that can be compared."""
