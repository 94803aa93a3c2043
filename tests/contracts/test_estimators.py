"""Every estimator, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.estimators.fused import Fused
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.scratch import Scratch
from assay.estimators.zero_cost import ZeroCost
from assay.testing import EstimatorContract, FakeEstimator


class TestOneShot(EstimatorContract):
    estimator = OneShot


class TestOneShotFair(EstimatorContract):
    estimator = staticmethod(lambda: OneShot(paths="fair", norms="batch", score="metric"))


class TestScratch(EstimatorContract):
    estimator = staticmethod(lambda: Scratch(seeds=2))


class TestLowFidelity(EstimatorContract):
    estimator = staticmethod(lambda: LowFidelity(share=0.5, data=0.6))


class TestLowFidelityFit(EstimatorContract):
    estimator = staticmethod(lambda: LowFidelity(share=1.0, score="fit", points=4, ema=0.0))


class TestPredictor(EstimatorContract):
    estimator = staticmethod(lambda: Predictor(LowFidelity(share=0.3), sample=12, batch=3, pool=40))


class TestPredictorOfTrees(EstimatorContract):
    estimator = staticmethod(
        lambda: Predictor(Scratch(), model="trees", sample=8, batch=4, pool=20, explore=1.0)
    )


class TestPredictorOfOneShot(EstimatorContract):
    estimator = staticmethod(lambda: Predictor(OneShot(), sample=8, batch=4, pool=20))


class TestInherit(EstimatorContract):
    estimator = staticmethod(lambda: Inherit(ancestors=2, tune_steps=3))


class TestInheritFromASupernet(EstimatorContract):
    estimator = staticmethod(lambda: Inherit(supernet=OneShot(), tune_steps=3))


class TestHypernet(EstimatorContract):
    estimator = staticmethod(lambda: Hypernet(hidden=8))


class TestZeroCost(EstimatorContract):
    estimator = staticmethod(lambda: ZeroCost(batch=32))


class TestFused(EstimatorContract):
    estimator = staticmethod(
        lambda: Fused(ZeroCost(reference=8, batch=8), LowFidelity(share=0.3), sample=12, batch=4)
    )


class TestFusedWithOneShot(EstimatorContract):
    estimator = staticmethod(
        lambda: Fused(
            ZeroCost(("macs", "synflow"), reference=8), LowFidelity(steps=3), (OneShot(),), sample=8
        )
    )


class TestFakeEstimator(EstimatorContract):
    estimator = staticmethod(lambda: FakeEstimator(len))
