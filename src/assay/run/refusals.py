"""What is refused before anything is trained: a model, a target or a limit that cannot be."""

from __future__ import annotations

import numpy as np

from assay.architecture import Architecture, Option
from assay.cost import derive
from assay.errors import SpaceExhausted
from assay.hardware.table import runner_of
from assay.run.limits import Measure
from assay.run.plan import Plan
from assay.space.check import check_paths
from assay.space.space import Space
from assay.space.structure import Choice

__all__ = ["refuse_broken_model", "refuse_hopeless_limits"]

_CHECKED_PATHS = 3
_DRAWN = 501
_TIMED = 8  # where each is measured
_CHANCE = 1.2  # by which a single measurement may be off
_ADDED_UP = ("params", "model_bytes", "macs")


def refuse_broken_model(plan: Plan) -> None:
    """Run paths of the model, compare them with built networks, and give these to the target.

    Raises:
        InvalidSpace: a path does not run, or differs from its network; names the module.
        ExportRefused: the target cannot be given a network.
        InvalidSetting: the target's accelerator is not there.
    """
    space, task = plan.space, plan.task
    rng = derive(plan.seed, "check")
    covering = _covering(space)
    drawn = [space.sample(rng) for _ in range(_CHECKED_PATHS)]
    check_paths(space, task.example(2), [*covering, *drawn])
    extremes = [space.largest(), space.smallest()]  # which can be asked of a model that runs
    check_paths(space, task.example(2), extremes)
    for point in dict.fromkeys([*covering, *extremes]):
        runner_of(space, plan.target, task.example(plan.target.batch), point)


def refuse_hopeless_limits(plan: Plan, measures: Measure) -> None:
    """Find the least that the space has of what is limited: MACs, sizes, latency.

    Args:
        plan: Has the limits; others than these, and "median", are left to the search.
        measures: Measures latency on whole networks.
    Raises:
        SpaceExhausted: a limit that no architecture meets, with what the space has.
    """
    for name, limit in plan.limits.items():
        if name not in (*_ADDED_UP, "latency_ms") or isinstance(limit, str):
            continue
        timed = name == "latency_ms"
        least = measures(name, plan.space.smallest())
        if least > limit and not timed:
            least = _least(plan.space, name, measures)
        if least <= (_CHANCE * limit if timed else limit):
            continue
        rng = derive(plan.seed, "hopeless")
        drawn = [plan.space.sample(rng) for _ in range(_TIMED if timed else _DRAWN)]
        values = [least, *(measures(name, point) for point in drawn)]
        raise SpaceExhausted(
            f"no architecture can meet {name} <= {limit:g}: the space has min {min(values):.4g}, "
            f"median {np.median(values):.4g}, max {max(values):.4g}; raise the limit or widen the "
            "space"
        )


def _least(space: Space, name: str, measures: Measure) -> float:
    """Return the least of a quantity: one decision at a time takes its best option.

    Exact where decisions add up, as in chains.
    """
    best = space.smallest()
    least, improved = measures(name, best), True
    while improved:
        improved = False
        for label, choice in space.choices.items():
            for option in choice.options if label in best else ():
                rival = space.complete({**best, label: option}, lambda c: c.options[0])
                value = measures(name, rival)
                if value < least:
                    best, least, improved = rival, value, True
    return least


def _covering(space: Space) -> list[Architecture]:
    """Return a few architectures with each option of each OneOf that lies in no other.

    The first has the smallest sizes and depths, the others the largest.
    """

    def taken(i: int) -> Architecture:
        def option(choice: Choice) -> Option:
            which = i % len(choice.options) if choice.kind == "OneOf" else -1 if i else 0
            return choice.options[which]

        return space.complete({}, option)

    most = max([2, *(len(c.options) for c in space.choices.values() if c.kind == "OneOf")])
    return list(dict.fromkeys(map(taken, range(most))))
