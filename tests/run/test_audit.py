"""An audit: truths are trained once, every estimator is asked, and a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType, SimpleNamespace

import numpy as np
import pytest
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, InvalidSpace, InvalidStudy
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.scratch import Scratch
from assay.run import audit as asked
from assay.run.audit import audit
from assay.run.audit_plan import key_of
from assay.run.truths import Truths
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.study.store import Study
from assay.testing import FakeEstimator, tiny_space, tiny_task
from assay.train.recipe import Recipe
from assay.trust.claims import CLAIMS

RECIPE = Recipe(batch_size=32, epochs=2)
BUDGET = "steps=12,epochs=2"


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """The report has tests of its own."""
    monkeypatch.setattr(asked, "write_audit", lambda study, path, **options: path)


def run(out, **options):
    given = {"estimators": [OneShot(), LowFidelity(share=0.5)], "num": 6, "seeds": 2}
    return audit(
        tiny_space(), tiny_task(), out=out, budget=BUDGET, recipe=RECIPE, **(given | options)
    )


def judged(found):
    """Return what does not depend on the clock."""
    return [
        (r.estimator, r.tau.value, r.rho.value, r.regret_1.value, r.num_failed)
        for r in sorted(found.table.rows, key=lambda r: r.estimator)
    ]


class Stop(KeyboardInterrupt):
    """Raised by a listener, as a kill would come: no error of an estimator."""


def stopping(after):
    """Return a listener that stops the run at its n-th event."""
    seen = []

    def listener(event):
        seen.append(event)
        if len(seen) == after:
            raise Stop

    return listener


def test_every_estimator_and_baseline_has_a_row_and_a_price(tmp_path):
    found = run(tmp_path / "audit")
    rows = {r.estimator: r for r in found.table.rows}
    assert set(rows) == {"OneShot", "LowFidelity", "params", "macs"}
    assert found.table.num == 6
    assert found.table.ceiling is not None
    assert rows["OneShot"].prepare_s > 0
    assert rows["LowFidelity"].prepare_s < rows["OneShot"].prepare_s
    assert all(r.each_s > 0 for r in rows.values())
    assert rows["OneShot"].claim == CLAIMS["one-shot"]
    assert all(r.speedup > 0 for r in rows.values())
    assert found.verdict


def test_what_a_search_gains_is_told_of_twenty_truths_of_two_trainings(tmp_path, monkeypatch):
    def a_minute(self, trained):  # so that all can be paid
        return {key_of(a): 60.0 for a in trained}

    monkeypatch.setattr(Truths, "seconds", a_minute)
    found = run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=20)
    by = {gain.estimator: gain for gain in found.gains}
    assert {gain.trainings for gain in found.gains} == {2}
    assert set(by) == {"", "params", "macs", "FakeEstimator"}
    assert (by["macs"].scored, by["macs"].trained) == (5, 2)
    with Study.read(found.out) as study:
        kept = study.get("audit")
    assert [row["estimator"] for row in kept["gains"]] == [gain.estimator for gain in found.gains]
    values = np.array(list(kept["truths"].values()))
    assert by[""].time_s == 120.0
    assert abs(by[""].gain.value) <= np.ptp(values)
    assert any("training 2 random architectures" in sentence for sentence in found.verdict)
    # Fewer, or one training of each, tell nothing of it.
    assert run(tmp_path / "few", estimators=[FakeEstimator(len)]).gains == ()


def test_a_mapping_names_the_rows(tmp_path):
    several = {
        "short": LowFidelity(share=0.2),
        "longer": LowFidelity(share=0.5),
        "macs, too": "zero-cost",
        "hypernet": FakeEstimator(len),
    }
    found = run(tmp_path / "audit", estimators=several)
    claims = {r.estimator: r.claim for r in found.table.rows}
    assert set(claims) == {*several, "params", "macs"}
    # What was published is of a class, whatever its row is called.
    assert claims["short"] == claims["longer"] == CLAIMS["low-fidelity"]
    assert (claims["macs, too"], claims["hypernet"]) == (CLAIMS["zero-cost"], "")


class Spy(FakeEstimator):
    """Keeps the contexts that it was given, and every number that was in reach there."""

    def __init__(self):
        super().__init__(len)
        self.contexts, self.numbers = [], set()

    def estimate(self, ctx, proposals):
        self.contexts.append(ctx)
        self.numbers |= set(reachable(ctx))
        return super().estimate(ctx, proposals)


def reachable(thing):
    """Yield the numbers in an object's attributes, items and closures, and in theirs."""
    seen, left = {}, [thing]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | ModuleType):
            continue
        seen[id(one)] = one
        if isinstance(one, int | float):
            yield float(one)
        elif isinstance(one, Tensor | np.ndarray):
            yield from map(float, one.flatten().tolist())
        elif isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, Iterable) and not isinstance(one, str | bytes | Iterator):
            left += list(one)
        if isinstance(one, FunctionType):
            left += [cell.cell_contents for cell in one.__closure__ or ()]
        left += getattr(one, "__dict__", {}).values()


