"""Searches by each estimator, and by halving, which trains some architectures longer."""

from __future__ import annotations

import pytest

import assay
from assay.errors import InvalidSetting
from assay.handover.export import HandOver
from assay.run import ending, face
from assay.run.names import ESTIMATORS
from assay.run.plan import Finalists
from assay.study.store import Study
from assay.testing import FakeDevice, FakeEstimator, tiny_space, tiny_task
from assay.train.recipe import Recipe

NINTH, THIRD, WHOLE = (3.0**-i for i in (2, 1, 0))


@pytest.fixture(autouse=True, scope="module")
def no_files():
    """The report and the winner's files have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face, "write_report", lambda study, path, **options: path)
        patch.setattr(ending, "hand_over", lambda *_, **__: HandOver())
        yield


def search(out, **changes):
    given = {
        "estimator": "low-fidelity", "objectives": ("score",), "budget": "steps=1,trials=30",
        "recipe": Recipe(batch_size=32, epochs=3), "target": FakeDevice(lambda module: 0.25),
        "finalists": Finalists(k=1, compare=False), **changes,
    }  # fmt: skip
    return assay.search(tiny_space(), tiny_task(), out=out, **given)


def halving(out, **changes):
    settings = {"strategy": {"num": 9, "eta": 3, "depth": 2}, "estimator": {"share": 1.0}}
    return search(out, strategy="halving", **{"settings": settings, **changes})


def winner(out):
    with Study.read(out) as study:
        return study.get("winner")


def judged(result):
    """Return what does not depend on the clock."""
    return [(t.architecture, t.state, t.fidelity, t.parent, t.objectives) for t in result.trials()]


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    return halving(tmp_path_factory.mktemp("runs") / "whole")


def test_a_rung_goes_on_from_the_best_third_of_the_one_below(climbed):
    trials = climbed.trials()
    assert {t.fidelity for t in trials} == {NINTH, THIRD, WHOLE}
    for t in trials:
        assert (t.parent is None) == (t.fidelity == NINTH)
        if t.parent is not None:
            below = trials[t.parent]
            assert below.architecture == t.architecture
            assert below.fidelity == pytest.approx(t.fidelity / 3)


def test_the_finalist_and_the_front_are_of_those_trained_longest(climbed):
    longest = [t for t in climbed.trials() if t.fidelity == WHOLE]
    best = max(longest, key=lambda t: t.objectives)
    assert winner(climbed.out)["trial"] == best.number
    assert climbed.front() == [best]


def test_trials_for_one_bracket_are_spent_on_one_bracket(tmp_path):
    result = halving(tmp_path / "one", budget="steps=1,trials=13")
    assert [t.fidelity for t in result.trials()] == [NINTH] * 9 + [THIRD] * 3 + [WHOLE]


@pytest.mark.parametrize(("trials", "told"), [(12, True), (13, False)])
def test_too_few_trials_for_a_whole_training_are_told(tmp_path, trials, told):
    said = []
    halving(
        tmp_path / "few", budget=f"steps=1,trials={trials}",
        on_event=lambda event: said.append(event.message),
    )  # fmt: skip
    expected = f"{trials} trials end in a lower rung, where a cycle of all has 13"
    assert any(expected in text for text in said) == told


class Timed(FakeEstimator):
    """Says that a whole training takes a second."""

    heeds_fidelity = True

    def step_seconds(self, ctx):
        return 0.0

    def estimate_seconds(self, ctx):
        return 1.0


def test_a_time_pays_for_rungs_by_their_share_of_a_training(tmp_path):
    """Of nine, three and one at 1/9, 1/3 and 1 a trial is 3/13 of a training on average."""
    search(
        tmp_path / "timed", strategy="halving", estimator=Timed(len), budget="100s,epochs=1",
        settings={"strategy": {"num": 9, "eta": 3, "depth": 2}},
    )  # fmt: skip
    with Study.read(tmp_path / "timed") as study:
        counts = study.phase("search").counts
    assert counts["trials"] == int(counts["seconds"] * 13 / 3)
    # Finalists that train for one short epoch use next to nothing: the search has their time.
    assert 70 < counts["seconds"] < 100


class Stop(Exception):
    """Raised by a listener, as a kill would come."""


@pytest.mark.parametrize("batches", [1, 2])
def test_stopped_and_continued_it_finds_the_same(climbed, tmp_path, batches):
    seen = []

    def listener(event):
        seen.extend([event] * (event.kind == "progress" and event.step == "search"))
        if len(seen) == batches:
            raise Stop

    with pytest.raises(Stop):
        halving(tmp_path / "cut", on_event=listener)
    again = halving(tmp_path / "cut")
    assert judged(again) == judged(climbed)
    assert winner(again.out)["trial"] == winner(climbed.out)["trial"]


def test_rungs_without_training_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InvalidSetting, match=r"OneShot cannot; use .*'low-fidelity' or 'scratch'"):
        search(tmp_path / "refused", strategy="halving", estimator="one-shot")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    "estimator", [pytest.param(n, marks=[pytest.mark.slow] * (n == "fused")) for n in ESTIMATORS]
)
def test_every_estimator_goes_through_a_search(tmp_path, estimator):
    steps = {"predictor": 60, "fused": 120}.get(estimator, 6)
    result = search(
        tmp_path / "out", estimator=estimator, strategy="random", budget=f"steps={steps},trials=4"
    )
    trials = result.trials()
    assert [t.state for t in trials] == ["scored"] * 4
    assert {t.estimate.made_from["estimator"] for t in trials} == {estimator}
    assert winner(result.out)["architecture"] in [dict(t.architecture) for t in trials]
