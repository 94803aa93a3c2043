"""Memory and time of searching with N operations in each block: one path, ProxylessNAS, DARTS.

    python -m bench.path_memory                     # every N
    python -m bench.path_memory --only 2 6 --pairs 2

In the space `mobile`, at fixed widths and depths, N = kernels x expansions. For each N the bytes
that autograd keeps for the backward pass, each storage once and no weights, and the time of

- `alone`: a weight step of one network built alone, the same at every N, and `same`: of the same
  path of the supernet;
- `path`: a weight step on a random path (bytes: mean of the N paths of one operation throughout);
- `proxyless`: an architecture step on a validation batch as large, with expected MACs in its loss
  (bytes: of `path`, times the mean ratio of 10 steps to the active path of each), and
  `proxyless_weight`: a weight step on a path drawn from its distribution, in canonical form, which
  keeps what such a path keeps; the distribution stays uniform, at a rate of next to nothing, so
  that the active paths are like those of `path`; `given`: weight steps on the very paths of
  `proxyless_weight`, drawn beforehand;
- `reinforce`: an architecture step of `proxyless` by reward, of four paths without a gradient;
- `darts`: a weight step that runs all N operations of each block, whose weights are left as they
  are, and `darts_architecture`: a step of first order that moves these, on a validation batch;
- `darts_second_order`: such a step of second order, which also takes a training batch.

Of `reinforce` and `darts_second_order` only the time is told: the first keeps nothing for a
backward pass, the second does several passes after each other.

Memory means those saved tensors: weights, gradients, workspaces and whatever else is resident are
not measured, since all kinds of step share one process.

Steps of Assay are those of its training loop, batches included. The same is measured of NNI 3.0's
`RandomOneShot`, `Proxyless` and `DARTS` right after, in an environment of its own (`nni` in --out,
made on first use: 1.5 GB): the same blocks, batch, optimiser, layout and version of torch, one
thread; `bench.nni_steps` says what its steps are. Where that cannot be done, `nni` says why. What a
backward computes and drops again, as NNI's Proxyless does the operations not sampled, is time and
not bytes.

Ratios are medians of interleaved pairs, `step_ms` of the same calls. `value` is the time of an
architecture step ÷ that of `path` at N = `at`: 6, or the largest where that is not measured;
`time_weight_to_given` is that of `proxyless_weight` ÷ that of `given`: what drawing costs. `holds`
asks of it what it asks of `same` ÷ `alone`.
`slope` is that of DARTS' bytes ÷ those of a path, by least squares over N: paths per operation.
`holds` checks the targets at every N measured. The figure is `path_memory.svg` in --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from assay.architecture import Architecture
from assay.contracts import Context, History
from assay.cost import derive
from assay.executors.inline import Inline
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.report.svg import COLOURS, style
from assay.space.space import Space
from assay.strategies.learned.darts import DARTS, Weights
from assay.strategies.learned.proxyless import Gates, Proxyless
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task, call_model
from assay.weights.paths import Uniform
from assay.weights.supernet import Supernet
from assay.zoo.mobile import Stage, mobile
from bench.harness import PAIRS, interval, paired_ratios, report
from bench.nni_steps import Plan, Step, kept_bytes, mib, middle, name_of

SHAPE, CLASSES, BATCH, DRAWS = (1, 28, 28), 10, 64, 10
IMAGES = 1024
STEM, HEAD, STAGES = 16, 128, ((24, 2, 1), (40, 2, 2), (64, 2, 2))
"""Stages are (width, blocks, stride)."""
OPERATIONS = {2: ((3, 5), (3,)), 4: ((3, 5), (3, 6)), 6: ((3, 5, 7), (3, 6)),
              8: ((3, 5, 7, 9), (3, 6)), 12: ((3, 5, 7, 9), (3, 4, 6))}  # fmt: skip
"""N -> kernels and expansions."""
ALONE = (5, 3)
"""An operation that is there at every N."""
RECIPE = Recipe(batch_size=BATCH, warmup=0.0, schedule="constant")
FOREVER = 10**9
REPLAYED = 500
"""Paths that are drawn beforehand: more than there are steps."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", type=int, default=[*OPERATIONS], choices=OPERATIONS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-path-memory"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    python = nni_python(given.out / "nni")
    task = noise()
    ours: dict[int, Any] = {}
    theirs: dict[int, Any] = {}
    ratios: dict[int, list[float]] = {}
    for num in sorted(given.only):
        ours[num], ratios[num] = measured(num, task, given.pairs)
        theirs[num] = nni_measured(python, plan_of(num, given.pairs))
    told = {num: row for num, row in theirs.items() if not isinstance(row, str)}
    draw(ours, told, given.out / "path_memory.svg")
    at = 6 if 6 in ours else max(ours)
    report(
        "path_memory", float(np.median(ratios[at])), "ratio", "<= 2.2", interval(ratios[at]),
        at=at, holds=holds(ours), slope=slope(ours), nni_slope=slope(told), batch=BATCH,
        shape=list(SHAPE), pairs=given.pairs, torch=torch.__version__, by_operations=ours,
        nni=theirs if told else theirs[at],
    )  # fmt: skip


