"""Names on the command line: of estimators inside others, of tasks, and of what an object is."""

from __future__ import annotations

import pytest

from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.estimators.fused import Fused
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.scratch import Scratch
from assay.estimators.zero_cost import ZeroCost
from assay.options import options_of
from assay.run.names import ESTIMATORS, STRATEGIES, is_import, name_of, resolve
from assay.testing import FakeEstimator, tiny_context


def made(name, **settings):
    return resolve("estimator", ESTIMATORS, name, settings)


def test_an_option_that_takes_an_estimator_takes_its_name():
    assert made("predictor", of="one-shot") == Predictor(OneShot())
    assert made("predictor", signals="zero-cost") == Predictor(signals=ZeroCost())
    assert made("fused", of="scratch").of == Scratch()
    others = Fused(others=(OneShot(), Inherit())).others
    assert made("fused", others="one-shot, inherit").others == others
    assert made("fused", others='["one-shot"]').others == (OneShot(),)
    assert made("fused", others=["one-shot", "inherit"]).others == others  # as Python has it
    assert made("inherit", supernet="one-shot") == Inherit(supernet=OneShot())


def test_an_option_that_takes_a_task_takes_its_name():
    assert made("low-fidelity", proxy="digits", share="0.1").proxy.name == "digits"


def test_an_object_in_place_of_a_name_gives_its_settings():
    of = LowFidelity(share=0.1)
    assert made("predictor", of=of).of == of
    assert made("predictor", of=of).of is not of


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("predictor", {"of": "oneshot"}, "estimator.of='oneshot' is no estimator; did you mean"),
        ("fused", {"others": "one-shot,scrach"}, "estimator.others='scrach' .*'scratch'"),
        ("low-fidelity", {"proxy": "digit"}, "unknown task 'digit'; did you mean 'digits'"),
        ("inherit", {"supernet": "scratch"}, "estimator.supernet=.* does not fit .*: .*OneShot"),
        ("predictor", {"of": ["one-shot"]}, r"estimator.of=\['one-shot'\]: give one name"),
        # A study that is resumed keeps such text, and nothing in a study is imported.
        ("predictor", {"of": "assay.estimators.scratch:Scratch"}, "is no estimator"),
    ],
)
def test_another_name_is_refused_with_the_nearest(name, settings, message):
    with pytest.raises(InvalidSetting, match=message):
        made(name, **settings)


@pytest.mark.parametrize(
    "name", ["./mine.py:Net", ".mine:Net", ":Net", "mine:", "a b:Net", "a:b:c"]
)
def test_a_name_that_nobody_can_import_is_refused(name):
    assert not is_import(name)
    with pytest.raises(InvalidSetting, match=r"must be written package\.module:Class"):
        resolve("estimator", ESTIMATORS, name)


def test_an_object_is_known_by_its_class_whatever_its_settings():
    assert name_of(ESTIMATORS, LowFidelity(share=0.1)) == "low-fidelity"
    assert name_of(ESTIMATORS, FakeEstimator(len)) == ""
    assert {name_of(ESTIMATORS, made(name)) for name in ESTIMATORS} == set(ESTIMATORS)


def test_an_object_of_ours_gives_its_settings_and_keeps_what_it_learned_to_itself():
    ctx = tiny_context()
    given = Fused(
        signals=ZeroCost(("macs", "snip"), reference=4, batch=8), others=(OneShot(ema=0.5),)
    )
    for part in (given.signals, *given.others):
        for _ in part.prepare(ctx, Budget(steps=2)):
            pass
    taken = resolve("estimator", ESTIMATORS, given)
    assert taken == given
    assert given.signals.state_dict()["reference"]
    assert not taken.signals.state_dict()["reference"]
    assert given.others[0].state_dict()
    assert not taken.others[0].state_dict()


def test_an_object_of_ones_own_is_taken_as_it_is():
    class Own(ZeroCost):
        pass

    for given in (Own(), FakeEstimator(len)):
        assert resolve("estimator", ESTIMATORS, given) is given


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_strategy_of_ours_is_made_anew(name):
    given = resolve("strategy", STRATEGIES, name)
    taken = resolve("strategy", STRATEGIES, given)
    assert type(taken) is type(given)
    assert taken is not given
    assert options_of(taken) == options_of(given)
