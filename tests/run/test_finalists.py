"""Who is trained for real, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from assay.architecture import Architecture
from assay.cost import Budget, derive
from assay.errors import InvalidSetting
from assay.hardware.device import Latency
from assay.run.allot import SHARES
from assay.run.finalists import Selection
from assay.run.limits import Aims
from assay.run.plan import Finalists
from assay.run.trainings import Final
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.study.store import Study
from assay.train.recipe import Recipe

EPOCH, EPOCHS, STEP_S = 20, 10, 0.1
FINALS = [Final("finalist", Architecture({"a": str(i)}), 0, trial=i) for i in range(6)]


def counted(
    budget: Budget, left_s: float = 0.0, at_once: int = 1
) -> tuple[dict[str, int], list[str], list[float]]:
    """Return the counts that six networks get, what was noted, and how long timing might take."""
    notes: list[str] = []
    allowed: list[float] = []
    plan = SimpleNamespace(
        finalists=Finalists(), recipe=Recipe(epochs=EPOCHS), budget=budget,
        task=SimpleNamespace(steps_per_epoch=lambda size: EPOCH, train=None),
        executor=SimpleNamespace(at_once=at_once),
    )  # fmt: skip
    with Study.open(None, identity={}) as study:
        flow: Any = SimpleNamespace(
            plan=plan, study=study, measures=None, left_s=lambda: left_s,
            steps=SimpleNamespace(note=notes.append),
        )  # fmt: skip
        selection = Selection(flow)

        def timed(finals: Sequence[Final], budget_s: float) -> list[float]:
            allowed.append(budget_s)
            return [STEP_S] * len(finals)

        selection.trained.step_seconds = timed  # type: ignore[method-assign]
        counts = selection._counts(FINALS)
        again = selection._counts(FINALS)  # a resumed run obeys what is in the study
    assert again == counts
    assert len(allowed) <= 1
    return counts, notes, allowed


def test_counts_are_obeyed() -> None:
    counts, notes, allowed = counted(Budget(steps=1))
    assert counts == {"steps": EPOCH * EPOCHS, "networks": 6}
    assert counted(Budget(epochs=2))[0] == {"steps": 2 * EPOCH, "networks": 6}
    assert not notes
    assert not allowed


def test_time_that_is_enough_trains_all_as_the_recipe_says() -> None:
    counts, notes, allowed = counted(Budget(seconds=300.0), 200.0)
    assert counts == {"steps": EPOCH * EPOCHS, "networks": 6}
    assert not notes
    assert allowed == pytest.approx([0.03 * 300.0])


def test_shorter_time_trains_all_for_less_and_still_shorter_fewer_of_them() -> None:
    share_s = 91.0 * SHARES["finalists"]
    counts, notes, _ = counted(Budget(seconds=99.0), 91.0)
    assert counts == {"steps": int(share_s / (6 * STEP_S)), "networks": 6}
    assert 6 * EPOCH <= counts["steps"] < EPOCHS * EPOCH
    assert not notes
    for left_s in (81.0, 41.0, 31.0, 21.0, 11.0, 5.1):
        counts, notes, _ = counted(Budget(seconds=99.0), left_s)
        num, share_s = counts["networks"], left_s * SHARES["finalists"]
        assert counts["steps"] == int(share_s / (num * STEP_S)) >= num * EPOCH
        assert (num + 1) ** 2 * EPOCH * STEP_S > share_s  # with one more they would be too short
        assert f"is spent on the first {num}:" in notes[0]


def test_whole_trainings_are_never_too_short() -> None:
    """Of a recipe of two epochs as many are trained as there is time for."""
    for left_s, num in ((30.0, 6), (20.0, 4), (10.0, 2), (5.0, 1)):
        counts, _, _ = counted(Budget(seconds=99.0, epochs=2), left_s)
        assert counts == {"steps": 2 * EPOCH, "networks": num}


def test_several_at_once_are_trained_for_longer() -> None:
    share_s = 60.5 * SHARES["finalists"]
    counts, _, _ = counted(Budget(seconds=99.0), 60.5, at_once=3)
    assert counts == {"steps": min(EPOCHS * EPOCH, int(share_s / (6 * STEP_S / 3))), "networks": 6}
    counts, _, _ = counted(Budget(seconds=99.0), 15.0, at_once=12)  # one takes what it takes
    assert counts == {"steps": int(15.0 * SHARES["finalists"] / STEP_S), "networks": 6}


def test_where_no_time_is_left_the_best_is_trained_for_an_epoch() -> None:
    for left_s, over in ((1.0, "1.1 s"), (0.0, "2.0 s"), (-100.0, "1 min 42 s")):
        counts, notes, _ = counted(Budget(seconds=99.0), left_s)
        assert counts == {"steps": EPOCH, "networks": 1}
        (note,) = notes  # an epoch takes 2 s
        assert "there is no time for an epoch of a finalist" in note
        assert f"exceeds what the budget has left for it by about {over};" in note


@pytest.mark.parametrize(
    ("first_ms", "rounds_ms", "limit", "kept_ms"),
    [(0.9, 9.0, 1.0, 0.9), (1.5, 0.8, 1.0, 0.8), (1.5, 1.2, 1.0, 1.2), (1.5, 0.8, None, 1.5)],
)
def test_what_seems_over_the_limit_is_measured_in_rounds_too(
    first_ms: float, rounds_ms: float, limit: float | None, kept_ms: float
) -> None:
    device: Any = SimpleNamespace(
        latency=lambda network, example: Latency(first_ms, first_ms, 50, {}),
        medians_ms=lambda runners: [rounds_ms] * len(runners),
        runner=lambda network, example: lambda: None, ready=nullcontext,
    )  # fmt: skip
    plan = SimpleNamespace(
        finalists=Finalists(), recipe=Recipe(), target=device,
        task=SimpleNamespace(train=None), space=SimpleNamespace(build=lambda a: None),
    )  # fmt: skip
    with Study.open(None, identity={}) as study:
        flow: Any = SimpleNamespace(
            plan=plan, study=study, steps=None, example=None, measures=lambda q, a: 7.0,
            aims=SimpleNamespace(limits={} if limit is None else {"latency_ms": limit}),
            table=SimpleNamespace(layers_ms=lambda a: []),
        )  # fmt: skip
        for _ in range(2):  # what is in the study is not measured again
            assert Selection(flow).whole_latency(FINALS[0].architecture, 0) == kept_ms
        assert [row.value for row in study.measurements()] == [kept_ms]


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"seeds": 0}, {"k": -2}, {"k": "3"}, {"seeds": 1.5}, {"weights": "mine"}],
)
def test_finalists_that_cannot_be(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InvalidSetting, match=rf"finalists\.{name}="):
        Finalists(**wrong)


@pytest.mark.parametrize(
    ("results", "winner"),
    [
        ({(0, 0): 0.95, (1, 0): 0.94, (1, 1): 0.9, (1, 2): 0.9}, (1, 0)),  # 0 diverged twice
        ({(0, 0): 0.95, (0, 1): 0.7, (1, 0): 0.8, (1, 1): 0.9}, (1, 1)),
        ({(0, 2): 0.1, (1, 1): 0.2}, (1, 1)),
    ],
)
def test_the_winner_is_the_best_of_those_that_came_through_with_most_seeds(
    results: dict[tuple[int, int], float], winner: tuple[int, int]
) -> None:
    finals = {
        (trial, seed): Final("finalist", FINALS[trial].architecture, seed, trial)
        for trial in range(2) for seed in range(3)
    }  # fmt: skip
    task = SimpleNamespace(train=None, score_of=lambda figures: figures["accuracy"])
    plan = SimpleNamespace(finalists=Finalists(seeds=3), recipe=Recipe(), task=task)
    selection = Selection(
        SimpleNamespace(plan=plan, study=None, steps=None, measures=None)  # type: ignore[arg-type]
    )
    selection.trained.results = {finals[k].key: {"accuracy": v} for k, v in results.items()}
    assert selection._winner(list(finals.values())) == finals[winner]


SPACE = Space(nn.Sequential(*[OneOf(a=nn.Linear(2, 2), b=nn.Tanh()) for _ in range(4)]))


def cost(quantity: Any, architecture: Architecture) -> float:
    """Return 1 and how often "a" is taken; with four of them it cannot be told."""
    num = sum(option == "a" for option in architecture.values())
    if num == 4:
        raise InvalidSetting("of the user's")
    return 1.0 + num


def drawn(limits: dict[Any, float], seed: int) -> Architecture:
    plan = SimpleNamespace(
        finalists=Finalists(), recipe=Recipe(), space=SPACE, seed=seed,
        task=SimpleNamespace(train=None),
    )  # fmt: skip
    flow: Any = SimpleNamespace(
        plan=plan, study=None, steps=None, measures=cost, aims=Aims(limits, ["score"], list)
    )
    _, _, random = Selection(flow)._comparison()
    assert random.name == "random"
    return random.architecture


def test_the_random_network_is_drawn_within_the_limits() -> None:
    free = [drawn({}, seed) for seed in range(9)]
    held = [drawn({"params": 2.0}, seed) for seed in range(9)]
    assert max(cost("params", point) for point in free) > 2.0
    assert max(cost("params", point) for point in held) <= 2.0
    within = [i for i, point in enumerate(free) if cost("params", point) <= 2.0]
    assert [held[i] for i in within] == [free[i] for i in within]


def test_where_none_holds_the_limits_the_random_network_is_the_first_drawn() -> None:
    assert [drawn({"params": 0.5}, seed) for seed in range(9)] == [
        SPACE.canonical(SPACE.sample(derive(seed, "comparison"))) for seed in range(9)
    ]
