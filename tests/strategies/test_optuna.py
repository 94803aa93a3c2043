"""What Optuna's samplers are told of a history, and what they make of it."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from torch import nn

from assay.contracts import Estimate, History, Trial
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.run.names import STRATEGIES, describe, resolve
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.optuna import Optuna
from assay.strategies.random import Random
from tests.strategies.history import Counting, chain, failed, infeasible, point, scored

optuna = pytest.importorskip("optuna")

PURE = {"population_size": 4, "mutation_prob": 0.0, "crossover_prob": 1.0}
"""Generations of four, whose children have nothing but what their parents have."""


def ask(trials, n=1, seed=0, sampler="tpe", **settings):
    history = History(chain(), trials)
    return Optuna(sampler, settings).ask(history, n, rng=np.random.default_rng(seed))


def repeated(number: int) -> int:
    """The number of six equal digits: what has them has no other in common."""
    return 111_111 * number


def like(number: int, trial: Trial) -> Trial:
    """The trial with another architecture, of six equal digits."""
    return Trial(
        trial.number, point(repeated(number)), trial.state, trial.estimate,
        objectives=trial.objectives, violation=trial.violation, error=trial.error,
    )  # fmt: skip


def bred(trials, sampler="nsga2") -> set[int]:
    """Return the digits that 40 children have."""
    children = ask(trials, 40, sampler=sampler, **PURE)
    return {int(str(o)[1:]) for c in children for o in c.architecture.values()}


# --- what is told -------------------------------------------------------------------------------


def told(trials, **settings):
    history = History(chain(), trials)
    strategy = Optuna("random", settings)
    strategy.ask(history, 2, rng=derive(0))
    told = strategy._told._study.get_trials()
    return [t for t in told if t.state.name != "FAIL" or t.number < len(history.ended())]


def test_trials_are_told_with_states_objectives_and_violations():
    trials = [scored(0, 2.0, -1.0), infeasible(1, 0.25), failed(2), scored(3, 1.0, 5.0),
              infeasible(4, 0.5)]  # fmt: skip
    found = told(trials)
    assert [t.state.name for t in found] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    # Over a limit there is no score: the least so far stands in for it.
    assert [t.values for t in found] == [[2, -1], [2, -1], None, [1, 5], [1, -1]]
    assert [t.constraints.get("violation") for t in found] == [0, 0.25, None, 0, 0.5]
    assert [t.params for t in found] == [dict(t.architecture) for t in trials]


def test_without_limits_there_is_no_constraint():
    assert [t.constraints for t in told([scored(0, 1.0), failed(1), scored(2, 2.0)])] == [{}] * 3


def test_only_what_has_ended_stays():
    trials = [scored(0, 1.0), Trial(1, point(1)), scored(2, 3.0)]
    assert [t.values for t in told(trials)] == [[1.0]]


def test_options_that_are_no_plain_values_are_told_as_their_text():
    from tests.space.test_suggest import Nested

    space = Space(Nested())
    history = History(space)
    for a in list(space.all())[:12]:
        history.append(Trial(len(history), a, "scored", Estimate(0.0), objectives=(0.0,)))
    for proposal in Optuna().ask(history, 4, rng=derive(0)):
        assert space.contains(proposal.architecture)
        assert type(proposal.architecture["read"]) is tuple


# --- what is made of it -------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_children_descend_from_the_generation_before(sampler):
    first = [like(i, scored(i, float(i))) for i in range(4)]
    assert len(bred(first[:3], sampler)) == 10  # not whole yet: random
    assert bred(first, sampler) == {0, 1, 2, 3}
    later = [*first, *(like(i, scored(i, float(i))) for i in range(4, 7))]
    assert bred(later, sampler) == {0, 1, 2, 3}
    assert bred([*later, like(7, scored(7, -1.0))], sampler) == {3, 4, 5, 6}  # the best of eight
    assert bred([*later, failed(7)], sampler) == {0, 1, 2, 3}  # no member of a generation


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_limits_come_before_objectives(sampler):
    over = [like(i, infeasible(i, 1.0 + i)) for i in range(4)]
    within = [like(i, scored(i, float(-i))) for i in range(4, 8)]
    assert bred([*over, *within], sampler) == {4, 5, 6, 7}
    nearer = [like(i, infeasible(i, 0.1 * (i - 3))) for i in range(4, 8)]
    assert bred([*over, *nearer], sampler) == {4, 5, 6, 7}


def test_nsga2_keeps_both_ends_of_a_front():
    ends = [like(i, scored(i, v, -v)) for i, v in enumerate([9.0, -9.0, 5.0, -5.0])]
    inner = [like(i, scored(i, v, -20.0)) for i, v in enumerate([1.0, 2.0, 3.0, 4.0], start=4)]
    assert bred([*ends, *inner]) == {0, 1, 2, 3}


@pytest.mark.parametrize(("sampler", "cls"), [("tpe", "TPESampler"), ("random", "RandomSampler")])
def test_it_asks_what_optuna_itself_would(sampler, cls):
    """A study of Optuna's own with the same trials and the same seed suggests the same."""
    trials = [scored(i, float(i % 7), float(i % 5)) for i in range(40)]
    space = chain()
    seed = int(np.random.default_rng(3).integers(2**32))
    own = optuna.create_study(
        directions=["maximize"] * 2, sampler=getattr(optuna.samplers, cls)(seed=seed)
    )
    options = {
        label: optuna.distributions.CategoricalDistribution(c.options)
        for label, c in space.choices.items()
    }
    for t in trials:
        own.add_trial(optuna.trial.create_trial(
            params=dict(t.architecture), distributions=options, values=t.objectives
        ))  # fmt: skip
    expected = [space.suggest(own.ask()) for _ in range(3)]
    asked = ask(trials, 3, seed=3, sampler=sampler)
    assert [p.architecture for p in asked] == expected


