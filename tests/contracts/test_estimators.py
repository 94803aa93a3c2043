"""Every estimator, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.estimators.one_shot import OneShot
from assay.testing import EstimatorContract, FakeEstimator


class TestOneShot(EstimatorContract):
    estimator = OneShot


class TestOneShotFair(EstimatorContract):
    estimator = staticmethod(lambda: OneShot(paths="fair", norms="batch", score="metric"))


class TestFakeEstimator(EstimatorContract):
    estimator = staticmethod(lambda: FakeEstimator(len))
