"""Names on the command line: of estimators inside others, of tasks, and of what an object is."""

from __future__ import annotations

import pytest

from assay.errors import InvalidSetting
from assay.estimators.fused import Fused
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.scratch import Scratch
from assay.estimators.zero_cost import ZeroCost
from assay.run.names import ESTIMATORS, name_of, resolve
from assay.testing import FakeEstimator


def made(name, **settings):
    return resolve("estimator", ESTIMATORS, name, settings)


def test_an_option_that_takes_an_estimator_takes_its_name():
    assert made("predictor", of="one-shot") == Predictor(OneShot())
    assert made("predictor", signals="zero-cost") == Predictor(signals=ZeroCost())
    assert made("fused", of="scratch").of == Scratch()
    others = Fused(others=(OneShot(), Inherit())).others
    assert made("fused", others="one-shot, inherit").others == others
    assert made("fused", others='["one-shot"]').others == (OneShot(),)
    assert made("inherit", supernet="one-shot") == Inherit(supernet=OneShot())


def test_an_option_that_takes_a_task_takes_its_name():
    assert made("low-fidelity", proxy="digits", share="0.1").proxy.name == "digits"


def test_objects_stay_what_they_are():
    of = LowFidelity(share=0.1)
    assert made("predictor", of=of).of is of


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("predictor", {"of": "oneshot"}, "estimator.of='oneshot' is no estimator; did you mean"),
        ("fused", {"others": "one-shot,scrach"}, "estimator.others='scrach' .*'scratch'"),
        ("low-fidelity", {"proxy": "digit"}, "unknown task 'digit'; did you mean 'digits'"),
        ("inherit", {"supernet": "scratch"}, "estimator.supernet=.* does not fit: .*OneShot"),
        # A study that is resumed keeps such text, and nothing in a study is imported.
        ("predictor", {"of": "assay.estimators.scratch:Scratch"}, "is no estimator"),
    ],
)
def test_another_name_is_refused_with_the_nearest(name, settings, message):
    with pytest.raises(InvalidSetting, match=message):
        made(name, **settings)


def test_an_object_is_known_by_its_class_whatever_its_settings():
    assert name_of(ESTIMATORS, LowFidelity(share=0.1)) == "low-fidelity"
    assert name_of(ESTIMATORS, FakeEstimator(len)) == ""
    assert {name_of(ESTIMATORS, made(name)) for name in ESTIMATORS} == set(ESTIMATORS)
