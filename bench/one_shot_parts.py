"""What each part of the supernet's recipe is worth, in Kendall tau, all at equal computing time.

    python -m bench.one_shot_parts                         # two seeds, about 45 minutes
    python -m bench.one_shot_parts --steps 200 --seeds 0   # to see that it runs

100 cells of NAS-Bench-201 on CIFAR-10, drawn with seed 2 from the space's own classes: the sample
that settings are tuned on. 7 of them are also among the 300 of `bench.nasbench201_fidelity`.
Each line of `TRAINED` is a supernet that takes as many steps as are paid for by `--steps` of the
defaults: how much longer one of its steps takes is measured in interleaved pairs, so that work
beside it does no harm. Those of `RECIPES` are regularised otherwise, which costs nothing. Each of
`JUDGED` scores the default one's weights in another way. `few-shot` (Zhao et al. 2021,
arXiv:2006.06863) trains one supernet for half of the steps, and then one for each option of the
first edge, from its weights, for equal parts of the other half; it is judged by the loss, since the
largest network is no path of most parts, and to be held against `score=loss`.

Each seed's lines say tau, and how much more it is than that of the defaults with the same seed,
with an interval over architectures. `value` is tau of the defaults and `gain` what each line has
more, the means over seeds; the ends of `value` are its least and its most.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.architecture import Architecture, Option
from assay.contracts import Context, Estimate, History, Proposal
from assay.cost import Budget
from assay.estimators.one_shot import OneShot
from assay.executors.inline import Inline
from assay.executors.processes import Processes
from assay.hardware.count import count
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.trust.compare import compare
from assay.weights.paths import Sized
from assay.zoo.cell import cell
from bench.harness import paired_ratios, report
from bench.nasbench201_fidelity import SHARED, cifar10, sample, scored

DEFAULT, FEW_SHOT, FIRST_EDGE = "default", "few-shot", "edge01"
_TIMED_STEPS, _PAIRS = 40, 7
STATES = 4
"""Kept of the default supernet, of which the defaults take the third and the last."""
TRAINED: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {"states": STATES},
    "paths=uniform": {"paths": "uniform"},
    "paths=fair": {"paths": "fair"},
    "paths=sandwich": {"paths": "sandwich"},
    "rate=1": {"rate": 1.0},
    "schedule=cosine": {"schedule": "cosine"},
    "ema=0": {"ema": 0.0},
}
RECIPES: Mapping[str, Mapping[str, float]] = {
    "weight_decay=0": {"weight_decay": 0.0},
    "weight_decay=2e-3": {"weight_decay": 2e-3},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
}
JUDGED: Mapping[str, tuple[slice, Mapping[str, Any]]] = {
    DEFAULT: (slice(1, STATES, 2), {}),
    "states=1": (slice(-1, None), {}),
    "states=4": (slice(None), {}),
    "score=metric": (slice(1, STATES, 2), {"score": "metric"}),
    "score=loss": (slice(1, STATES, 2), {"score": "loss"}),
    "norms=recalibrate": (slice(1, STATES, 2), {"norms": "recalibrate"}),
}


@dataclass(frozen=True)
class Within:
    """Paths of one part of a space: those whose canonical form has an option.

    Args:
        label: A decision.
        option: What it is.
        paths: What is drawn from until it fits.
    """

    label: str
    option: Option
    paths: Sized = field(default_factory=Sized)

    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture]:
        """Return one architecture."""
        while True:
            (drawn,) = self.paths.passes(space, step, rng=rng)
            if isinstance(drawn, Architecture) and drawn[self.label] == self.option:
                return [drawn]


def context(task: Task, seed: int) -> Context:
    space = cell(input_shape=(3, 32, 32))
    return Context(space, task, Recipe(), Inline(), "cpu", seed, History(space))


def prepared(estimator: OneShot, ctx: Context, steps: int) -> OneShot:
    for _ in estimator.prepare(ctx, Budget(steps=steps)):
        pass
    return estimator


def told(estimator: OneShot, ctx: Context, points: Sequence[Architecture]) -> list[Estimate]:
    return estimator.estimate(ctx, [Proposal(a) for a in points])


def affordable(settings: Mapping[str, Any], ctx: Context, steps: int) -> int:
    """Return the steps with such settings that take as long as `steps` with the defaults."""

    def train(some: Mapping[str, Any]) -> None:
        prepared(OneShot(**some), ctx, _TIMED_STEPS)

    ratios = paired_ratios(partial(train, settings), partial(train, {}), pairs=_PAIRS)
    return max(1, round(steps / float(np.median(ratios))))


def scores(
    name: str, ctx: Context, points: Sequence[Architecture], default_steps: int
) -> dict[str, Any]:
    """Train one supernet, and score by it in each way that there is."""
    if name == FEW_SHOT:
        said = {name: few_shot(ctx, points, default_steps)}
        return {"seed": ctx.seed, "trained": name, "steps": default_steps, "said": said}
    steps, settings = default_steps, TRAINED.get(name, {})
    if name in RECIPES:
        ctx = replace(ctx, recipe=ctx.recipe.with_(**RECIPES[name]))
    elif name != DEFAULT:
        steps = affordable(settings, ctx, default_steps)
    estimator = prepared(OneShot(**settings), ctx, steps)
    if name == DEFAULT:
        said, state = {}, estimator.state_dict()
        for judged, (kept, settings) in JUDGED.items():
            again = OneShot(**settings)
            again.load_state_dict({**state, "kept": state["kept"][kept]})
            said[judged] = [e.score for e in told(again, ctx, points)]
    else:
        said = {name: [e.score for e in told(estimator, ctx, points)]}
    return {"seed": ctx.seed, "trained": name, "steps": steps, "said": said}


def few_shot(ctx: Context, points: Sequence[Architecture], steps: int) -> list[float]:
    """Score each architecture by the supernet of its part of the space."""
    base = prepared(OneShot(), ctx, steps // 2)
    options = ctx.space.choices[FIRST_EDGE].options
    state = {**base.state_dict(), "kept": []}
    found: dict[Architecture, float] = {}
    for option in options:
        part = OneShot(paths=Within(FIRST_EDGE, option), score="loss")
        part.load_state_dict(state)
        prepared(part, ctx, steps // 2 + steps // 2 // len(options))
        mine = [a for a in points if a[FIRST_EDGE] == option]
        found |= dict(zip(mine, (e.score for e in told(part, ctx, mine))))
    return [found[a] for a in points]


def judged(
    truth: Path, points: list[Architecture], said: dict[str, list[float]]
) -> tuple[dict[str, float], dict[str, list[float | None]]]:
    """Return tau of each, and how much more it is than that of the defaults, with its interval."""
    figures = scored(truth, points, said)
    pairs = [(name, DEFAULT) for name in said if name != DEFAULT]
    gains = {d.one: [d.tau.value, d.tau.low, d.tau.high] for d in compare(figures, pairs)}
    return {name: one.figures["tau"].value or 0.0 for name, one in figures.items()}, gains


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--only", nargs="*", default=[*TRAINED, *RECIPES, FEW_SHOT])
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, truth = cifar10(given.data), given.data / "nasbench201_cifar10.csv"
    points = sample(given.num, seed=2)
    space, example = cell(input_shape=(3, 32, 32)), task.example(1)
    macs = [float(count(space.build(a), example).macs) for a in points]
    executor, names = Processes(), list(dict.fromkeys([DEFAULT, *given.only]))
    jobs = [
        executor.submit(partial(scores, name, context(task, seed), points, given.steps))
        for seed in given.seeds
        for name in names
    ]
    said: dict[int, dict[str, list[float]]] = {seed: {"macs": macs} for seed in given.seeds}
    for job in executor.gather(jobs):
        made = job.result()
        said[made["seed"]] |= made.pop("said")
        print(json.dumps(made), flush=True)
    rows = {}
    for seed in given.seeds:
        taus, gains = judged(truth, points, said[seed])
        rows[seed] = {name: np.round([taus[name], *gains.get(name, [])], 3) for name in taus}
        each = {name: row.tolist() for name, row in rows[seed].items()}
        print(json.dumps({"seed": seed, "tau, and the gain with its interval": each}))
    told_by_default = [row[DEFAULT][0] for row in rows.values()]
    report(
        "one_shot_parts", float(np.mean(told_by_default)), "tau", "stated",
        (min(told_by_default), max(told_by_default)), num=given.num, steps=given.steps,
        seeds=given.seeds, gain={
            name: round(float(np.mean([row[name][1] for row in rows.values()])), 3)
            for name in rows[given.seeds[0]] if name != DEFAULT
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
