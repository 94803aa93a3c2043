from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest

from assay.architecture import Architecture
from assay.contracts import Estimate, History, Job, Proposal, Trial
from assay.cost import Cost
from assay.testing import tiny_history, tiny_space


def point(n):
    return Architecture({"a": n})


def test_a_proposal_stands_alone_by_default():
    proposal = Proposal(point(1))
    assert (proposal.fidelity, proposal.parent) == (1.0, None)
    with pytest.raises(FrozenInstanceError):
        proposal.fidelity = 0.5


@pytest.mark.parametrize("state", ["running", "infeasible", "failed"])
def test_an_estimate_goes_with_scored_only(state):
    with pytest.raises(ValueError, match="trial 3: an estimate goes with state 'scored' only"):
        Trial(3, point(1), state, Estimate(0.5))
    with pytest.raises(ValueError, match="trial 4"):
        Trial(4, point(1), "scored")
    assert Trial(5, point(1), "scored", Estimate(0.5)).estimate == Estimate(0.5, {}, Cost(), {})


def test_an_estimate_that_ranks_nothing_says_why():
    assert Estimate(0.5, made_from={"failure": "of another"}).failure == ""
    assert Estimate(math.inf).failure == "the score is inf"
    lost = Estimate.failed("at step 3", Cost(1.0, 16), {"estimator": "scratch"})
    assert math.isnan(lost.score)
    assert (lost.failure, lost.cost) == ("at step 3", Cost(1.0, 16))
    assert lost.made_from == {"estimator": "scratch", "failure": "at step 3"}


def test_a_history_grows_by_the_next_number_only():
    history = History(tiny_space())
    assert list(history) == []
    history.append(Trial(0, point(0)))
    with pytest.raises(ValueError, match="trial 2 cannot follow 1 trials"):
        history.append(Trial(2, point(2)))
    with pytest.raises(ValueError, match="trial 0 cannot follow 1 trials"):
        history.append(Trial(0, point(0)))
    assert len(history) == 1
    assert history[-1] == history[0]
    assert history[0:9] == [history[0]]


def test_only_a_running_trial_changes():
    history = History(tiny_space(), [Trial(0, point(0)), Trial(1, point(1))])
    ended = Trial(1, point(1), "scored", Estimate(0.5), objectives=(0.5,))
    history.replace(ended)
    assert history[1] is ended
    with pytest.raises(ValueError, match="trial 1 is scored; only a running one ends"):
        history.replace(replace(ended, objectives=(0.6,)))
    with pytest.raises(ValueError, match="trial 0"):
        history.replace(Trial(0, point(7), "failed", error="other"))


def test_the_first_trial_of_an_architecture_is_seen():
    history = History(tiny_space(), [Trial(0, point(0)), Trial(1, point(1)), Trial(2, point(0))])
    assert history.seen(point(0)) is history[0]
    assert history.seen(point(1)) is history[1]
    assert history.seen(point(2)) is None
    history.replace(Trial(0, point(0), "failed", error="x"))
    assert history.seen(point(0)).state == "failed"


def test_trials_have_ended_up_to_the_first_that_runs():
    history = tiny_history(tiny_space(), 9, states=("scored",) * 4 + ("running",) + ("failed",) * 4)
    assert [t.number for t in history.ended()] == [0, 1, 2, 3]
    assert [t.number for t in history.ended(2)] == [2, 3]
    assert history.ended(4) == history.ended(99) == []
    history.replace(Trial(4, history[4].architecture, "failed", error="x"))
    assert [t.number for t in history.ended(4)] == [4, 5, 6, 7, 8]


def test_a_job_gives_its_value_or_raises_its_error():
    assert Job(lambda: 1, value=1, done=True).result() == 1
    with pytest.raises(KeyError, match="gone"):
        Job(lambda: 1, error=KeyError("gone"), done=True).result()
    with pytest.raises(RuntimeError, match="this job has not run; gather it first"):
        Job(lambda: 1).result()