# --- Assay ----------------------------------------------------------------------------------------


def space_of(num: int) -> Space:
    kernels, expansions = OPERATIONS[num]
    made = mobile(
        input_shape=SHAPE, stem=STEM, stem_stride=1, head=HEAD, kernels=kernels,
        stages=[Stage((width,), (n, n), stride=stride) for width, n, stride in STAGES],
        expansions=expansions, skip=False,
    )  # fmt: skip
    assert {len(c.options) for c in made.choices.values()} == {num}
    return made


def noise() -> Task:
    images = derive(0, "images").integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(IMAGES) % CLASSES, layout="NCHW")
    assert len(task.valid) >= BATCH  # or an architecture step would have a smaller batch
    return task


def measured(num: int, task: Task, pairs: int) -> tuple[dict[str, Any], list[float]]:
    """Return the figures of one N, and the ratios of an architecture step to a weight step."""
    space = space_of(num)
    ctx = Context(space, task, RECIPE, Inline(), "cpu", 0, History(space))
    own: dict[str, Any] = {"lr": 1e-9, "warmup": 0.0, "every": 1, "batch": BATCH}
    gates, rewarded = (
        Proxyless(rule=rule, quantity="macs", **own).paths for rule in ("gradient", "reinforce")
    )
    gates.measure = rewarded.measure = Measures(space, Device("torch"), task.example(1))
    weights, ahead = (
        DARTS(warmup=0.0, every=1, batch=BATCH, second_order=twice).paths for twice in (False, True)
    )
    for learner in (gates, rewarded, weights, ahead):
        learner.begin(ctx, space, FOREVER)
    supernet = Supernet(space, seed=0)
    supernet.reset()
    alone = Trainer(space.build(everywhere(space, name_of(*ALONE))), task, RECIPE, steps=FOREVER)
    trainers = {"alone": alone, **path_trainers(space, task, gates, weights)}
    number = iter(range(FOREVER))
    works: dict[str, Callable[[], object]] = {
        name: lambda trainer=trainer: trainer.run(1)  # type: ignore[misc]
        for name, trainer in trainers.items()
    }
    learners = {
        "proxyless": gates, "reinforce": rewarded,
        "darts_architecture": weights, "darts_second_order": ahead,
    }  # fmt: skip
    for name, learner in learners.items():
        works[name] = lambda learner=learner: learner.learn(supernet, task, next(number))
    inputs: Any = next(task.train.train_batches(BATCH, seed=0))[0]
    kept, share = kept_by(space, alone, works["proxyless"], inputs)
    kept |= darts_kept(space, weights, works["darts_architecture"], inputs)
    steps = {name: Step(work) for name, work in works.items()}
    same = paired_ratios(steps["same"], steps["alone"], pairs=pairs)
    drawn = paired_ratios(steps["proxyless_weight"], steps["given"], pairs=pairs)
    to_path = {
        name: paired_ratios(steps[name], steps["path"], pairs=pairs)
        for name in (*learners, "darts")
    }
    row = {
        "path_to_alone": round(kept["same"] / kept["alone"], 4),
        "proxyless_without_second_output_to_path": round(share, 4),
        "proxyless_to_path": round(kept["proxyless"] / kept["path"], 4),
        "darts_to_path": round(kept["darts"] / kept["path"], 2),
        "darts_architecture_to_path": round(kept["darts_architecture"] / kept["path"], 2),
        "time_path_to_alone": middle(same),
        "time_architecture_to_path": middle(to_path["proxyless"]),
        "time_reinforce_to_path": middle(to_path["reinforce"]),
        "time_weight_to_given": middle(drawn),
        "time_darts_to_path": middle(to_path["darts"]),
        "time_darts_architecture_to_path": middle(to_path["darts_architecture"]),
        "time_darts_second_order_to_path": middle(to_path["darts_second_order"]),
        "kept_mib": {name: mib(value) for name, value in kept.items()},
        "step_ms": {name: step.ms for name, step in steps.items()},
    }
    return row, to_path["proxyless"]


