"""The space, the hardware and the jobs of `bench.methods`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.hardware.table import LatencyTable
from assay.run.face import search
from assay.run.plan import Finalists
from assay.space.space import Space
from assay.strategies.learned.proxyless import Proxyless
from assay.study.store import Study
from assay.train.loop import Trainer
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from assay.zoo.mobile import Stage, mobile

RECIPE = Recipe(batch_size=128, epochs=1, weight_decay=2e-4)
"""One epoch: no search trains its winner for less, so all winners are trained alike."""
RANDOM = "random 40"
TARGETS = {"onnxruntime": Device(), "torch": Device("torch")}


def chain() -> Space:
    stages = (Stage((16,), (2, 2)), Stage((32,), (2, 2), stride=2), Stage((64,), (2, 2), stride=2))
    return mobile(input_shape=(1, 28, 28), stages=stages, stem=16, stem_stride=2, head=128)


# --- the hardware, measured once ------------------------------------------------------------------


def prepare_table(out: Path, target: str, space: Space, task: Task) -> None:
    """Measure the latency table that all searches share, and note what it took."""
    path = out / f"table-{target}.json"
    if not path.exists():
        started = time.perf_counter()
        table = LatencyTable.build(space, TARGETS[target], example=task.example(1))
        (out / f"table-{target}.seconds").write_text(str(time.perf_counter() - started))
        table.save(path)


def measures(space: Space, task: Task, out: Path, target: str) -> Measures:
    device, example = TARGETS[target], task.example(1)
    table = LatencyTable.load(out / f"table-{target}.json", space, device, example=example)
    return Measures(space, device, example, table)


def half(space: Space, task: Task, out: Path, target: str, quantity: str = "latency_ms") -> float:
    """Return half of what the largest architecture takes, by the table.

    Where the smallest takes more, as in torch on some machines, it is what lies midway.
    """
    known, example = measures(space, task, out, target), task.example(1)
    most, least = (known(quantity, a) for a in (space.largest(example), space.smallest(example)))
    return most / 2 if least < most / 2 else (least + most) / 2


def whole_ms(network: nn.Module, example: Any, device: Device, limit: float) -> float:
    """Measure a network whole, by the rule of a search's finalists: once more where it is over."""
    once_ms = device.latency(network, example).median_ms
    if once_ms <= limit:
        return once_ms
    with device.ready():
        return min(once_ms, *device.medians_ms([device.runner(network, example)]))


# --- one job, one process -------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Trains the random architecture of a number, under the limit, by the recipe."""

    number: int

    @property
    def key(self) -> str:
        return f"random40-{self.number}"

    def __call__(self, out: Path) -> dict[str, Any]:
        task, space = load_task("fashion-mnist"), chain()
        known = measures(space, task, out, "onnxruntime")
        limit = half(space, task, out, "onnxruntime")
        started = time.perf_counter()
        point = self.drawn(space, task, known, limit)
        network = train(space, point, task, self.number)
        seconds = time.perf_counter() - started
        # Of all of these the best on validation is judged; the test figure of the others is needed
        # to say what fewer trainings would have given, and how sure this one is.
        accuracy = evaluate(network, task.open_test().batches(500), task)["accuracy"]
        return {
            "name": RANDOM, "target": "onnxruntime", "seconds": seconds, "accuracy": accuracy,
            "valid": validated(network, task), "macs": known("macs", point), "limit_ms": limit,
            "whole_recipe": True, "architecture": dict(point),
        }  # fmt: skip

    def drawn(self, space: Space, task: Task, known: Measures, limit: float) -> Architecture:
        """Draw until one holds the limit, by the table and then measured whole."""
        rng, device = derive(0, RANDOM, self.number), TARGETS["onnxruntime"]
        while True:
            point = space.canonical(space.sample(rng))
            if known("latency_ms", point) > limit:
                continue
            if whole_ms(space.build(point), task.example(1), device, limit) <= limit:
                return point


