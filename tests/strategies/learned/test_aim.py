"""A quantity in the loop: its part in a loss, in a reward, and a target that cannot be met."""

from __future__ import annotations

import math

import pytest
from torch import nn

from assay.errors import InvalidSetting, SpaceExhausted
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.learned.aim import Aim
from assay.strategies.learned.expected import Expected
from tests.strategies.learned.test_alphas import costs, in_nine, nested, wrapped


def aim(measure=None, space=None, *, target: float = 4.0, weight: float = 0.3, form="linear"):
    space = space or nested()
    measure = measure or costs(space)
    return Aim("macs", measure, Expected(space, measure), target, weight, form)


WHOLE = {
    "linear": lambda loss, e, t, w: loss + w * e / t,
    "power": lambda loss, e, t, w: loss * (e / t) ** w,
    "log": lambda loss, e, t, w: loss * (math.log(e) / math.log(t)) ** w,
}


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("weight", [0.3, 1.0, 2.0])
def test_its_part_in_the_derivatives_is_that_of_finite_differences(form, weight):
    own, step = aim(form=form, weight=weight), 1e-5
    for loss, amount in [(0.7, 6.0), (2.0, 11.0)]:

        def whole(value, e):
            return WHOLE[form](value, e, own.target, own.weight)

        by_loss = (whole(loss + step, amount) - whole(loss - step, amount)) / (2 * step)
        by_cost = (whole(loss, amount + step) - whole(loss, amount - step)) / (2 * step)
        assert own.in_loss(loss, amount) == pytest.approx((by_loss, by_cost), rel=1e-7)


def test_a_reward_is_divided_by_a_power_of_what_is_measured():
    space = nested()
    cost, own = costs(space), aim(weight=0.07)
    for point in space.all():
        expected = 0.8 * (own.target / cost(point)) ** 0.07
        assert own.reward(0.8, point) == pytest.approx(expected)


def test_neither_a_sum_below_all_that_there_is_nor_a_network_of_nothing_breaks_it():
    space = nested()
    price = costs(space)
    own = aim(lambda a: 0.0 if a["stack"] == 1 else price(a), form="power", target=9.0)
    scale, by_cost = own.in_loss(1.0, -0.5)
    assert 0 < scale < 1
    assert 0 < by_cost < math.inf
    nothing = next(a for a in space.all() if a["stack"] == 1)
    assert 0.5 < own.reward(0.5, nothing) < 0.5 * 9.0**own.weight


def test_logarithms_need_more_than_one_of_it():
    for target, scale in [(4.0, 0.1), (0.9, 1.0)]:
        price = costs(nested())
        with pytest.raises(InvalidSetting, match=r"form='log' needs more than 1 of macs.*'power'"):
            aim(lambda a, s=scale, p=price: s * p(a), target=target, form="log")


@pytest.mark.parametrize("form", ["power", "log"])
def test_a_loss_below_0_that_would_reward_the_quantity_is_refused_by_name(form):
    own = aim(form=form)
    with pytest.raises(InvalidSetting, match=rf"form='{form}' multiplies the loss, which is -0\.3"):
        own.in_loss(-0.3, 6.0)
    assert own.in_loss(0.0, 6.0)[1] == 0.0  # a batch that is all right ends no search
    assert aim().in_loss(-0.3, 6.0) == aim().in_loss(0.3, 6.0)


def test_a_target_is_refused_if_nothing_meets_it():
    with pytest.raises(
        SpaceExhausted, match=r"macs = 9: the space has min 9\.5, as far as found, and up to 10 "
    ):
        aim(in_nine, wrapped(), target=9.0).refuse_hopeless()
    aim(in_nine, wrapped(), target=9.5).refuse_hopeless()


def test_a_target_that_one_of_those_drawn_meets_is_not_refused():
    """Though one decision at a time leads away: together "a" and a whole stack cost little."""

    def cost(architecture):
        return (
            1.0
            if (architecture["first"], architecture["stack"]) == ("a", 3)
            else 10.0 + (architecture["first"] == "a") * 40 + architecture["stack"]
        )

    aim(cost, target=1.0).refuse_hopeless()
    with pytest.raises(SpaceExhausted, match=r"the space has min 1, as far as found, "):
        aim(cost, target=0.2).refuse_hopeless()


def factors(num: int, *each: float):
    """Return choices each of which multiplies the quantity, and the product: the least is 1."""
    options = {f"o{i}": nn.Identity() for i in range(len(each))}
    space = Space(nn.Sequential(*[OneOf(options, label=f"c{k}") for k in range(num)]))
    return (lambda a: math.prod(each[int(option[1:])] for option in a.values())), space


def test_a_target_is_not_forgiven_what_the_sum_is_wrong_by():
    own = aim(*factors(8, 1.0, 1.25, 1.6), target=0.9)
    assert (1 + own.expected.error) * own.target > 1.0
    with pytest.raises(SpaceExhausted, match=r"architecture was found .* macs = 0\.9: .* min 1, "):
        own.refuse_hopeless()
    aim(*factors(8, 1.0, 1.25, 1.6), target=1.0).refuse_hopeless()


def test_a_target_that_none_of_those_drawn_meets_is_looked_for():
    own = aim(*factors(4, 1.0, 2.0, 4.0), target=1.01)
    assert own.expected.values.min() > own.target
    own.refuse_hopeless()
