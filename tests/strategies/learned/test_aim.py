"""A quantity in the loop: its part in a loss, in a reward, and a target that cannot be met."""

from __future__ import annotations

import math

import pytest

from assay.errors import InvalidSetting, SpaceExhausted
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
        SpaceExhausted, match=r"macs = 9: the space has min 9\.5, and up to 10 among"
    ):
        aim(in_nine, wrapped(), target=9.0).refuse_hopeless()
    aim(in_nine, wrapped(), target=9.5).refuse_hopeless()


def test_a_target_that_one_of_those_drawn_meets_is_not_refused():
    """Though what has least by the sum misses it: together "a" and a whole stack cost little."""

    def cost(architecture):
        return (
            1.0
            if (architecture["first"], architecture["stack"]) == ("a", 3)
            else 10.0 + (architecture["first"] == "a") * 40 + architecture["stack"]
        )

    own = aim(cost, target=1.0)
    assert cost(own.expected.cheapest()) > 2 * (1 + own.expected.error)
    own.refuse_hopeless()
    with pytest.raises(SpaceExhausted, match=r"the space has min 1, "):
        aim(cost, target=0.2).refuse_hopeless()
