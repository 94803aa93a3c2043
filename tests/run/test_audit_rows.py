"""The rows of an audit: each by its own settings, on equal time, and none ends the others'."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pytest

from assay.contracts import Estimate
from assay.cost import Cost
from assay.errors import InvalidSetting
from assay.report.audit import write_audit
from assay.study.store import Study
from assay.testing import FakeEstimator
from tests.run.test_audit_truths import run, trainings

__all__ = ["trainings"]  # the fixture

pytestmark = pytest.mark.usefixtures("trainings")


@dataclass
class Priced:
    """Scores by the number of decisions, states its prices, and takes none of that time.

    `asked` counts architectures, `told` the steps that it was given to prepare.
    """

    sign: float = 1.0
    step_s: float = 0.0
    each_s: float = 0.0
    fewest: int = 0

    def __post_init__(self):
        self.asked, self.told, self.score = 0, None, None

    def step_seconds(self, ctx):
        return self.step_s

    def estimate_seconds(self, ctx):
        return self.each_s

    def prepare(self, ctx, budget):
        self.told = budget.steps
        if budget.steps < self.fewest:
            raise InvalidSetting(f"{budget.steps} steps are too few; give a larger budget")
        yield Cost(0.0, 32, 320, ctx.device)

    def estimate(self, ctx, proposals):
        self.asked += len(proposals)
        return [self._estimate(p.architecture) for p in proposals]

    def _estimate(self, architecture):
        value = self.sign * len(architecture) if self.score is None else self.score(architecture)
        return Estimate(value, {}, Cost(1e-6, 5, 50, "cpu"), {"estimator": "priced"})

    def state_dict(self):
        return {"told": self.told} if self.step_s else {}

    def load_state_dict(self, state):
        self.told = state.get("told")


def broken(score):
    """Return one that scores by a function that may raise."""
    made = Priced()
    made.score = score
    return made


def row_of(found, name):
    return next(r for r in found.table.rows if r.estimator == name)


def kept(out, key="audit"):
    with Study.read(out) as study:
        return study.get(key)


def notes():
    said = []
    return said, lambda event: said.append(event.message) if event.kind == "note" else None


# --- settings -----------------------------------------------------------------------------------


def test_another_setting_is_another_row_and_the_difference_is_told(tmp_path):
    said, listener = notes()
    first, second, third = Priced(), Priced(sign=-1.0, each_s=0.5), Priced()
    taus = [
        row_of(run(tmp_path / "a", estimators={"x": one}, on_event=listener), "x").tau.value
        for one in (first, second, third)
    ]
    assert (first.asked, second.asked, third.asked) == (6, 6, 0)
    assert taus == [taus[0], -taus[0], taus[0]]
    assert taus[0] > 0
    assert said == [
        "x is set otherwise than before (sign: 1.0 -> -1.0, each_s: 0.0 -> 0.5): it is prepared "
        "and scored anew"
    ]
    assert kept(tmp_path / "a")["settings"]["x"]["sign"] == 1.0
    assert {row: told["name"] for row, told in kept(tmp_path / "a", "rows").items()} == {
        "x": "x", "x (2)": "x",
    }  # fmt: skip


def test_other_counts_prepare_anew_what_prepares_anything(tmp_path):
    said, listener = notes()
    for steps, asked in ((2, (6, 6)), (9, (6, 0)), (9, (0, 0))):
        both = {"learns": Priced(step_s=1.0), "not": Priced()}
        run(
            tmp_path / "a", estimators=both, budget=f"steps={steps},epochs=2", on_event=listener
        )  # fmt: skip
        assert tuple(one.asked for one in both.values()) == asked
    assert len(said) == 1
    assert "learns is set otherwise than before (budget.steps: 2 -> 9)" in said[0]


def test_names_that_look_alike_keep_files_of_their_own(tmp_path):
    run(tmp_path / "a", estimators={n: Priced(step_s=1.0) for n in ("a b", "a-b", "a/b")})
    assert len(list((tmp_path / "a" / "weights").iterdir())) == 3


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, RuntimeError, ArithmeticError])
def test_whatever_preparing_raises_counts_against_itself(tmp_path, error):
    class Raises(Priced):
        def prepare(self, ctx, budget):
            time.sleep(0.05)
            raise error("made to fail")
            yield

    found = run(tmp_path / "a", estimators={"bad": Raises(), "good": Priced()})
    assert row_of(found, "good").num_failed == 0
    assert row_of(found, "bad").num_failed == 6
    assert row_of(found, "bad").tau.value is None
    assert row_of(found, "bad").prepare_s >= 0.05  # booked to no other
    assert row_of(found, "bad").speedup is None
    assert row_of(found, "good").prepare_s > 0
    why = kept(tmp_path / "a")["failures"]
    assert why["good"] is None
    assert why["bad"].startswith(f"{error.__name__}: ")
    with Study.read(tmp_path / "a") as study:
        (failure,) = study.failures()
    assert failure.phase == "audit bad"
    assert "in prepare" in failure.traceback
    assert any(s.startswith("bad refused: ") for s in found.verdict)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_failure(tmp_path, stop):
    def score(architecture):
        raise stop

    with pytest.raises(stop):
        run(tmp_path / "a", estimators={"x": broken(score)})
    assert run(tmp_path / "a", estimators={"x": Priced()}).table.num == 6


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (KeyError("gone"), "KeyError: 'gone'"),
        (float("nan"), "score is nan"),
        (None, "which is no number"),
    ],
)
def test_architectures_that_fail_are_named_and_shown(tmp_path, outcome, said):
    def score(architecture):
        bad = architecture["body.0"] == "wide"
        if bad and isinstance(outcome, Exception):
            raise outcome
        return outcome if bad else 1.0 * len(architecture)

    found = run(tmp_path / "a", estimators={"x": broken(score), "y": Priced()})
    told = kept(tmp_path / "a")
    wide = {key: a for key, a in told["architectures"].items() if a["body.0"] == "wide"}
    assert 0 < len(wide) < 6
    assert row_of(found, "x").num_failed == len(wide)
    assert set(told["failed"]["x"]) == set(wide)
    assert set(told["failed"]) == {"x"}
    with Study.read(tmp_path / "a") as study:
        errors = [failure.error for failure in study.failures()]
        write_audit(study, tmp_path / "report.html")
    assert len(errors) == len(wide)
    assert all(said in error and '"body":' in error for error in errors)
    page = (tmp_path / "report.html").read_text()
    for a in wide.values():
        assert ", ".join(f"{label}={option}" for label, option in a.items()) in page


def test_what_diverged_says_why_and_is_not_asked_again(tmp_path):
    class Diverging(Priced):
        def _estimate(self, architecture):
            told = super()._estimate(architecture)
            if architecture["body.0"] == "wide":
                return Estimate.failed("not finite, at step 3", told.cost, told.made_from)
            return told

    diverging = Diverging()
    found = run(tmp_path / "a", estimators={"x": diverging, "y": Priced()})
    assert row_of(found, "x").num_failed > 0
    assert diverging.asked == 6
    assert set(kept(tmp_path / "a")["failed"]["x"].values()) == {"not finite, at step 3"}


def test_what_comes_back_must_be_one_estimate_for_each(tmp_path):
    class Few(Priced):
        def estimate(self, ctx, proposals):
            return super().estimate(ctx, proposals)[1:]

    class Bare(Priced):
        def estimate(self, ctx, proposals):
            return [1.0 for _ in proposals]

    run(tmp_path / "a", estimators={"few": Few(), "bare": Bare()})
    why = kept(tmp_path / "a")["failures"]
    assert "0 estimates came back for 1 architectures" in why["few"]
    assert "no Estimate" in why["bare"]


def test_a_lack_of_memory_is_tried_again(tmp_path):
    full = [True]

    def score(architecture):
        if architecture["body.0"] == "wide" and full[0]:
            raise MemoryError("no room")
        return 1.0 * len(architecture)

    first = run(tmp_path / "a", estimators={"x": broken(score)})
    full.clear()
    full.append(False)
    second = run(tmp_path / "a", estimators={"x": broken(score)})
    assert 0 < row_of(first, "x").num_failed < 6
    assert row_of(second, "x").num_failed == 0


# --- the budget ---------------------------------------------------------------------------------


def steps_s(out, names):
    """Return the seconds that the planned steps of some rows take, as they state them."""
    rows = kept(out, "rows")
    return [rows[name]["steps"] * rows[name]["settings"]["step_s"] for name in names]


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("d", "c", "b", "a")])
def test_each_prepares_equally_long_whatever_the_order(tmp_path, names):
    asked = {
        "a": Priced(step_s=0.5), "b": Priced(step_s=2.0), "c": Priced(step_s=1.0, each_s=20.0),
        "d": Priced(each_s=30.0),
    }  # fmt: skip
    run(tmp_path / "x", estimators={n: asked[n] for n in names}, budget="1800s")
    # Of all but the moments that the truths took here, 6 x 20 + 6 x 30 s are for scoring.
    assert steps_s(tmp_path / "x", "abc") == pytest.approx([500.0] * 3, abs=12.0)
    assert asked["b"].told == kept(tmp_path / "x", "rows")["b"]["steps"]
    assert row_of(run(tmp_path / "x", estimators=asked, budget="1800s"), "d").num_failed == 0


def test_a_row_that_comes_later_has_what_the_others_left(tmp_path):
    run(tmp_path / "x", estimators={"a": Priced(step_s=1.0)}, budget="900s")
    late = {"a": Priced(step_s=1.0), "b": Priced(step_s=1.0, each_s=50.0)}
    run(tmp_path / "x", estimators=late, budget="900s")
    assert late["a"].asked == 0
    assert steps_s(tmp_path / "x", "ab") == pytest.approx([900.0, 600.0], abs=12.0)


def test_time_to_plan_is_no_time_to_prepare(tmp_path):
    class Slow(Priced):
        def step_seconds(self, ctx):
            time.sleep(0.3)
            return 1.0

    class SlowToSetUp(Priced):
        def setup_seconds(self, ctx, steps):
            time.sleep(0.3)
            return 0.0

    asked = {"x": Slow(), "y": SlowToSetUp(step_s=1.0)}
    found = run(tmp_path / "a", estimators=asked, budget="900s")
    with Study.read(tmp_path / "a") as study:
        assert study.ledger()["plan"].wall_s >= 0.6
    assert row_of(found, "x").prepare_s < 0.3
    assert row_of(found, "y").prepare_s < 0.3


def test_one_that_cannot_be_timed_stops_no_other_and_is_timed_again(tmp_path):
    def raising(ctx):
        raise TypeError("no such layer")

    bad, mad, sad = Priced(), Priced(), Priced(step_s=1.0)
    bad.step_seconds, mad.step_seconds = raising, lambda ctx: float("nan")
    sad.setup_seconds = lambda ctx, steps: raising(ctx)
    asked = {"x": bad, "z": mad, "s": sad, "y": Priced()}
    found = run(tmp_path / "a", estimators=asked, budget="900s")
    assert [row_of(found, name).num_failed for name in asked] == [6, 6, 6, 0]
    assert kept(tmp_path / "a")["failures"]["x"] == "TypeError: no such layer"
    assert kept(tmp_path / "a")["failures"]["s"] == "TypeError: no such layer"
    assert "a step of nan s" in kept(tmp_path / "a")["failures"]["z"]
    well = {name: Priced(step_s=one.step_s) for name, one in asked.items()}
    cured = run(tmp_path / "a", estimators=well, budget="900s")
    assert [row_of(cured, name).num_failed for name in asked] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("dear", "said"),
    [
        ({"step_s": 5000.0}, r"left to prepare x, where one step takes 5e\+03 s; give a larger"),
        ({"each_s": 5000.0}, r"scoring 6 architectures takes 3e\+04 s"),
        ({"step_s": 1.0, "fewest": 5000}, r"steps are too few; give a larger budget"),
    ],
)
def test_a_budget_that_does_not_cover_one_is_cured_by_a_larger(tmp_path, dear, said):
    small = run(
        tmp_path / "a", estimators={"x": Priced(**dear), "y": Priced(step_s=1.0)}, budget="900s"
    )  # fmt: skip
    assert row_of(small, "x").num_failed == 6
    assert row_of(small, "y").num_failed == 0
    assert re.search(said, kept(tmp_path / "a")["failures"]["x"])
    again = run(
        tmp_path / "a", estimators={"x": Priced(**dear), "y": Priced(step_s=1.0)}, budget="900s"
    )  # fmt: skip
    assert row_of(again, "x").num_failed == 6  # the same question has the same answer
    large = {"x": Priced(**dear), "y": Priced(step_s=1.0)}
    cured = run(tmp_path / "a", estimators=large, budget="99999s")
    assert row_of(cured, "x").num_failed == 0
    assert kept(tmp_path / "a")["failures"]["x"] is None
    assert large["y"].asked == 0  # it keeps what it has


def test_a_refusal_of_counts_is_cured_by_more(tmp_path):
    asked = [Priced(step_s=1.0, fewest=5) for _ in range(2)]
    for one, steps in zip(asked, (2, 7)):
        run(tmp_path / "a", estimators={"x": one}, budget=f"steps={steps},epochs=2")
    assert [one.told for one in asked] == [2, 7]
    assert asked[1].asked == 6
    assert set(kept(tmp_path / "a", "rows")) == {"x"}


def test_scoring_books_the_samples_and_macs_that_estimates_report(tmp_path):
    run(tmp_path / "a", estimators={"x": Priced(), "y": FakeEstimator(len)})
    with Study.read(tmp_path / "a") as study:
        ledger = study.ledger()
    assert (ledger["score x"].samples, ledger["score x"].macs) == (6 * 5, 6 * 50)
    assert ledger["prepare x"].samples == 32
