"""Every estimator, hooked to its suite, on a user's own module and on ready spaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.contracts import Context, History
from assay.cost import derive
from assay.estimators.fused import Fused
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.scratch import Scratch
from assay.estimators.zero_cost import ZeroCost
from assay.executors.inline import Inline
from assay.space.space import Space
from assay.testing import EstimatorContract, FakeEstimator
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.zoo.cell import cell
from assay.zoo.conv import conv


def pictures(space: Space) -> Context:
    """Return a context of a space of 3 classes of images `[N, 1, 6, 6]`."""
    images = derive(0, "pictures").integers(0, 256, (60, 6, 6), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(60) % 3, layout="NHW")
    recipe = Recipe(batch_size=16, epochs=1)
    return Context(space, task, recipe, Inline(), "cpu", 0, History(space))


READY: dict[str, Callable[[], Context]] = {
    "cell": lambda: pictures(cell(input_shape=(1, 6, 6), num_classes=3, channels=2, cells=1)),
    "conv": lambda: pictures(
        conv(
            input_shape=(1, 6, 6), num_classes=3, widths=((2, 3), (4,)), blocks=2,
            operations=("conv3", "sep3", "skip"),
        )
    ),
}  # fmt: skip


class Runs(EstimatorContract):
    """Of what trains or runs networks; the suite's own context is a user's own module."""

    runs_networks = True


class OnReadySpaces(Runs):
    """What the suite asks, on each of the ready spaces, interrupted once."""

    steps = 4

    @pytest.fixture(autouse=True, params=READY)
    def on(self, request: pytest.FixtureRequest) -> None:
        self.make: Callable[[], Context] = READY[request.param]

    def context(self) -> Context:
        return self.make()

    @pytest.mark.parametrize("yields", [2])
    def test_interrupted_and_continued_is_uninterrupted(self, yields: int, tmp_path: Path) -> None:
        super().test_interrupted_and_continued_is_uninterrupted(yields, tmp_path)


class TestOneShot(Runs):
    estimator = OneShot


@pytest.mark.slow
class TestOneShotOnReadySpaces(OnReadySpaces, TestOneShot):
    pass


class TestOneShotFair(Runs):
    estimator = staticmethod(lambda: OneShot(paths="fair", norms="batch", score="metric"))


class TestScratch(Runs):
    estimator = staticmethod(lambda: Scratch(seeds=2))


@pytest.mark.slow
class TestScratchOnReadySpaces(OnReadySpaces, TestScratch):
    estimator = Scratch


class TestLowFidelity(Runs):
    estimator = staticmethod(lambda: LowFidelity(share=0.5, data=0.6))


@pytest.mark.slow
class TestLowFidelityOnReadySpaces(OnReadySpaces, TestLowFidelity):
    pass


class TestLowFidelityFit(Runs):
    estimator = staticmethod(lambda: LowFidelity(share=1.0, score="fit", points=4, ema=0.0))


class TestPredictor(Runs):
    steps = 24
    estimator = staticmethod(lambda: Predictor(LowFidelity(share=0.3), sample=12, batch=3, pool=40))


@pytest.mark.slow
class TestPredictorOnReadySpaces(OnReadySpaces, TestPredictor):
    steps = 6
    estimator = staticmethod(lambda: Predictor(LowFidelity(steps=1), sample=6, batch=2, pool=8))


class TestPredictorOfTrees(Runs):
    steps = 56
    estimator = staticmethod(
        lambda: Predictor(Scratch(), model="trees", sample=8, batch=4, pool=20, explore=1.0)
    )


class TestPredictorOfOneShot(Runs):
    estimator = staticmethod(lambda: Predictor(OneShot(), sample=8, batch=4, pool=20))


class TestPredictorWithSignals(Runs):
    steps = 16
    estimator = staticmethod(
        lambda: Predictor(
            LowFidelity(share=0.3), sample=8, batch=4, pool=8,
            signals=ZeroCost(("macs", "synflow"), reference=8, batch=8),
        )
    )  # fmt: skip


class TestInherit(Runs):
    estimator = staticmethod(lambda: Inherit(ancestors=2, tune_steps=3))


@pytest.mark.slow
class TestInheritOnReadySpaces(OnReadySpaces, TestInherit):
    pass


class TestInheritFromASupernet(Runs):
    estimator = staticmethod(lambda: Inherit(supernet=OneShot(), tune_steps=3))


class TestHypernet(Runs):
    estimator = staticmethod(lambda: Hypernet(hidden=8))


@pytest.mark.slow
class TestHypernetOnReadySpaces(OnReadySpaces, TestHypernet):
    pass


class TestZeroCost(Runs):
    estimator = staticmethod(lambda: ZeroCost(batch=32))


@pytest.mark.slow
class TestZeroCostOnReadySpaces(OnReadySpaces, TestZeroCost):
    pass


class TestFused(Runs):
    steps = 24
    estimator = staticmethod(
        lambda: Fused(ZeroCost(reference=8, batch=8), LowFidelity(share=0.3), sample=12, batch=4)
    )


@pytest.mark.slow
class TestFusedOnReadySpaces(OnReadySpaces, TestFused):
    steps = 8
    estimator = staticmethod(
        lambda: Fused(
            ZeroCost(("macs", "synflow"), reference=4, batch=8), LowFidelity(steps=1), sample=8,
            candidates=1,
        )
    )  # fmt: skip


class TestFusedWithOneShot(Runs):
    steps = 48
    estimator = staticmethod(
        lambda: Fused(
            ZeroCost(("macs", "synflow"), reference=8), LowFidelity(steps=3), (OneShot(),), sample=8
        )
    )


@pytest.mark.slow
class TestFusedWithTwoThatTrainTheModel(Runs):
    steps = 72
    estimator = staticmethod(
        lambda: Fused(
            ZeroCost(("macs", "synflow"), reference=8), LowFidelity(steps=3),
            (OneShot(), Hypernet(hidden=8)), sample=8,
        )
    )  # fmt: skip


class TestFakeEstimator(EstimatorContract):
    estimator = staticmethod(lambda: FakeEstimator(len))
