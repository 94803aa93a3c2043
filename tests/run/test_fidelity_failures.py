"""A finished search is held against its trainings, those that fail left aside."""

from __future__ import annotations

import pytest

from assay.cost import Cost
from assay.errors import InvalidStudy
from assay.estimators.training import Trained
from assay.run import fidelity as module
from assay.study.store import Study
from tests.run.test_fidelity import no_files, search

__all__ = ["no_files"]  # the fixture


@pytest.fixture
def outcomes(monkeypatch):
    """What trainings give, one after another: an accuracy, or an error that they raise."""
    given = []

    def training(*_):
        def train():
            outcome = given.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return Trained({"accuracy": outcome, "loss": 1.0}, [], [], Cost(1e-3, 64, 640, "cpu"))

        return train

    monkeypatch.setattr(module, "Training", training)
    monkeypatch.setattr(module, "write_report", lambda study, path: path)
    return given


@pytest.fixture
def found(tmp_path):
    return search(tmp_path / "out", strategy="random", budget="steps=1,trials=6")


@pytest.mark.parametrize("bad", [ArithmeticError("diverged"), float("nan"), KeyError("gone")])
def test_a_training_that_fails_is_left_out_for_good_and_listed(found, outcomes, bad):
    outcomes += [0.5, bad, 0.7, 0.6]
    assert found.fidelity(num=4).table.num == 4  # the finalist and three of four
    with Study.read(found.out) as study:
        (failure,) = [f for f in study.failures() if f.phase == "fidelity"]
        assert str(failure.trial) not in study.get("fidelity")["truths"]
    assert failure.traceback
    assert found.fidelity(num=4).table.num == 4  # it is not trained again
    assert outcomes == []


def test_one_lost_to_the_machine_is_trained_again(found, outcomes):
    outcomes += [0.5, MemoryError("no room"), 0.7, 0.6]
    assert found.fidelity(num=4).table.num == 4
    outcomes += [0.55]
    assert found.fidelity(num=4).table.num == 5
    assert outcomes == []


def test_one_truth_is_too_few(found, outcomes):
    outcomes += [ArithmeticError("diverged")] * 3
    with pytest.raises(InvalidStudy, match="1 of 4 trials could be trained"):
        found.fidelity(num=3)


def test_the_report_is_written_when_the_session_has_ended(found, outcomes, monkeypatch):
    ends = []
    monkeypatch.setattr(
        module, "write_report", lambda study, path: ends.append(study.sessions()[-1]["ended"])
    )
    outcomes += [0.5, 0.6, 0.7]
    found.fidelity(num=3)
    assert ends[0] is not None
