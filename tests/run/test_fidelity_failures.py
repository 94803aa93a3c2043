"""A finished search is held against its trainings, those that fail left aside."""

from __future__ import annotations

import pytest

from assay.cost import Cost
from assay.errors import InvalidSetting, InvalidStudy, Unwritable
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


def test_several_seeds_tell_the_noise_and_one_that_fails_leaves_its_trial_out(found, outcomes):
    outcomes += [0.5, 0.6, 0.7]  # of seed 0, the finalist aside
    outcomes += [0.4, 0.5, ArithmeticError("diverged"), 0.7]
    table = found.fidelity(num=3, seeds=2).table
    with Study.read(found.out) as study:
        truths = study.get("fidelity")["truths"]
        finalist = study.get("winner")["trial"]
    assert table.num == 3
    assert table.ceiling.num_seeds == 2
    assert {len(values) for values in truths.values()} == {2}
    assert truths[str(finalist)][1] == 0.4
    assert found.fidelity(num=3).table.num == 4  # with one seed nothing failed
    assert outcomes == []


def test_no_training_is_given_the_test_split_that_the_search_has_opened(
    found, outcomes, monkeypatch
):
    tasks, training = [], module.Training

    def noting(network, task, *given):
        tasks.append(task)
        return training(network, task, *given)

    monkeypatch.setattr(module, "Training", noting)
    outcomes += [0.5, 0.7, 0.6]
    found.fidelity(num=3)
    assert [task.has_test for task in tasks] == [False] * 3


def test_no_seed_is_refused(found):
    with pytest.raises(InvalidSetting, match="seeds=0 must be at least 1"):
        found.fidelity(seeds=0)


def test_one_lost_to_the_machine_is_trained_again(found, outcomes):
    outcomes += [0.5, MemoryError("no room"), 0.7, 0.6]
    assert found.fidelity(num=4).table.num == 4
    outcomes += [0.55]
    assert found.fidelity(num=4).table.num == 5
    assert outcomes == []


def test_one_that_could_not_be_booked_is_trained_again(found, outcomes, monkeypatch):
    def full(*_):
        raise Unwritable("the study cannot be written; make room for it")

    outcomes += [0.5, 0.6, 0.7, 0.8]
    with monkeypatch.context() as patch:
        patch.setattr(Study, "book", full)
        with pytest.raises(Unwritable, match="make room"):
            found.fidelity(num=3)
    with Study.read(found.out) as study:
        assert [f for f in study.failures() if f.phase == "fidelity"] == []
    assert found.fidelity(num=3).table.num == 4
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
