"""How a budget in seconds becomes counts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from assay.cost import Budget
from assay.errors import InvalidSetting
from assay.executors.inline import Inline
from assay.run.allot import SHARES, count_for, finalists_seconds, replanned, share_of
from assay.run.plan import Finalists
from assay.testing import tiny_space, tiny_task
from assay.train.loop import Trainer
from assay.train.recipe import Recipe


def test_seconds_become_counts():
    assert count_for("train", "step", 100.0, 0.1) == int(SHARES["train"] * 1000)
    assert count_for("train", "step", 100.0, 0.1, most=7) == 7
    with pytest.raises(InvalidSetting, match="too small for one training step"):
        count_for("train", "training step", 1.0, 10.0)
    # With the seconds that the message asks for, one fits; also where the time is used up.
    for left_s in (1.0, 0.0, -3.0):
        with pytest.raises(InvalidSetting) as refused:
            count_for("finalists", "step", left_s, 10.0)
        more_s = float(str(refused.value).split("at least ")[1].split(" s more")[0])
        assert count_for("finalists", "step", left_s + more_s + 0.05, 10.0) == 1


def test_what_the_finalists_cannot_use_the_search_may_spend():
    share = SHARES["search"] * 100
    assert share_of("search", 100.0) == share_of("search", 100.0, behind_s=math.inf) == share
    assert share_of("search", 100.0, behind_s=0.0) == 100.0
    left_s = 100 - 44 / SHARES["finalists"]
    assert share_of("search", 100.0, behind_s=44.0) == pytest.approx(left_s)
    # What is behind has its own share of what the search leaves, and that is enough.
    assert share_of("finalists", 100 - left_s) == pytest.approx(44.0)
    assert share_of("search", 100.0, behind_s=80.0) == share
    assert share_of("search", -1.0, behind_s=1.0) == 0.0
    assert count_for("search", "score", 100.0, 1.0, behind_s=44.0) == 50


def test_a_search_goes_on_until_its_time_is_used_and_no_further():
    plan = {"trials": 20, "seconds": 100.0, "most": 60}
    assert replanned(plan, 10, 20.0) == 20  # it is under way
    assert replanned(plan, 20, 50.0) == 40
    assert replanned(plan, 20, 10.0) == 60  # all that there may be
    assert replanned(plan, 20, 99.0) == replanned(plan, 20, 110.0) == 20
    assert replanned(plan, 10, 124.0) == 20
    assert replanned(plan, 10, 126.0) == 10
    assert replanned(plan, 0, 126.0) == 20
    assert replanned({"trials": 20}, 20, 1.0) == 20  # a budget in counts


@pytest.mark.parametrize(
    ("at_once", "more", "seconds"),
    [(1, {"k": 2}, 2 + 2 + 5), (2, {"k": 2, "seeds": 2}, (4 + 2 + 5) / 2),
     (4, {"k": 1}, 5), (4, {"k": 1, "compare": False}, 1)],
)  # fmt: skip
def test_the_finalists_use_at_most_the_whole_recipe_of_the_dearest(
    monkeypatch, at_once, more, seconds
):
    """A step of the largest network is timed as five hundredths of the budget, of others as one."""
    space, task, executor = tiny_space(), tiny_task(), Inline()
    most = sum(p.numel() for p in space.build(space.largest(task.example(1))).parameters())

    def step_seconds(trainer, *, most_s):
        return most_s * (5 if sum(p.numel() for p in trainer.module.parameters()) == most else 1)

    monkeypatch.setattr(Trainer, "step_seconds", step_seconds)
    monkeypatch.setattr(Inline, "at_once", at_once)
    plan = SimpleNamespace(
        space=space, task=task, recipe=Recipe(batch_size=16, epochs=3), seed=0, train_on="cpu",
        budget=Budget.parse("200s"), finalists=Finalists(**more), executor=executor,
    )  # fmt: skip
    steps, small = 3 * task.steps_per_epoch(16), space.canonical(space.smallest())
    assert finalists_seconds(plan, small) == pytest.approx(steps * 2.0 * seconds)
    plan.budget = Budget.parse("200s,epochs=1")
    assert finalists_seconds(plan, small) == pytest.approx(steps / 3 * 2.0 * seconds)
    alone = SimpleNamespace(**{**vars(plan), "finalists": Finalists(k=3, compare=False)})
    largest = space.largest()
    assert finalists_seconds(alone, largest) == pytest.approx(
        steps / 3 * 2.0 * max(15 / at_once, 5)
    )
