"""What was published of each kind of estimator, to stand beside what is measured."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLAIMS"]

CLAIMS: Mapping[str, str] = {
    "scratch": "the truth, up to the noise of its seeds",
    "low-fidelity": "8 GPU-days against 3,150 by reduced training (EcoNAS, arXiv:2001.01233)",
    "inherit": "below 6 % error on CIFAR-10 by 12 hours of search and training on one GPU (NASH, "
    "arXiv:1711.04528)",
    "hypernet": "weights in a fraction of a second, tau 0.26 to 0.28 on 500 CIFAR-10 networks "
    "(graph hypernetworks, arXiv:2110.13100)",
    "one-shot": "a search 1,000 times cheaper (ENAS, arXiv:1802.03268); tau 0.19 to 0.44 on "
    "NAS-Bench-101 (arXiv:1902.08142), 0.50 on 201 (arXiv:2006.06863)",
    "zero-cost": "a search in seconds on one GPU (arXiv:2006.04647); rho -0.29 to 0.80, by signal "
    "and space (NAS-Bench-Suite-Zero, arXiv:2210.03230)",
    "predictor": "20 times fewer trainings than by regularised evolution on NAS-Bench-101 "
    "(arXiv:1912.00848)",
}
"""Registered name of an estimator -> what is claimed of its speed or worth, with its source; those
not in it have no published figure that can be compared."""