def path_trainers(space: Space, task: Task, gates: Gates, weights: Weights) -> dict[str, Trainer]:
    """Return what takes the weight steps of a supernet, by the kind of step."""
    paths = {
        "same": Everywhere(space, name_of(*ALONE)),
        "path": Uniform(),
        "proxyless_weight": Still(gates),
        "given": Given(gates, space),
        "darts": Still(weights),
    }
    return {
        name: Supernet(space, paths=own).trainer(task, RECIPE, steps=FOREVER)
        for name, own in paths.items()
    }


def kept_by(
    space: Space, alone: Trainer, architecture_step: Callable[[], object], inputs: Any
) -> tuple[dict[str, float], float]:
    """Return the bytes by kind of step, and those of `proxyless` ÷ its active path's.

    The latter is the largest of all draws, the outputs of the second path not counted.
    """
    space.model.train()
    alone.module.train()

    def on(mix: Any) -> int:
        space.select(mix)
        return kept_bytes(space.model, lambda: call_model(space.model, inputs))

    names = next(iter(space.choices.values())).options
    kept = {
        "alone": float(kept_bytes(alone.module, lambda: call_model(alone.module, inputs))),
        "same": float(on(everywhere(space, name_of(*ALONE)))),
        "path": float(np.mean([on(everywhere(space, str(name))) for name in names])),
    }
    ratios, shares = [], []
    for _ in range(DRAWS):
        whole = kept_bytes(space.model, architecture_step)
        mixes = {label: ms[0].mix or {} for label, ms in space.structure.modules.items()}
        active = Architecture({label: next(iter(mix)) for label, mix in mixes.items()})
        path = on(active)
        ratios.append(whole / path)
        shares.append((whole - sum(outputs_of(space, active, inputs))) / path)
    kept["proxyless"] = kept["path"] * float(np.mean(ratios))
    return kept, max(shares)


def darts_kept(
    space: Space, weights: Weights, architecture_step: Callable[[], object], inputs: Any
) -> dict[str, float]:
    """Return the bytes of both steps of DARTS."""
    space.select(*weights.passes(space, 0, rng=derive(0, "darts")))
    step = kept_bytes(space.model, lambda: call_model(space.model, inputs))
    return {
        "darts": float(step),
        "darts_architecture": float(kept_bytes(space.model, architecture_step)),
    }


def everywhere(space: Space, name: str) -> Architecture:
    return space.complete({}, lambda choice: name)


class Everywhere:
    """One path for every step: the same operation in all blocks."""

    def __init__(self, space: Space, name: str) -> None:
        self.point = everywhere(space, name)

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> list[Any]:
        return [self.point]


class Still:
    """What a learner activates in its weight steps, without its learning."""

    def __init__(self, learner: Gates | Weights) -> None:
        self.passes = learner.passes


class Given:
    """The paths that a learner's first weight steps draw, drawn beforehand."""

    def __init__(self, learner: Gates, space: Space) -> None:
        self.points = [
            learner.passes(space, step, rng=derive(0, "paths", step)) for step in range(REPLAYED)
        ]

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> Any:
        return self.points[step]


def outputs_of(space: Space, point: Any, inputs: Tensor) -> list[int]:
    """Return the bytes of the output of each block."""
    sizes: list[int] = []

    def note(module: Any, given: Any, out: Tensor) -> None:
        sizes.append(out.nbytes)

    handles = [
        module.register_forward_hook(note)
        for modules in space.structure.modules.values()
        for module in modules
    ]
    space.select(point)
    with torch.no_grad():
        call_model(space.model, inputs)
    for handle in handles:
        handle.remove()
    return sizes