def test_an_estimator_sees_no_truth_and_only_the_sample(tmp_path, monkeypatch):
    odd = [0.1234567891 + i for i in range(12)]  # what is nothing else's value
    given = iter(odd)
    monkeypatch.setattr(Scratch, "score_of", lambda self, ctx, figures: next(given))
    fake = Spy()
    run(tmp_path / "audit", estimators=[fake])
    assert len(fake.contexts) == 1
    assert list(fake.contexts[0].history) == []
    assert fake.contexts[0].recipe.lr in fake.numbers
    assert fake.numbers.isdisjoint(odd)
    assert odd[3] in set(reachable(SimpleNamespace(kept=[{"a": odd[3]}])))
    with Study.read(tmp_path / "audit") as study:
        told = study.get("audit")
    assert len(fake.estimated) == len(set(fake.estimated)) == 6
    assert {json.dumps(dict(a), sort_keys=True) for a in fake.estimated} == {
        json.dumps(a, sort_keys=True) for a in told["architectures"].values()
    }


def test_the_test_split_that_a_search_has_opened_is_closed_again(tmp_path):
    class Peeking(FakeEstimator):
        def estimate(self, ctx, proposals):
            ctx.task.test  # noqa: B018
            return super().estimate(ctx, proposals)

    task = tiny_task()
    task.open_test()  # as the finalists of a search leave it
    out = tmp_path / "audit"
    audit(
        tiny_space(), task, estimators=[Peeking(len)], num=3, seeds=1, out=out, budget=BUDGET,
        recipe=RECIPE,
    )  # fmt: skip
    with Study.read(out) as study:
        (why,) = study.get("audit")["failures"].values()
    assert "the test split opens once" in str(why)


def test_the_truth_is_the_mean_over_seeds_and_they_differ(tmp_path):
    run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=4, seeds=3)
    with Study.read(tmp_path / "audit") as study:
        truths = study.get("audit")["truths"]
    assert all(len(values) == 3 for values in truths.values())
    assert any(len(set(values)) > 1 for values in truths.values())


@pytest.mark.parametrize("after", [3, 9, 17, 25, 31])
def test_stopped_anywhere_and_continued_it_finds_the_same(tmp_path, after):
    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", on_event=stopping(after))
    assert judged(run(tmp_path / "cut")) == judged(whole)


def test_it_grows_and_trains_no_truth_twice(tmp_path):
    run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=4, seeds=1)
    with Study.read(tmp_path / "audit") as study:
        before = study.get("audit")["truths"]
        seconds = study.ledger()["truth"].samples
    found = run(tmp_path / "audit", estimators=[FakeEstimator(len), LowFidelity()], num=6, seeds=2)
    with Study.read(tmp_path / "audit") as study:
        after = study.get("audit")["truths"]
        more = study.ledger()["truth"].samples
    assert found.table.num == 6
    assert all(after[key][0] == values[0] for key, values in before.items())
    assert more == seconds * 12 // 4  # 12 trainings in all, 4 of them there before


def test_the_same_asked_again_costs_nothing(tmp_path):
    spent, found = [], []
    asked = [FakeEstimator(len), FakeEstimator(len)]
    for fake in asked:
        found.append(run(tmp_path / "audit", estimators=[fake]))
        with Study.read(tmp_path / "audit") as study:
            spent.append({step: cost.samples for step, cost in study.ledger().items()})
    assert judged(found[0]) == judged(found[1])
    assert [(fake.steps, len(fake.estimated)) for fake in asked] == [(12, 6), (0, 0)]
    assert spent[0] == spent[1]
    assert spent[0]["truth"] > 0


