"""What a study of Optuna says of a study of ours."""

from __future__ import annotations

import sys

import pytest

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.errors import InvalidSetting
from assay.study.store import Study

optuna = pytest.importorskip("optuna")
STATE = optuna.trial.TrialState

IDENTITY = {"objectives": ["score", "-latency_ms"], "seed": 3}


def point(op, inner=None):
    more = {} if inner is None else {"inner": inner}
    return Architecture({"op": op, "width": 16, "read": (0, 2) if op == "a" else (1, 2), **more})


def estimate(score):
    return Estimate(score, {"loss": 0.25}, Cost(1.5, 32), {"estimator": "fake"})


TRIALS = [
    Trial(0, point("a"), "scored", estimate(0.5), {"latency_ms": 2.0}, (0.5, -2.0)),
    Trial(1, point("b", "x"), "infeasible", measured={"latency_ms": 9.0}, violation=0.75),
    Trial(2, point("b", "y"), "failed", error="Traceback\nValueError: no"),
    Trial(3, point("a"), "running"),
    Trial(4, point("b", "x"), "scored", estimate(0.75), {"latency_ms": 4.0}, (0.75, -4.0),
          parent=0, fidelity=0.5),
    Trial(5, point("b", "y"), "scored", estimate(0.25), {"latency_ms": 3.0}, (0.25, -3.0)),
]  # fmt: skip


@pytest.fixture
def study(tmp_path):
    with Study.open(tmp_path / "s", identity=IDENTITY, settings={"origin": {}}) as opened:
        opened.record_all(TRIALS)
        yield opened


def test_every_trial_that_ended_is_there_with_its_state_and_values(study):
    made = study.to_optuna()
    assert [d.name for d in made.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert made.metric_names == ["score", "latency_ms"]
    assert [(t.user_attrs["trial"], t.state, t.values) for t in made.trials] == [
        (0, STATE.COMPLETE, [0.5, 2.0]),  # milliseconds again, not their negative
        (1, STATE.PRUNED, None),
        (2, STATE.FAIL, None),
        (4, STATE.COMPLETE, [0.75, 4.0]),
        (5, STATE.COMPLETE, [0.25, 3.0]),
    ]
    assert [t.constraints["violation"] for t in made.trials] == [0, 0.75, 0, 0, 0]
    assert {t.user_attrs["trial"] for t in made.best_trials} == {0, 4}  # 0 dominates 5


def test_decisions_are_parameters_and_only_the_active_ones(study):
    made = study.to_optuna()
    assert made.trials[0].params == {"op": "a", "width": 16, "read": "(0, 2)"}
    assert made.trials[1].params == {"op": "b", "width": 16, "read": "(1, 2)", "inner": "x"}
    options = {k: d.choices for k, d in made.trials[1].distributions.items()}
    assert options == {
        "op": ("a", "b"), "width": (16,), "read": ("(0, 2)", "(1, 2)"), "inner": ("x", "y")
    }  # fmt: skip


def test_everything_else_is_among_the_attributes(study):
    made = study.to_optuna(name="mine")
    assert made.study_name == "mine"
    assert made.user_attrs == {"identity": IDENTITY, "settings": {"origin": {}}}
    assert made.trials[3].user_attrs == {
        "trial": 4, "fidelity": 0.5, "parent": 0, "latency_ms": 4.0, "score": 0.75, "cost_s": 1.5,
        "metrics": {"loss": 0.25}, "made_from": {"estimator": "fake"},
    }  # fmt: skip
    assert made.trials[2].user_attrs["error"] == "Traceback\nValueError: no"


def test_a_storage_of_its_own_keeps_it(study, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    study.to_optuna(url, name="mine")
    storage = optuna.storages.RDBStorage(url)
    again = optuna.load_study(study_name="mine", storage=storage)
    assert [(t.state, t.params, t.values, t.user_attrs, t.constraints) for t in again.trials] == [
        (t.state, t.params, t.values, t.user_attrs, t.constraints)
        for t in study.to_optuna(name="in memory").trials
    ]
    assert len(study.trials()) == len(TRIALS)  # ours stays as it is
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        study.to_optuna(storage, name="mine")


def test_without_names_all_objectives_are_maximised():
    with Study.open(None, identity={}) as study:
        study.record(Trial(0, point("a"), "scored", estimate(1.0), {}, (1.0, -2.0, 3.0)))
        made = study.to_optuna()
        assert made.trials[0].values == [1.0, -2.0, 3.0]
        assert {d.name for d in made.directions} == {"MAXIMIZE"}
        assert made.metric_names is None


def test_an_empty_study_is_an_empty_study():
    with Study.open(None, identity={}) as study:
        made = study.to_optuna()
        assert (made.trials, len(made.directions)) == ([], 1)


def test_without_the_package_it_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InvalidSetting, match=r"pip install optuna"):
        study.to_optuna()
