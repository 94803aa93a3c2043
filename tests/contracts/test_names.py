"""Whatever has a name is hooked to its contract suite."""

from __future__ import annotations

import importlib

import pytest

from assay.run.names import ESTIMATORS, EXECUTORS, STRATEGIES
from assay.testing import EstimatorContract, ExecutorContract, StrategyContract
from assay.testing.plug import made
from assay.testing.spaces import SpaceContract
from assay.zoo import SPACES

KINDS = {
    "strategy": (STRATEGIES, StrategyContract),
    "estimator": (ESTIMATORS, EstimatorContract),
    "executor": (EXECUTORS, ExecutorContract),
}


def hooked(suite: type, module: str) -> list[type]:
    """Return the suites of a test module that pytest collects."""
    values = vars(importlib.import_module(f"tests.contracts.{module}")).items()
    return [v for k, v in values if k.startswith("Test") and issubclass(v, suite)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_hooked_to_its_suite(kind):
    names, suite = KINDS[kind]
    plural = {"strategy": "strategies"}.get(kind, f"{kind}s")
    made_by = {type(made(s(), kind)) for s in hooked(suite, f"test_{plural}")}
    tested = {f"{cls.__module__}:{cls.__qualname__}" for cls in made_by}
    assert set(names.values()) <= tested


def test_every_ready_space_is_hooked_to_its_suite():
    assert {s.space for s in hooked(SpaceContract, "test_spaces")} == set(SPACES.values())
