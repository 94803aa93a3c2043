"""What whoever writes a plug-in inherits: contract suites, fakes, and something tiny to run on.

A suite is a class of pytest tests. A subclass names the plug-in, and pytest does the rest:

    class TestMine(StrategyContract):
        strategy = Mine

Put `pytest.register_assert_rewrite("assay.testing")` into your conftest.py, and a broken contract
shows its values. Needs pytest, which Assay itself does not install.
"""

from __future__ import annotations

from assay.testing.devices import DeviceContract
from assay.testing.estimators import EstimatorContract
from assay.testing.executors import ExecutorContract
from assay.testing.fakes import FakeDevice, FakeEstimator
from assay.testing.paths import PathsContract
from assay.testing.spaces import SpaceContract
from assay.testing.strategies import StrategyContract
from assay.testing.studies import StudyContract
from assay.testing.tiny import TinyNet, tiny_context, tiny_history, tiny_space, tiny_task

__all__ = [
    "DeviceContract",
    "EstimatorContract",
    "ExecutorContract",
    "FakeDevice",
    "FakeEstimator",
    "PathsContract",
    "SpaceContract",
    "StrategyContract",
    "StudyContract",
    "TinyNet",
    "tiny_context",
    "tiny_history",
    "tiny_space",
    "tiny_task",
]
