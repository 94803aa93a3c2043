"""What is refused before anything is trained: a model, a target or a limit that cannot be."""

from __future__ import annotations

import math
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture, Option
from assay.contracts import Context, History, Mix
from assay.cost import derive
from assay.errors import AssayError, InvalidSpace, InvalidTask, SpaceExhausted, reason
from assay.hardware.measures import Measures
from assay.hardware.table import runner_of
from assay.report.units import in_full
from assay.run.limits import Measure, Quantity, quantity_name
from assay.run.plan import Plan
from assay.space.check import check_paths
from assay.space.extremes import lowest
from assay.space.forward import beside
from assay.space.space import Space
from assay.space.structure import Choice
from assay.train.modes import evaluating
from assay.train.task import Tally, Task, call_model
from assay.weights.supernet import Supernet

__all__ = [
    "refuse_broken_model",
    "refuse_broken_paths",
    "refuse_hopeless_latency",
    "refuse_hopeless_limits",
    "uncounted",
]

_CHECKED_PATHS = 3
_JUDGED = 64  # samples; a metric may need more than two
_DRAWN = 501
_TIMED = 9  # where each is measured
_ASKED = 50  # where a user's function is asked
_CHANCE = 1.2  # by which a single measurement may be off
_ADDED_UP = ("params", "model_bytes", "macs")


def refuse_broken_model(plan: Plan) -> None:
    """Run paths of the model, compare them with built networks, and give these to the target.

    Raises:
        InvalidSpace: see `refuse_broken_paths`.
        InvalidTask: likewise.
        ExportRefused: the target cannot be given a network.
        InvalidSetting: the target's accelerator is not there.
        UnsupportedMix: the strategy mixes options that cannot be mixed; names the choice.
        InvalidSetting: the strategy divides training samples that cannot be divided.
    """
    space, task = plan.space, plan.task
    refuse_broken_paths(space, task, seed=plan.seed)
    for point in dict.fromkeys([*_covering(space), space.largest(), space.smallest()]):
        runner_of(space, plan.target, task.example(plan.target.batch), point)
    paths: Any = getattr(plan.strategy, "paths", None)
    if hasattr(paths, "divide"):
        paths.divide(task)
    if hasattr(paths, "learn"):
        _refuse_unmixable(plan)


def refuse_broken_paths(space: Space, task: Task, *, seed: int) -> None:
    """Run paths of the model on samples of the task, compare them with built networks, judge one.

    Args:
        space: The paths are a few that have each operation, a few random ones, and the extremes.
        task: Gives the samples, and judges the largest network's output by its loss and metrics.
        seed: Of the random ones.
    Raises:
        InvalidSpace: nothing in it can be trained; a path does not run, or differs from its
            network, which names the module.
        InvalidTask: the output does not fit the targets; the loss or a metric fails on it, or the
            loss is no scalar.
    """
    if not any(parameter.requires_grad for parameter in space.model.parameters()):
        raise InvalidSpace(
            f"{type(space.model).__name__} has no parameter that takes a gradient, so no network "
            "of it can be trained; give it a layer with weights, or call requires_grad_(True)"
        )
    rng = derive(seed, "check")
    drawn = [space.sample(rng) for _ in range(_CHECKED_PATHS)]
    small, *large = _covering(space)
    # With the largest sizes first: what fails there is the data's fault, not that of a lost link.
    check_paths(space, task.example(2), [*large, small, *drawn])
    extremes = [space.largest(), space.smallest()]  # which can be asked of a model that runs
    check_paths(space, task.example(2), extremes)
    _refuse_unjudged(space, task)


def _refuse_unjudged(space: Space, task: Task) -> None:
    """Judge what the largest network gives for a training batch as a finalist is judged."""
    inputs, targets = beside(space.model, next(task.train.batches(_JUDGED, limit=_JUDGED)))
    space.select(space.largest())
    try:
        with torch.no_grad(), evaluating(space.model):
            output = call_model(space.model, inputs)
    finally:
        space.select(None)
    task.check_output(output, targets)
    alone = task.over(task.train, task.valid)
    for name in ("loss", *task.metrics):
        alone.metrics = {k: metric for k, metric in task.metrics.items() if k == name}
        try:
            alone.training_loss(output, targets, 0.0)
            Tally(alone).add(output, targets)
        except AssayError:
            raise
        except Exception as error:
            what = name if name == "loss" else f"metric {name!r}"
            raise InvalidTask(
                f"the {what} fails on what the network gives for {len(targets)} training samples "
                f"({reason(error)}); correct it, or the network's output"
            ) from error


def _refuse_unmixable(plan: Plan) -> None:
    """Let paths learn from two samples, and where they mix operations mix all that there are.

    They are those of another strategy of its kind, and the weights are drawn anew after.
    """
    strategy: Any = plan.strategy
    space, device = plan.space, plan.train_on
    if is_dataclass(strategy):
        strategy = replace(strategy)  # type: ignore[type-var]
    paths = strategy.paths
    supernet = Supernet(space, paths=paths, device=device, seed=plan.seed)
    supernet.reset()
    mode = space.model.training
    space.model.train()
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    try:
        with torch.random.fork_rng(devices=cuda):
            task = plan.task.on(next(plan.task.valid.batches(2, device=device, limit=2)))
            _learn(paths, replace(plan, task=task), supernet)
            if _weighs_operations(space):
                space.select(_all_operations(space))
                with torch.no_grad():
                    call_model(space.model, task.example(2, device))
    finally:
        space.select(None)
        space.model.train(mode)
        supernet.reset()