@pytest.mark.slow
def test_the_gaussian_process_learns_and_heeds_limits():
    """It has seen what has few b's, and that the last one may be none; it suggests more b's."""
    space = Space(nn.Sequential(*[OneOf(a=nn.Tanh(), b=nn.ReLU()) for _ in range(5)]))
    history = History(space)
    for a in space.all():
        value = float(sum(o == "b" for o in a.values()))
        if value <= 2 and a["4"] == "b":
            history.append(Trial(len(history), a, "infeasible", violation=0.5))
        elif value <= 2:
            history.append(Trial(len(history), a, "scored", Estimate(value), objectives=(value,)))
    (asked,) = Optuna("gp").ask(history, 1, rng=derive(1))
    assert sum(o == "b" for o in asked.architecture.values()) >= 3
    assert asked.architecture["4"] == "a"


def test_what_was_seen_is_not_suggested_again():
    space = Space(nn.Sequential(OneOf(a=nn.Tanh(), b=nn.ReLU()), OneOf(a=nn.Tanh(), b=nn.ReLU())))
    history = History(space)
    *known, new = space.all()
    for a in known:
        history.append(Trial(len(history), a, "scored", Estimate(0.0), objectives=(0.0,)))
    for sampler in ("random", "tpe"):
        asked = [Optuna(sampler).ask(history, 1, rng=derive(i)) for i in range(10)]
        assert {p.architecture for (p,) in asked} == {new}
    history.append(Trial(3, new, "scored", Estimate(0.0), objectives=(0.0,)))
    assert len(Optuna().ask(history, 3, rng=derive(0))) == 3  # nothing new is left


# --- as a strategy ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "nsga3"])
def test_limits_that_show_late_are_told_of_all_trials(sampler):
    history = History(chain())
    strategy = Optuna(sampler, {"population_size": 4} if sampler == "nsga3" else {})
    for i in range(30):
        strategy.ask(history, 1, rng=derive(i))
        history.append(infeasible(i, 0.5) if i == 21 else scored(i, float(i % 7)))
    fresh = Optuna(sampler, strategy.settings)
    assert strategy.ask(history, 5, rng=derive(1)) == fresh.ask(history, 5, rng=derive(1))
    complete = [t for t in strategy._told._study.get_trials() if t.state.name == "COMPLETE"]
    assert [t.constraints["violation"] for t in complete] == [0.5 * (i == 21) for i in range(30)]


def test_a_batch_is_not_one_suggestion_over_and_over():
    trials = [scored(i, float(i % 7)) for i in range(40)]
    asked = ask(trials, 20)
    assert len({p.architecture for p in asked}) == 20


def test_asking_looks_at_new_trials_only():
    history, strategy = Counting(chain()), Optuna("random")
    strategy.ask(history, 1, rng=derive(0))
    for start in range(0, 200, 25):
        for i in range(start, start + 25):
            history.append(scored(i, float(i % 7)))
        history.looks = 0
        for attempt in range(4):
            strategy.ask(history, 2, rng=derive(start, attempt))
        assert history.looks <= 2 * 25 + (start == 0) * 25


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_it_says_nothing_and_changes_no_level(capfd, level):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level)
    try:
        ask([scored(i, float(i)) for i in range(20)], 2, sampler="nsga3")
        assert optuna.logging.get_verbosity() == level
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


# --- by name ------------------------------------------------------------------------------------


def named(name, **settings):
    return resolve("strategy", STRATEGIES, name, settings)


def test_a_sampler_is_named_behind_a_colon():
    assert named("optuna") == Optuna("tpe")
    assert named("optuna:nsga3") == Optuna("nsga3")
    assert named("optuna:tpe", settings={"multivariate": False}).settings == {"multivariate": False}
    assert named("assay.strategies.random:Random") == Random()


