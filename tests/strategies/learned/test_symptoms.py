"""Each sign is seen where it is, once, and not where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from assay.contracts import Learning
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.strategies.learned.symptoms import Idle, idle_options, open_options, symptoms
from assay.zoo.enas import macro

LABELS = tuple("abcd")
IDLE = {label: Idle((1,), (0,)) for label in LABELS}


def chain(*options: str) -> Space:
    """Return a space of a choice for each label, one after another."""

    def chosen(label: str) -> OneOf:
        return OneOf({name: nn.Linear(2, 2) for name in options}, label=label)

    return Space(lambda: nn.Sequential(*map(chosen, LABELS)))


CHOICES = chain("conv", "skip").choices


def known(step: int, *, skip: float = 0.3, entropy: float = 0.5, **more) -> Learning:
    return Learning(step, {label: [1 - skip, skip] for label in LABELS}, entropy, **more)


def trace(change: Callable[[int], dict], total: int = 200, every: int = 10) -> list[Learning]:
    return [known(step, **change(step)) for step in range(0, total + 1, every)]


def found(change: Callable[[int], dict]) -> dict[str, str]:
    return symptoms(trace(change), total=200, idle=IDLE, choices=CHOICES)


def test_a_learning_that_goes_well_shows_nothing():
    assert symptoms([], total=200, idle=IDLE, choices=CHOICES) == {}
    assert found(lambda step: {}) == {}
    well = {"quantity": "latency_ms", "target": 0.4}
    assert found(lambda step: {**well, "expected": 0.9 - step / 1000}) == {}  # over, and falling
    assert found(lambda step: {**well, "expected": 0.1 + step / 1000}) == {}  # growing, and under
    assert found(lambda step: {**well, "expected": 0.5}) == {}


@pytest.mark.parametrize(("step", "seen"), [(70, True), (90, True), (100, False), (190, False)])
def test_entropy_that_is_gone_before_half_of_the_steps_is_a_collapse(step, seen):
    signs = found(lambda now: {"entropy": 0.009 if now >= step else 0.4})
    assert signs.keys() == ({"collapsed"} if seen else set())
    if seen:
        assert signs["collapsed"].startswith(f"at step {step} the entropy was down to 0.9 %")


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_idle_options_are_told_of_in_the_second_half_where_nearly_all_prefer_them(share):
    def one(step: int) -> Learning:
        p = {label: [0.2, 0.8] for label in LABELS}
        return Learning(step, p if share == 1.0 else {**p, "a": [0.8, 0.2]}, 0.5)

    signs = symptoms([one(s) for s in (0, 50, 100, 150)], total=200, idle=IDLE, choices=CHOICES)
    assert signs.keys() == ({"idle"} if share == 1.0 else set())
    if signs:
        assert "at step 100, 4 of 4 choices prefer an option without parameters" in signs["idle"]
    assert symptoms([one(0), one(90)], total=200, idle=IDLE, choices=CHOICES) == {}
    for label in "bc":
        alone = {label: IDLE[label]}
        assert (
            symptoms([one(150)], total=200, idle=alone, choices=CHOICES) == {}
        )  # one may well be right
    two = {label: IDLE[label] for label in "bc"}
    assert symptoms([one(150)], total=200, idle=two, choices=CHOICES).keys() == {"idle"}


def test_choices_that_the_likeliest_architecture_has_not_are_left_aside():
    """All that is left skips: what lies inside of the blocks that were skipped was not learned."""

    def block(label: str) -> nn.Module:
        inner = [OneOf(conv=nn.Linear(2, 2), pool=nn.Identity()) for _ in range(3)]
        return OneOf(block=nn.Sequential(*inner), skip=nn.Identity(), label=label)

    space = Space(lambda: nn.Sequential(block("one"), block("two")))
    idle = idle_options(space)
    assert len(idle) == 8

    def seen(skip: float) -> dict[str, str]:
        p = {k: [1 - skip, skip] if k in ("one", "two") else [0.5, 0.5] for k in space.choices}
        return symptoms([Learning(150, p, 0.5)], total=200, idle=idle, choices=space.choices)

    assert "2 of 2 choices prefer an option without parameters" in seen(0.9)["idle"]
    assert seen(0.4) == {}


def test_an_option_that_is_never_proposed_leads_nowhere():
    def block(label: str) -> nn.Module:
        inner = OneOf(conv=nn.Linear(2, 2), pool=nn.Identity(), label=f"{label}.op")
        return OneOf(none=nn.Tanh(), block=nn.Sequential(inner, nn.Linear(2, 2)), label=label)

    space = Space(lambda: nn.Sequential(block("one"), block("two")))
    idle = idle_options(space, ("none",))
    assert idle.keys() == {"one.op", "two.op"}
    p = {k: [0.1, 0.9] if k.endswith("op") else [0.8, 0.2] for k in space.choices}
    told = [Learning(150, p, 0.5)]
    seen = symptoms(told, total=200, idle=idle, choices=space.choices, exclude=("none",))
    assert seen.keys() == {"idle"}
    assert symptoms(told, total=200, idle=idle, choices=space.choices) == {}


def test_stacks_that_are_left_out_are_idle():
    space = Space(lambda: nn.Sequential(
        *(Depth(nn.Linear(2, 2), nn.Linear(2, 2), min=0, label=label) for label in "ab"),
        Depth(nn.Linear(2, 2), nn.Linear(2, 2), label="never"),
        Depth(nn.ReLU(), nn.ReLU(), min=0, label="light"),
    ))  # fmt: skip
    assert idle_options(space) == dict.fromkeys("ab", Idle((0,), (1, 2)))


def test_a_slight_preference_is_none():
    assert found(lambda step: {"skip": 0.55}) == {}
    assert found(lambda step: {"skip": 0.65}).keys() == {"idle"}


def test_drifting_is_over_the_target_and_growing_over_eight_records():
    def drifts(step: int) -> dict:
        expected = 0.3 if step < 100 else 0.41 + (step - 100) / 1000
        return {"quantity": "latency_ms", "target": 0.4, "expected": expected}

    signs = found(drifts)
    assert signs["drifting"] == (
        "from step 100 to 170 the expected latency_ms grew from 0.41 to 0.48, and its target is 0.4"
    )
    short = symptoms(trace(drifts)[:17], total=200, idle=IDLE, choices=CHOICES)
    assert short == {}


def test_what_stopped_it_is_told_as_it_is():
    signs = found(lambda step: {"stopped": "enough" if step > 100 else ""})
    assert signs == {"stopped": "enough"}


def test_each_sign_is_told_as_it_was_when_it_first_showed():
    records = trace(lambda step: {"entropy": 0.005 if 40 <= step < 60 else 0.5})
    first = symptoms(records[:5], total=200, idle=IDLE, choices=CHOICES)
    assert symptoms(records, total=200, idle=IDLE, choices=CHOICES) == first


def test_what_is_never_proposed_is_neither_idle_nor_a_rival():
    barred = {label: Idle((1,), (2,)) for label in LABELS}  # of three options, the first

    def seen(*p: float) -> dict[str, str]:
        told = [Learning(150, dict.fromkeys(LABELS, p), 0.5)]
        return symptoms(told, total=200, idle=barred, choices=chain("none", "skip", "conv").choices)

    assert seen(0.8, 0.05, 0.15) == {}
    assert seen(0.6, 0.3, 0.1).keys() == {"idle"}


def of_three() -> nn.Module:
    w = Width(4, 8, label="w")
    mixed = OneOf(linear=nn.Linear(8, 8), skip=nn.Identity(), relu=nn.ReLU(), label="mixed")
    weighty = OneOf(one=nn.Linear(8, 8), two=nn.Linear(8, 8), label="weighty")
    light = OneOf(relu=nn.ReLU(), tanh=nn.Tanh(), label="light")
    return nn.Sequential(nn.Linear(8, w), nn.Linear(w, 8), mixed, weighty, light)


def test_idle_options_are_those_without_parameters_beside_others():
    space = Space(of_three)
    assert idle_options(space) == {"mixed": Idle((1, 2), (0,))}
    assert idle_options(space, ("skip",)) == {"mixed": Idle((2,), (0,))}
    assert idle_options(space, ("skip", "relu")) == {}
    assert idle_options(space, ("linear",)) == {}


def test_what_chooses_a_connection_is_no_choice_of_operations():
    space = macro(layers=4, channels=2)
    assert {space.choices[k].options for k in space.choices} > {("apart", "skip")}
    assert idle_options(space) == {}


def test_where_all_options_are_excluded_none_is():
    mixed = Space(of_three).choices["mixed"]
    assert open_options(mixed, ("skip",)) == [0, 2]
    assert open_options(mixed, ("skip", "relu", "linear")) == [0, 1, 2]


def test_a_sum_that_is_far_off_is_told_of() -> None:
    well = {"quantity": "latency_ms", "target": 0.4, "expected": 0.3}
    assert found(lambda step: {**well, "error": 0.1}) == {}
    signs = found(lambda step: {**well, "error": 0.53})
    assert signs.keys() == {"approximate"}
    assert "latency_ms is a sum over choices, off by 53 %" in signs["approximate"]