def test_one_that_fails_here_and_there_has_it_counted_against_it(tmp_path):
    def score(architecture):
        if architecture["body.0"] == "wide":
            raise RuntimeError("made to fail")
        return float(len(architecture))

    found = run(tmp_path / "audit", estimators=[FakeEstimator(score)])
    row = next(r for r in found.table.rows if r.estimator == "FakeEstimator")
    with Study.read(tmp_path / "audit") as study:
        told = study.get("audit")
        failures = study.failures()
    wide = sum(a["body.0"] == "wide" for a in told["architectures"].values())
    assert row.num_failed == wide > 0
    assert len(failures) == wide
    assert told["failures"]["FakeEstimator"] is None  # it refused some, not the space
    assert "made to fail" in failures[0].traceback


def test_one_that_refuses_the_space_is_listed_and_the_rest_go_on(tmp_path):
    found = run(tmp_path / "audit", estimators=[LowFidelity(variant={"cells": 1}), OneShot()])
    rows = {r.estimator: r for r in found.table.rows}
    assert rows["LowFidelity"].tau.value is None
    assert rows["OneShot"].tau.value is not None
    with Study.read(tmp_path / "audit") as study:
        assert "only ready spaces" in study.get("audit")["failures"]["LowFidelity"]
        assert study.get("audit")["failures"]["OneShot"] is None
    assert any("LowFidelity refused: " in sentence for sentence in found.verdict)


def test_published_truths_are_taken_in_place_of_training(tmp_path):
    space = tiny_space()
    rng = derive(0, "published")
    points = dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(40))
    truths = {a: float(len(a)) for a in points}
    found = audit(
        space, tiny_task(), estimators=[FakeEstimator(len)], num=20, truths=truths,
        out=tmp_path / "audit", budget=BUDGET, recipe=RECIPE,
    )  # fmt: skip
    row = next(r for r in found.table.rows if r.estimator == "FakeEstimator")
    assert row.tau.value == pytest.approx(1.0)
    assert row.regret_1.value == 0.0
    assert row.speedup is None
    assert found.table.ceiling is None
    again = FakeEstimator(len)
    options = {"num": 20, "out": tmp_path / "audit", "budget": BUDGET, "recipe": RECIPE}
    turned = dict(reversed(truths.items()))
    audit(space, tiny_task(), estimators=[again], truths=turned, **options)
    assert again.estimated == []  # it is the same sample, which is scored
    changed = {**truths, next(iter(truths)): 0.5}
    told = r"truths is '(\d+) published, digest (\w+)' there and '\1 published, digest (?!\2)"
    with pytest.raises(InvalidStudy, match=told):
        audit(space, tiny_task(), estimators=[again], truths=changed, **options)
    with pytest.raises(InvalidSetting, match=r"published truths for a sample of 100"):
        audit(space, tiny_task(), num=100, truths=truths, out=tmp_path / "two", recipe=RECIPE)