def test_a_class_of_optunas_is_named_by_itself():
    trials = [like(i, scored(i, float(i))) for i in range(4)]
    by_class, by_us = (ask(trials, 4, sampler=name, **PURE) for name in ("nsgaii", "nsga2"))
    assert by_class == by_us


# --- a sampler as an object -----------------------------------------------------------------------


class Counts(optuna.samplers.RandomSampler):
    """One of a user's own."""

    asked = 0

    def sample_independent(self, *args):
        self.asked += 1
        return super().sample_independent(*args)


def asks(sampler, times: int = 3) -> list[list]:
    """Return what is asked, time after time, of one history."""
    history = History(chain(), [scored(i, float(i % 7)) for i in range(20)])
    strategy = Optuna(sampler)
    return [strategy.ask(history, 2, rng=derive(0)) for _ in range(times)]


def test_an_object_goes_on_from_ask_to_ask_and_the_one_given_stays_as_it_is():
    given = Counts(seed=3)
    first = asks(given)
    assert given.asked == 0
    assert asks(given) == first  # each strategy has a copy
    assert first[0] != first[1]  # though history and generator are the same: see the docs


def test_an_object_remembers_what_it_did_while_trials_end_and_break_limits():
    """The study in memory is made anew when the first trial is scored, and is over a limit."""
    history, strategy = History(chain()), Optuna(Counts(seed=3))
    asked = strategy.ask(history, 3, rng=derive(0))
    for i, proposal in enumerate(asked):
        a = proposal.architecture
        history.append(Trial(i, a, "scored", Estimate(float(i)), objectives=(float(i),)))
    (over,) = strategy.ask(history, 1, rng=derive(0))
    assert over.architecture not in [proposal.architecture for proposal in asked]
    history.append(Trial(3, over.architecture, "infeasible", violation=1.0))
    counted = strategy._own[1].asked
    strategy.ask(history, 1, rng=derive(0))
    assert strategy._own[1].asked > counted > 3


@pytest.mark.parametrize("make", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler])
def test_an_object_is_told_the_history_as_others_are(make):
    history = History(chain())
    strategy = Optuna(make(seed=1))
    for i in range(60):
        (asked,) = strategy.ask(history, 1, rng=derive(i))
        history.append(Trial(i, asked.architecture, "scored", Estimate(1.0), objectives=(1.0,)))
    assert len({t.architecture for t in history}) == 60
    assert len(strategy._told._study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 59


def test_what_is_no_sampler_and_settings_beside_an_object_are_refused():
    with pytest.raises(InvalidSetting, match=r"sampler=3 is no sampler of Optuna; give a BaseS"):
        Optuna(3)
    with pytest.raises(InvalidSetting, match=r"go with a sampler's name; make Counts with them"):
        Optuna(Counts(), {"seed": 1})


def test_the_study_is_told_the_class_of_an_object():
    told = describe(Optuna(Counts(seed=1)))["sampler"]
    assert told["class"] == "tests.strategies.test_optuna:Counts"


def test_what_is_told_of_it_to_the_study_says_all_that_it_depends_on():
    assert describe(Optuna("tpe", {"n_startup_trials": 5})) == {
        "class": "assay.strategies.optuna:Optuna", "sampler": "tpe",
        "settings": {"n_startup_trials": 5},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("optuna:tep", {}, "sampler 'tep' is unknown.*did you mean 'tpe'.*nsga3, random, tpe"),
        ("optuna:cmaes", {}, "'cmaes' chooses among options at random only; use 'random'"),
        ("optuna:qmc", {}, "'qmc' chooses among options at random only"),
        ("optuna:bruteforce", {}, "'bruteforce' takes for tried .* strategy 'random'"),
        ("optuna:grid", {}, "'grid' needs all that it is to try beforehand"),
        ("optuna:partialfixed", {}, "'partialfixed' is around another one"),
        ("optuna:basega", {}, "'basega' is unknown"),
        ("optuna:tpe", {"sampler": "gp"}, "names its sampler; leave out strategy.sampler=gp"),
        ("optuna:tpe", {"settings": {"no": 1}}, r"'tpe' with \{'no': 1\}: .*'no'"),
        ("optuna:nsga2", {"settings": {"population_size": 1}}, "greater than or equal to 2"),
        ("optuna:tpe", {"settings": {"n_startup_trials": "20"}}, r"'tpe' with \{.*'20'\}: .*'<'"),
        ("optuna:gp", {"settings": {"n_startup_trials": "20"}}, r"'gp' with \{.*'20'\}: .*'<'"),
        ("evolution:tpe", {}, "strategy 'evolution:tpe' cannot be imported"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(name, settings, said):
    with pytest.raises(InvalidSetting, match=said):
        named(name, **settings)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InvalidSetting, match=r"pip install optuna"):
        named("optuna:tpe")
