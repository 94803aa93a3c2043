"""The truth of an audit: a sample that grows without a training wasted, and trainings that fail."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import Cost
from assay.errors import InvalidSetting, InvalidStudy, SpaceExhausted, WorkerDied
from assay.estimators.scratch import Scratch
from assay.estimators.training import Trained
from assay.executors.inline import Inline
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.run import audit as asked
from assay.run import truths
from assay.run.audit import audit
from assay.run.audit_plan import key_of
from assay.run.truths import Truths
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.study.store import Study
from assay.testing import FakeEstimator, tiny_space, tiny_task
from assay.train.recipe import Recipe

RECIPE = Recipe(batch_size=32, epochs=2)


class Trainings:
    """Stand in for all trainings of truths; `fails` says what becomes of some of them."""

    def __init__(self):
        self.ran = []
        self.fails = {}
        self.lost = {}

    def job(self, architecture, seed):
        return lambda: self._train(architecture, seed)

    def _train(self, architecture, seed):
        self.ran.append((architecture, seed))
        if len(self.ran) in self.lost:
            return self.lost[len(self.ran)]
        outcome = self.fails.get(len(self.ran), len(architecture) + seed / 10)
        if isinstance(outcome, Exception):
            raise outcome
        figures = {"accuracy": outcome, "loss": 1.0}
        return Trained(figures, [], [], Cost(1e-3, 64, 640, "cpu"))


@pytest.fixture
def trainings(monkeypatch):
    made = Trainings()
    monkeypatch.setattr(
        Scratch, "job", lambda self, ctx, a, purpose, until: made.job(a, purpose[1])
    )
    monkeypatch.setattr(Scratch, "training_step_seconds", lambda self, ctx: 1e-6)
    monkeypatch.setattr(asked, "write_audit", lambda study, path, **options: path)
    return made


def run(out, **options):
    given = {"estimators": [FakeEstimator(len)], "num": 6, "seeds": 1, "budget": "steps=2,epochs=2"}
    return audit(tiny_space(), tiny_task(), out=out, recipe=RECIPE, **(given | options))


def failures(out):
    with Study.read(out) as study:
        return study.failures()


# --- the sample grows ---------------------------------------------------------------------------


def test_forty_grow_to_sixty_and_each_of_the_forty_is_kept(tmp_path, trainings):
    small, large = FakeEstimator(len), FakeEstimator(len)
    run(tmp_path / "a", estimators=[small], num=40, seeds=2)
    assert len(trainings.ran) == 80
    found = run(tmp_path / "a", estimators=[large], num=60, seeds=2)
    assert found.table.num == 60
    assert len(trainings.ran) == len(set(trainings.ran)) == 120
    assert len(small.estimated) == 40
    assert len(large.estimated) == 20  # nor is one scored twice
    assert not set(small.estimated) & set(large.estimated)


@pytest.mark.parametrize("last", [4, 6])
def test_a_growth_that_was_accepted_is_carried_on_whatever_it_took(
    tmp_path, trainings, monkeypatch, last
):
    monkeypatch.setattr(truths, "_CANDIDATES", 12)  # what they measure is of no matter here

    def ask(num, **options):
        return run(tmp_path / "a", num=num, budget="2h,steps=2", **options)

    def stop(event):
        if event.step == "truth" and event.done == last:
            raise KeyboardInterrupt

    ask(3)
    with pytest.raises(KeyboardInterrupt):
        ask(6, on_event=stop)
    with Study.read(tmp_path / "a") as study:
        identity = study.identity
    with Study.open(tmp_path / "a", identity=identity) as study:
        study.book("truth", Cost(7300.0))  # it overran
    assert len(trainings.ran) == last
    assert ask(6).table.num == 6
    assert len(ask(6, estimators=[FakeEstimator(len), FakeEstimator(hash)]).table.rows) == 4
    with pytest.raises(InvalidSetting, match=r"^1 more trainings of 2 epochs each"):
        ask(7)


@pytest.mark.parametrize(("num", "seeds", "more"), [(12, 1, 6), (3, 3, 3), (7, 1, 1)])
def test_a_growth_is_what_is_not_trained_yet_even_if_no_more_is_asked_for(
    tmp_path, trainings, monkeypatch, num, seeds, more
):
    """Twelve trainings were settled: six architectures with two seeds each."""
    monkeypatch.setattr(truths, "_CANDIDATES", 24)
    run(tmp_path / "a", num=6, seeds=2, budget="2h,steps=2")
    with Study.read(tmp_path / "a") as study:
        identity = study.identity
    with Study.open(tmp_path / "a", identity=identity) as study:
        study.book("truth", Cost(7300.0))
    run(tmp_path / "a", num=3, seeds=2, budget="2h,steps=2")  # a smaller question is none
    with pytest.raises(InvalidSetting, match=rf"^{more} more trainings of 2 epochs each"):
        run(tmp_path / "a", num=num, seeds=seeds, budget="2h,steps=2")


def test_a_growth_before_anything_is_trained_is_priced_as_well(tmp_path, trainings, monkeypatch):
    monkeypatch.setattr(truths, "_CANDIDATES", 24)

    def stop(event):
        if event.step == "truth":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", num=3, budget="2h,steps=2", on_event=stop)
    monkeypatch.setattr(Scratch, "training_step_seconds", lambda self, ctx: 1e3)
    with pytest.raises(InvalidSetting, match=r"^20 more trainings of 2 epochs each take about"):
        run(tmp_path / "a", num=20, budget="2h,steps=2")


@pytest.mark.parametrize("limits", [{}, {"macs": 600.0}], ids=["all", "limited"])
@pytest.mark.parametrize("candidates", [12, 1000])
def test_a_smaller_sample_begins_a_larger_one_at_any_size(monkeypatch, candidates, limits):
    monkeypatch.setattr(truths, "_CANDIDATES", candidates)
    space = tiny_space()
    measures = Measures(space, Device(), space.example)

    def sample(num):
        plan = SimpleNamespace(space=space, seed=3, truths=None, num=num, limits=limits)
        return Truths(plan, None, None).sample(measures)

    whole = sample(120)
    assert len(set(whole)) == 120
    for num in (2, 11, 40, 51, 90):  # the candidates are fewer, as many, or more
        assert sample(num) == whole[:num]
    held = [measures("macs", point) <= limits.get("macs", math.inf) for point in whole]
    assert all(held)


def macs_of(found):
    measures = Measures(tiny_space(), Device(), tiny_task().example(1))
    with Study.read(found.out) as study:
        points = study.get("audit")["architectures"].values()
        return [measures("macs", Architecture(point)) for point in points], study.get("audit")


def test_the_sample_holds_the_limits_and_the_median_is_that_of_random_architectures(
    tmp_path, trainings
):
    limited = {"limits": {"macs": "median", "params": 300}, "num": 12}
    held, told = macs_of(run(tmp_path / "a", **limited))
    assert max(held) <= told["limits"]["macs"]
    assert told["limits"]["params"] == 300
    assert len(held) == 12
    everything, _ = macs_of(run(tmp_path / "b", num=200))
    assert told["limits"]["macs"] == pytest.approx(np.median(everything), rel=0.1)
    assert max(everything) > told["limits"]["macs"]
    more, again = macs_of(run(tmp_path / "a", **{**limited, "num": 20}))
    assert again["limits"] == told["limits"]
    assert len(more) == 20
    with pytest.raises(InvalidStudy, match="limits"):
        run(tmp_path / "a", limits={"macs": 200.0})
    with pytest.raises(InvalidStudy, match="limits"):
        run(tmp_path / "b", limits={"macs": 200.0})


def macs(module: nn.Module) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("limits", "error", "said"),
    [
        ({"macs": 1.0}, SpaceExhausted, r"none of \d+ architectures holds .*'macs': 1\.0"),
        ({"latency_ms": 1e-9}, SpaceExhausted, "none of .* holds"),
        ({"mcas": 1.0}, InvalidSetting, "unknown quantity 'mcas'; did you mean 'macs'"),
        ({"macs": -1}, InvalidSetting, "limit macs=-1 must be a positive number"),
        ({macs: 1.0}, InvalidSetting, "the function 'macs' is called like what Assay measures"),
    ],
)
def test_limits_that_cannot_be_are_refused_and_nothing_is_left(
    tmp_path, trainings, limits, error, said
):
    with pytest.raises(error, match=said):
        run(tmp_path / "a", limits=limits)
    assert not (tmp_path / "a").exists()
    assert trainings.ran == []


def test_a_limit_on_latency_has_one_table_that_stays(tmp_path, trainings, monkeypatch):
    built = []
    build = LatencyTable.build
    monkeypatch.setattr(
        LatencyTable, "build", lambda *a, **more: built.append(a) or build(*a, **more)
    )
    limited = {"limits": {"latency_ms": "median"}, "target": Device("torch")}
    one = run(tmp_path / "a", **limited)
    assert run(tmp_path / "a", num=8, **limited).table.num == 8
    assert len(built) == 1
    with Study.read(one.out) as study:
        (limit,) = study.get("audit")["limits"].values()
        points = list(study.get("audit")["architectures"].values())
    space, table = tiny_space(), one.out / "table.json"
    known = LatencyTable.load(table, space, Device("torch"), example=tiny_task().example(1))
    assert all(known.predict(Architecture(point)) <= limit for point in points)
    assert run(tmp_path / "b", table=table, **limited).table.num == 6
    assert len(built) == 1
    with pytest.raises(InvalidStudy, match="target"):
        run(tmp_path / "a", **{**limited, "target": Device("torch", threads=2)})


def test_published_truths_are_drawn_within_the_limits(tmp_path, trainings):
    space = tiny_space()
    points = [space.canonical(point) for point in space.all()]
    truths = {point: float(i) for i, point in enumerate(dict.fromkeys(points))}
    held, told = macs_of(run(tmp_path / "a", truths=truths, limits={"macs": "median"}))
    assert max(held) <= told["limits"]["macs"]
    said = []
    run(tmp_path / "b", truths=truths, num=len(truths), limits={"macs": "median"},
        on_event=lambda event: said.append(event.message))  # fmt: skip
    assert any(f"hold the limits, of {len(truths)} asked for" in message for message in said)


def test_a_space_with_fewer_architectures_is_told(tmp_path, trainings):
    def model():
        options = {name: nn.Linear(6, 6) for name in "abc"}
        return nn.Sequential(OneOf(**options), nn.Linear(6, 3))

    said = []
    found = audit(
        Space(model, example=torch.zeros(2, 6)), tiny_task(), num=5, seeds=1, out=tmp_path / "a",
        estimators=[FakeEstimator(len)], budget="steps=2,epochs=2", recipe=RECIPE,
        on_event=lambda event: said.append(event.message),
    )  # fmt: skip
    assert found.table.num == 3
    assert "only 3 distinct architectures were found, of 5 asked for" in said


def test_truths_of_other_epochs_are_refused_and_nothing_is_written(tmp_path, trainings):
    run(tmp_path / "a")
    with pytest.raises(InvalidStudy, match=r"2 epochs each.*give epochs=2"):
        run(tmp_path / "a", budget="steps=2,epochs=3", num=8)
    with Study.read(tmp_path / "a") as study:
        assert study.get("asked")["num"] == 6
    assert run(tmp_path / "a", budget="900s,epochs=3", num=8).table.num == 8  # no more than 3


# --- trainings that fail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome", [ValueError("made to fail"), RuntimeError("made to fail"), float("nan")]
)
def test_one_that_cannot_be_trained_is_named_and_left_out_for_good(tmp_path, trainings, outcome):
    trainings.fails = {3: outcome}
    found = run(tmp_path / "a")
    bad = trainings.ran[2][0]
    (failure,) = failures(tmp_path / "a")
    assert failure.phase == "truth"
    assert bad.to_json() in failure.error
    assert ("accuracy is nan" if outcome != outcome else "made to fail") in failure.traceback
    with Study.read(tmp_path / "a") as study:
        assert key_of(bad) not in study.get("audit")["truths"]
    assert found.table.num == 5
    assert run(tmp_path / "a").table.num == 5
    assert len(trainings.ran) == 6


@pytest.mark.parametrize("error", [MemoryError("no room"), WorkerDied("SIGKILL")])
def test_what_was_lost_to_the_machine_is_trained_again(tmp_path, trainings, error):
    trainings.fails = {3: error}
    assert run(tmp_path / "a").table.num == 5
    assert len(failures(tmp_path / "a")) == 1
    assert run(tmp_path / "a").table.num == 6
    assert len(trainings.ran) == 7
    assert trainings.ran[6] == trainings.ran[2]


def test_one_truth_is_too_few(tmp_path, trainings):
    trainings.fails = dict.fromkeys(range(1, 6), ArithmeticError("diverged"))
    with pytest.raises(InvalidStudy, match=r"1 of 6 truths could be trained; see the failures"):
        run(tmp_path / "a")
    assert len(failures(tmp_path / "a")) == 5


def test_truths_book_what_their_trainings_took(tmp_path, trainings):
    run(tmp_path / "a")
    with Study.read(tmp_path / "a") as study:
        ledger = study.ledger()
    assert (ledger["truth"].samples, ledger["truth"].macs) == (6 * 64, 6 * 640)
    assert ledger["sample"].wall_s > 0  # drawing it is no training
    assert ledger["baselines"].wall_s > 0


def test_no_more_networks_are_there_than_are_trained(tmp_path, monkeypatch):
    made, alive = [], []
    job = Scratch.job

    def counted(*given):
        training = job(*given)
        made.append(weakref.ref(training.network))
        alive.append(sum(network() is not None for network in made))
        return training

    monkeypatch.setattr(Scratch, "job", counted)
    monkeypatch.setattr(asked, "write_audit", lambda study, path, **options: path)
    run(tmp_path / "a", num=6, seeds=2, budget="steps=2,epochs=1")
    assert alive == [1] * 12


def test_a_truth_that_diverges_is_told_and_booked(tmp_path, trainings):
    cost = Cost(1e-3, 32, 320, "cpu")
    trainings.lost = {3: Trained({"accuracy": math.nan}, [], [], cost, diverged="at step 1")}
    assert run(tmp_path / "a").table.num == 5
    (failure,) = failures(tmp_path / "a")
    assert failure.error.endswith("seed 0: at step 1")
    with Study.read(tmp_path / "a") as study:
        assert study.ledger()["truth"].samples == 5 * 64 + 32


def test_one_seed_that_diverges_leaves_the_architecture_out(tmp_path, trainings):
    """A mean over the seeds that came through would rank it by its luck."""
    cost = Cost(1e-3, 32, 320, "cpu")
    trainings.lost = {3: Trained({"accuracy": math.nan}, [], [], cost, diverged="at step 1")}
    found = run(tmp_path / "a", seeds=2)
    lost, _ = trainings.ran[2]
    assert len(trainings.ran) == 12
    assert found.table.num == 5
    with Study.read(tmp_path / "a") as study:
        told = study.get("audit")["architectures"].values()
    assert dict(lost) not in [dict(a) for a in told]


class Several(Inline):
    """Says that four jobs run at once."""

    @property
    def at_once(self):
        return 4


def training_s(found):
    """Return the seconds of one training that a speed-up was worked out from."""
    row = next(r for r in found.table.rows if r.estimator == "FakeEstimator")
    return row.speedup * row.thousand_s / 1000


def test_a_smaller_question_finds_the_same_seconds_of_a_training(tmp_path, trainings):
    assert training_s(run(tmp_path / "a", num=8, seeds=2)) == pytest.approx(1e-3)
    assert training_s(run(tmp_path / "a", num=2)) == pytest.approx(1e-3)
    assert len(trainings.ran) == 16


def test_trainings_at_once_share_their_seconds_whoever_asks_later(tmp_path, trainings):
    assert training_s(run(tmp_path / "a", executor=Several())) == pytest.approx(0.25e-3)
    assert training_s(run(tmp_path / "a")) == pytest.approx(0.25e-3)


def test_the_report_is_written_when_the_session_has_ended(tmp_path, trainings, monkeypatch):
    ends = []
    monkeypatch.setattr(
        asked, "write_audit", lambda study, path: ends.append(study.sessions()[-1]["ended"])
    )
    run(tmp_path / "a")
    assert ends[0] is not None
