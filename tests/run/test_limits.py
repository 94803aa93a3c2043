from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn

from assay.architecture import Architecture
from assay.contracts import Estimate
from assay.errors import InvalidSetting, NotFinite
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.run.limits import Aims, quantity_name, refuse_shared_names
from assay.testing import tiny_space

POINT = Architecture({"a": "x"})


def test_limits_are_checked_cheapest_first_and_stop_at_the_first_broken() -> None:
    asked: list[str] = []

    def measure(name: str, point: Architecture) -> float:
        asked.append(name)
        return {"macs": 50.0, "params": 10.0, "latency_ms": 3.0}[name]

    aims = Aims({"latency_ms": 2.0, "params": 20.0}, ("score",), Measures.order)
    measured, violation = aims.check(POINT, measure)
    assert asked == ["params", "latency_ms"]
    assert measured == {"params": 10.0, "latency_ms": 3.0}
    assert violation == pytest.approx(0.5)
    aims = Aims({"params": 5.0, "latency_ms": 9.0}, ("score",), Measures.order)
    asked.clear()
    assert aims.check(POINT, measure)[1] == pytest.approx(1.0)
    assert asked == ["params"]


def test_what_holds_is_measured_for_every_objective() -> None:
    values = {"macs": 50.0, "latency_ms": 3.0}
    aims = Aims({}, ("score", "-latency_ms"), Measures.order)
    measured, violation = aims.check(POINT, lambda q, a: values[q])
    assert violation == 0
    assert measured == values
    assert aims.values(Estimate(0.7), measured) == (0.7, -3.0)


def test_what_cannot_be_limited_or_aimed_at() -> None:
    for limits, objectives in (
        ({"macs": 0}, ("score",)),
        ({"macs": float("nan")}, ("score",)),
        ({"macs": True}, ("score",)),
        ({}, ()),
        ({}, ("score", "-score")),
    ):
        with pytest.raises(InvalidSetting):
            Aims(limits, objectives, Measures.order)
    aims = Aims({"macs": 1.0}, ("score",), Measures.order)
    with pytest.raises(NotFinite, match="macs"):
        aims.check(POINT, lambda q, a: float("nan"))


def depth(module: nn.Module) -> float:
    return 1.0


def another_depth() -> Callable[[nn.Module], float]:
    def depth(module: nn.Module) -> float:
        return 2.0

    return depth


def macs(module: nn.Module) -> float:
    return 3.0


class Depth:
    def __call__(self, module: nn.Module) -> float:
        return 4.0


def test_what_can_be_called_has_a_name() -> None:
    assert quantity_name(depth) == "depth"
    assert quantity_name(partial(depth)) == "depth"
    assert quantity_name(partial(partial(depth))) == "depth"
    assert quantity_name(Depth()) == quantity_name(partial(Depth())) == "Depth"


def test_values_are_kept_by_names_that_are_a_quantitys_own() -> None:
    refuse_shared_names([depth, "macs", "-latency_ms", "score", "macs", depth])
    with pytest.raises(InvalidSetting, match="'depth' is called like another function"):
        refuse_shared_names([depth, another_depth()])
    with pytest.raises(InvalidSetting, match="'macs' is called like what Assay measures"):
        refuse_shared_names([macs])
    with pytest.raises(InvalidSetting, match="'depth' is called like another function"):
        refuse_shared_names([depth, partial(depth)])
    for nameless in (lambda module: 1.0, partial(lambda module: 1.0)):
        with pytest.raises(InvalidSetting, match="has no name"):
            quantity_name(nameless)
    with pytest.raises(InvalidSetting, match="3 is no quantity; give a name such as 'macs'"):
        quantity_name(3)  # type: ignore[arg-type]


def test_the_dearest_has_the_most_macs_of_what_is_within_the_limits() -> None:
    space = tiny_space()

    def cost(quantity: str, point: Architecture) -> float:
        return Measures(space, Device("torch"), space.example)(quantity, point)

    def dearest(limits: dict[Any, float]) -> Architecture:
        return Aims(limits, ("score",), Measures.order).dearest(space, cost, seed=0)

    most = cost("macs", space.largest())
    assert dearest({}) == dearest({"macs": most}) == space.largest()
    assert dearest({"macs": 1e-9}) == space.largest()  # nothing that was drawn is within
    assert dearest({partial(cost, "macs"): 1.0}) == space.largest()  # it would be asked 201 times
    found = dearest({"macs": 0.7 * most})
    assert 0.5 * most < cost("macs", found) <= 0.7 * most
    assert found == dearest({"macs": 0.7 * most})
    # Of what several limits allow: with few parameters there are few MACs, too.
    few = 0.3 * cost("params", space.largest())
    assert cost("params", dearest({"params": few, "macs": 0.7 * most})) <= few