# --- NNI ------------------------------------------------------------------------------------------


def plan_of(num: int, pairs: int) -> Plan:
    """Return the same blocks and training for `bench.nni_steps`."""
    kernels, expansions = OPERATIONS[num]
    return {
        "input_shape": SHAPE, "classes": CLASSES, "stem": STEM, "stages": STAGES, "head": HEAD,
        "operations": [(k, e) for k in kernels for e in expansions], "alone": ALONE,
        "batch": BATCH, "pairs": pairs, "lr": RECIPE.lr, "momentum": RECIPE.momentum,
        "weight_decay": RECIPE.weight_decay, "clip": RECIPE.clip,
    }  # fmt: skip


def nni_python(folder: Path) -> Path | str:
    """Return the Python of an environment with NNI, made if need be, or why there is none."""
    needs = f"torch=={torch.__version__.split('+')[0]}", "nni==3.0", "pytorch-lightning<2"
    python, made = folder / "bin" / "python", folder / "made.txt"
    if made.exists() and made.read_text() == " ".join(needs):
        return python
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps: list[list[Any]] = [
        [sys.executable, "-m", "venv", "--clear", folder],
        [*install, *needs],
        # Afterwards: NNI imports what later ones lack, and torch says that it wants a later one.
        [*install, "setuptools<70"],
        [python, "-c", "import nni.nas.strategy"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(map(str, step))} failed: {last_line(done.stderr or done.stdout)}"
    made.write_text(" ".join(needs))
    return python


def nni_measured(python: Path | str, plan: Plan) -> dict[str, Any] | str:
    """Return the figures of NNI, or why there are none."""
    if isinstance(python, str):
        return python
    command: list[Any] = [python, "-W", "ignore", "-m", "bench.nni_steps", json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"bench.nni_steps failed: {last_line(done.stderr)}"
    row: dict[str, Any] = json.loads(last_line(done.stdout))
    return row


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


# --- what comes of it -----------------------------------------------------------------------------


def holds(rows: Mapping[int, Any]) -> dict[str, bool]:
    """Say which targets are met at every N."""
    return {
        "weight_activations": all(0.98 <= r["path_to_alone"] <= 1.02 for r in rows.values()),
        "weight_time": all(
            max(r["time_path_to_alone"], r["time_weight_to_given"]) <= 1.05 for r in rows.values()
        ),
        "architecture_activations": all(
            r["proxyless_without_second_output_to_path"] <= 1.2 for r in rows.values()
        ),
        "architecture_time": all(r["time_architecture_to_path"] <= 2.2 for r in rows.values()),
    }


def slope(rows: Mapping[int, Any]) -> float | None:
    """Return by how many paths DARTS' bytes grow with an operation; None from fewer than two N."""
    if len(rows) < 2:
        return None
    ratios = [row["kept_mib"]["darts"] / row["kept_mib"]["path"] for row in rows.values()]
    return round(float(np.polyfit([*rows], ratios, 1)[0]), 3)


def draw(ours: Mapping[int, Any], theirs: Mapping[int, Any], file: Path) -> None:
    """Draw bytes and times against N; of ProxylessNAS those of an architecture step."""
    kinds = {
        "path": ("one path", "dot"),
        "proxyless": ("ProxylessNAS", "band"),
        "darts": ("DARTS", "winner"),
    }
    panels = {"kept_mib": "saved activations, MiB", "step_ms": "time of a step, ms"}
    sides = {
        "Assay": (ours, {"marker": "o", "ms": 4}),
        "NNI 3.0": (theirs, {"marker": "s", "ms": 7, "mfc": "none", "ls": "--"}),
    }
    with style("path-memory"):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        for axes, (key, label) in zip(figure.subplots(1, 2), panels.items()):
            for who, (rows, marks) in sides.items():
                for kind, (name, colour) in kinds.items() if rows else ():
                    values = [row[key][kind] for row in rows.values()]
                    look = {"color": COLOURS[colour], "label": f"{name}, {who}", **marks}
                    axes.plot([*rows], values, **look)
            axes.set(xlabel="operations in each block, N", ylabel=label)
            axes.set(xticks=[*ours], ylim=(0, None))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2 if theirs else 3)
        figure.savefig(file, facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