def twin(architecture):
    """Return what a space may take for the same network: its two blocks are exchanged."""
    return Architecture({"0": architecture["1"], "1": architecture["0"]})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda a: {a: float("nan")}, r"truth of \{.*\} is nan, which is no finite number; leave"),
        (lambda a: {a: "high"}, "is 'high', which is no finite number"),
        (lambda a: {Architecture({"0": 9}): 1.0}, r'of \{"0":9\}, which is no architecture'),
        (lambda a: {json.dumps(dict(a)): 1.0}, "which is no Architecture"),
        (lambda a: {twin(a): 1.0}, r"of \{.*\}, which is not canonical"),
        (lambda a: {a: 1.0, twin(a): 1.0}, r"of \{.*\} and \{.*\}, which are one network; keep"),
    ],
)
def test_published_truths_that_are_none_are_refused_before_anything_is_written(
    tmp_path, wrong, why
):
    def model():
        blocks = [OneOf(a=nn.Linear(6, 6), b=nn.Tanh(), c=nn.ReLU()) for _ in range(2)]
        return nn.Sequential(*blocks, nn.Linear(6, 3))

    space = Space(model, canonical=lambda a: min(a, twin(a), key=Architecture.to_json))
    fake, ab = FakeEstimator(len), Architecture({"0": "a", "1": "b"})
    right = {Architecture({"0": option, "1": option}): 1.0 for option in "abc"}
    truths = {**right, **wrong(ab)}
    with pytest.raises(InvalidSetting, match=why):
        audit(
            space, tiny_task(), estimators=[fake], num=2, truths=truths, budget=BUDGET,
            out=tmp_path / "audit",
        )  # fmt: skip
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 1}, "an audit of num=1"),
        ({"estimators": ["one-shto"]}, "one-shot"),
        ({"settings": {"zero": {}}}, "not audited"),
        ({"estimators": {"macs": FakeEstimator(len)}}, "'macs' would stand in place of the base"),
        (
            {"estimators": {"a": "scratch"}, "settings": {"b": {}}},
            "'b', which is not audited; there are:",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InvalidSetting, match=message):
        run(tmp_path / "audit", **options)
    assert not (tmp_path / "audit").exists()


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("made to fail")


def test_a_model_with_a_broken_option_is_refused_before_anything_is_written(tmp_path):
    def model():
        return nn.Sequential(
            nn.Linear(6, 8), OneOf(good=nn.Tanh(), bad=Broken()), nn.Linear(8, 3)
        )  # fmt: skip

    with pytest.raises(InvalidSpace, match=r"1\.bad"):
        audit(
            Space(model), tiny_task(), estimators=[FakeEstimator(len)], num=2, seeds=1,
            budget=BUDGET, out=tmp_path / "audit", recipe=RECIPE,
        )  # fmt: skip
    assert not (tmp_path / "audit").exists()


def test_a_budget_that_pays_for_no_epoch_says_how_much_would(tmp_path):
    with pytest.raises(InvalidSetting, match="at least"):
        audit(
            tiny_space(), tiny_task(), estimators=[FakeEstimator(len)], num=50, budget="1ms",
            out=tmp_path / "audit", recipe=RECIPE,
        )  # fmt: skip

    assert not (tmp_path / "audit").exists()  # it is free for another question


def test_more_truths_than_the_time_pays_for_are_refused_before_they_are_trained(tmp_path):
    def ask(num, budget):
        return audit(
            tiny_space(), tiny_task(), estimators=[FakeEstimator(len)], num=num, seeds=1,
            budget=budget, out=tmp_path / "audit", recipe=RECIPE,
        )  # fmt: skip

    ask(3, "1h,steps=12")
    with Study.read(tmp_path / "audit") as study:
        identity, keys = study.identity, [f"truth {key} 0" for key in study.get("audit")["truths"]]
    with Study.open(tmp_path / "audit", identity=identity) as study:
        study.book("truth", Cost(3500.0))
        for key in keys:
            study.put(key, {**study.get(key), "seconds": 60.0})
    with pytest.raises(InvalidSetting, match="3 more trainings of 2 epochs each take about 180 s"):
        ask(6, "1h,steps=12")
    with Study.read(tmp_path / "audit") as study:
        assert study.get("asked")["num"] == 3  # to continue is to ask what was not refused
    assert ask(3, "1h,steps=12").table.num == 3  # what is there may be asked again
    assert ask(6, "2h,steps=12").table.num == 6


def test_an_audit_of_another_device_is_another(tmp_path, monkeypatch):
    run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=2, seeds=1)
    monkeypatch.setattr(asked, "training_device", lambda given: "cuda")
    with pytest.raises(InvalidStudy, match="train_on is 'cpu' there and 'cuda' here"):
        run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=2, seeds=1)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    run(tmp_path / "audit", estimators=[FakeEstimator(len)], num=2, seeds=1)
    with pytest.raises(InvalidStudy, match="recipe"):
        audit(
            tiny_space(), tiny_task(), estimators=[FakeEstimator(len)], num=2, seeds=1,
            out=tmp_path / "audit", budget=BUDGET, recipe=RECIPE.with_(lr=0.01),
        )  # fmt: skip