@dataclass(frozen=True)
class Again:
    """Trains the random architecture of a number from another seed; `Training` was there before."""

    number: int

    @property
    def key(self) -> str:
        return f"again-{self.number}"

    def __call__(self, out: Path) -> dict[str, Any]:
        task, space = load_task("fashion-mnist"), chain()
        before = json.loads((out / f"{Training(self.number).key}.json").read_text())
        started = time.perf_counter()
        network = train(space, Architecture(before["architecture"]), task, 1000 + self.number)
        seconds = time.perf_counter() - started
        return {"name": "again", "seconds": seconds, "valid": validated(network, task)}


def train(
    space: Space, point: Architecture, task: Task, seed: int, recipe: Recipe = RECIPE
) -> nn.Module:
    """Train an architecture from scratch by a whole recipe."""
    steps = whole_steps(task, recipe)
    trainer = Trainer(space.fresh(point, seed), task, recipe, steps=steps, seed=seed)
    trainer.run(steps)
    return trainer.finish()


def validated(network: nn.Module, task: Task) -> float:
    return evaluate(network, task.valid.batches(500), task)["accuracy"]


@dataclass(frozen=True)
class Search:
    """Searches with a method for some minutes; for an aim, or a target, if these are given."""

    method: str
    minutes: float
    seed: int
    target: str = "onnxruntime"
    aim: str = ""

    @property
    def name(self) -> str:
        return f"aim {self.aim}" if self.aim else self.method

    @property
    def key(self) -> str:
        of = f"{self.name}-{self.target}-{self.minutes:g}min-{self.seed}"
        return of.replace(" ", "-")

    def __call__(self, out: Path) -> dict[str, Any]:
        task, space = load_task("fashion-mnist"), chain()
        limit = half(space, task, out, self.target)
        table_s = float((out / f"table-{self.target}.seconds").read_text())
        estimator = self.method.partition(" by ")[2] or "one-shot"
        result = search(
            space, task, strategy=self._strategy(space, task, out), estimator=estimator,
            target=TARGETS[self.target], seed=self.seed, recipe=RECIPE,
            limits={} if self.aim else {"latency_ms": limit}, objectives=("score",),
            budget=f"{60 * self.minutes - table_s}s" + ",trials=1" * bool(self.aim),
            finalists=Finalists(compare=False), table=out / f"table-{self.target}.json",
            out=out / self.key,
        )  # fmt: skip
        best = result.best()
        with Study.read(out / self.key) as study:
            ledger, steps = study.ledger(), study.phase("finalists").counts["steps"]
        scored = sum(t.state == "scored" for t in result.trials())
        return {
            "name": self.name, "seed": self.seed, "minutes": self.minutes, "target": self.target,
            "seconds": table_s + sum(cost.wall_s for cost in ledger.values()),
            "accuracy": best.metrics["test_accuracy"], "valid": best.metrics["valid_accuracy"],
            "macs": best.metrics["macs"], "limit_ms": limit, "scored": scored,
            "steps": steps, "whole_recipe": steps == whole_steps(task),
            "prepare_s": ledger["train"].wall_s, "each_s": ledger["score"].wall_s / scored,
            "architecture": dict(best.architecture),
        }  # fmt: skip

    def _strategy(self, space: Space, task: Task, out: Path) -> Any:
        if self.aim == "latency_ms":
            return Proxyless(target=half(space, task, out, self.target))
        if self.aim == "macs":
            macs = half(space, task, out, self.target, "macs")
            return Proxyless(quantity="macs", target=macs)
        if self.aim:
            return Proxyless(quantity="")
        if self.method == "proxyless reinforce":
            return Proxyless(rule="reinforce")
        return self.method.partition(" by ")[0]


def whole_steps(task: Task, recipe: Recipe = RECIPE) -> int:
    return recipe.epochs * task.steps_per_epoch(recipe.batch_size)