def _learn(paths: Any, plan: Plan, supernet: Supernet) -> None:
    """Let paths take their first step; which path or mix that was stays selected."""
    if hasattr(paths, "begin"):
        ctx = Context(
            plan.space, plan.task, plan.recipe, plan.executor, plan.train_on, plan.seed,
            History(plan.space),
        )  # fmt: skip
        paths.begin(ctx, plan.space, 1)
    if hasattr(paths, "hasten"):
        paths.hasten()
    paths.learn(supernet, plan.task, 0)


def _weighs_operations(space: Space) -> bool:
    """Whether several options of an operation are selected at once, or by chance no operation is.

    Nothing is known of them where the mix that was drawn leads to none.
    """
    if space.selected is None or isinstance(space.selected, Architecture):
        return False
    taken = [len(o) for k, o in space.selected.items() if space.choices[k].kind == "OneOf"]
    return not taken or max(taken) > 1


def _all_operations(space: Space) -> Mix:
    """Return the mix of all operations, at the deepest."""
    return {
        label: dict.fromkeys(choice.options if choice.kind == "OneOf" else choice.options[-1:], 1.0)
        for label, choice in space.choices.items()
    }


def refuse_hopeless_limits(plan: Plan, measures: Measure) -> None:
    """Find the least that the space has of what is limited: MACs, sizes, latency, users' functions.

    A user's function, of which nothing is known, is asked about the smallest and the largest
    architecture, and about a few more while none of them is within its limit.

    Args:
        plan: Has limits and objectives; other limits, and "median", are left to the search.
        measures: Measures latency on whole networks.
    Raises:
        SpaceExhausted: a limit that no architecture meets, with what the space has.
        InvalidSetting: a user's function that fails.
    """
    for quantity in dict.fromkeys([*plan.limits, *plan.objectives]):
        if callable(quantity):
            _refuse_function(plan, quantity, measures)
    for name, limit in plan.limits.items():
        if name in _ADDED_UP and not isinstance(limit, str):
            _refuse_sum(plan, name, limit, measures)
        elif name == "latency_ms" and not isinstance(limit, str):
            least = [measures(name, plan.space.smallest())]
            _refuse_all(plan, name, limit, least, measures, most=_TIMED, chance=_CHANCE)


def refuse_hopeless_latency(plan: Plan, measures: Measure) -> None:
    """Find the least latency that the space has, once a table tells of each architecture.

    Args:
        plan: Has the limits.
        measures: Tells latency by the table.
    Raises:
        SpaceExhausted: a limit that no architecture meets, with what the space has.
    """
    limit = plan.limits.get("latency_ms")
    if limit is not None and not isinstance(limit, str):
        _refuse_sum(plan, "latency_ms", limit, measures)


def _refuse_function(plan: Plan, function: Quantity, measures: Measure) -> None:
    space, limit = plan.space, plan.limits.get(function, math.inf)
    values = [measures(function, point) for point in (space.smallest(), space.largest())]
    if not isinstance(limit, str):
        claim = f"none of {_ASKED} architectures meets"
        _refuse_all(plan, function, limit, values, measures, most=_ASKED, claim=claim)


def _refuse_sum(plan: Plan, name: str, limit: float, measures: Measure) -> None:
    """Refuse a limit that the least of a quantity misses to which decisions add up."""
    smallest = plan.space.smallest()
    if measures(name, smallest) > limit:
        least = lowest(plan.space, partial(measures, name), smallest, lambda c: c.options[0])
        _refuse_all(plan, name, limit, [measures(name, least)], measures, most=_DRAWN)


def _refuse_all(
    plan: Plan,
    quantity: Quantity,
    limit: float,
    values: list[float],
    measures: Measure,
    *,
    most: int,
    chance: float = 1.0,
    claim: str = "no architecture can meet",
) -> None:
    """Refuse a limit that neither the values known meet nor those of random architectures.

    Args:
        plan: Names the space and the draws.
        quantity: What is limited.
        limit: Largest value allowed.
        values: Of some architectures; those of others are added.
        measures: Tells the quantity.
        most: Values in all.
        chance: By which a value may be over the limit.
        claim: What is said of the limit.
    Raises:
        SpaceExhausted: with what the space has.
    """
    rng = derive(plan.seed, "hopeless")
    while min(values) > chance * limit:
        if len(values) == most:
            raise SpaceExhausted(
                f"{claim} {quantity_name(quantity)} <= {in_full(limit)}: the space has min "
                f"{in_full(min(values))}, median {in_full(float(np.median(values)))}, max "
                f"{in_full(max(values))} among {most} architectures; raise the limit or widen the "
                "space"
            )
        values.append(measures(quantity, plan.space.sample(rng)))


def uncounted(space: Space, measures: Measures) -> str:
    """Say what multiplies in a space's networks and is not in their MACs; "" where all is."""
    names = {name for point in _covering(space) for name in measures.uncounted(point)}
    if not names:
        return ""
    return (
        f"no formula counts the MACs of {', '.join(sorted(names))}: they are left out wherever "
        "MACs are limited, compared or shown"
    )


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
