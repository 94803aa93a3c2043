"""Memory and time of searching with N operations in each block: one path, ProxylessNAS, DARTS.

    python -m bench.path_memory

In the space `mobile`, at fixed widths and depths, N = kernels x expansions. For each N the bytes
that autograd keeps for the backward pass, weights not counted, and the time of

- a weight step: the network built alone, and the same path of the supernet;
- an architecture step of `proxyless` on a batch as large, and a weight step on a random path;
- a step that runs all N operations of each block, as DARTS does.

`value` is the time of an architecture step ÷ that of a weight step at N = 6, of interleaved pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, History
from assay.cost import derive
from assay.executors.inline import Inline
from assay.space.space import Space
from assay.strategies.learned.proxyless import Proxyless
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task, call_model
from assay.weights.paths import Uniform
from assay.weights.supernet import Supernet
from assay.zoo.mobile import Stage, mobile
from bench.harness import interval, paired_ratios, report

SHAPE, BATCH, DRAWS = (1, 28, 28), 64, 5
OPERATIONS = {2: ((3, 5), (3,)), 4: ((3, 5), (3, 6)), 6: ((3, 5, 7), (3, 6)),
              8: ((3, 5, 7, 9), (3, 6)), 12: ((3, 5, 7, 9), (3, 4, 6))}  # fmt: skip


def space_of(num: int) -> Space:
    kernels, expansions = OPERATIONS[num]
    stages = (Stage((24,), (2, 2)), Stage((40,), (2, 2), stride=2), Stage((64,), (2, 2), stride=2))
    made = mobile(
        input_shape=SHAPE, stages=stages, stem=16, stem_stride=1, head=128, kernels=kernels,
        expansions=expansions, skip=False,
    )  # fmt: skip
    assert {len(c.options) for c in made.choices.values()} == {num}
    return made


def kept_bytes(model: nn.Module, work: Callable[[], object]) -> int:
    """Return the bytes that some work leaves for a backward, each storage once, no weights."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    storages: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held, so that no other is given its address.
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        work()
    return sum(nbytes for nbytes, _ in storages.values())


def main() -> None:
    torch.set_num_threads(1)
    rng = derive(0, "images")
    images = rng.integers(0, 256, (512, *SHAPE), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(512) % 10, layout="NCHW")
    rows: dict[str, Any] = {}
    ratios: list[float] = []
    for num in OPERATIONS:
        row, arch = measured(num, task)
        rows[str(num)] = row
        ratios = arch if num == 6 else ratios
    report(
        "path_memory", float(np.median(ratios)), "ratio", "<= 2.2", interval(ratios),
        batch=BATCH, shape=list(SHAPE), by_operations=rows,
    )  # fmt: skip


def measured(num: int, task: Task) -> tuple[dict[str, Any], list[float]]:
    """Return the figures of one N, and the ratios of an architecture step to a weight step."""
    space = space_of(num)
    recipe = Recipe(batch_size=BATCH, warmup=0.0, schedule="constant")
    ctx = Context(space, task, recipe, Inline(), "cpu", 0, History(space))
    strategy = Proxyless(quantity="", warmup=0.0, every=1, batch=BATCH)
    gates = strategy.paths
    gates.begin(ctx, space, 10**9)
    supernet = Supernet(space, paths=Fixed(space), seed=0)
    supernet.reset()
    point = Fixed(space).point
    alone = Trainer(space.build(point), task, recipe, steps=10**9)
    shared = supernet.trainer(task, recipe, steps=10**9)
    mixed = Supernet(space, paths=Everything(space), seed=0).trainer(task, recipe, steps=10**9)
    inputs, _ = next(task.train.train_batches(BATCH, seed=0))
    step = iter(range(10**9))

    def forward(mix: Any) -> Callable[[], Tensor]:
        def run() -> Tensor:
            space.select(mix)
            return call_model(space.model, inputs)

        return run

    def architecture_step() -> None:
        gates.learn(supernet, task, next(step))

    space.model.train()
    alone.module.train()
    kept = {
        "alone": kept_bytes(alone.module, lambda: call_model(alone.module, inputs)),
        "path": kept_bytes(space.model, forward(point)),
        "darts": kept_bytes(space.model, forward(Everything(space).mix)),
    }
    shares = []
    for _ in range(DRAWS):
        whole = kept_bytes(space.model, architecture_step)
        active = Architecture(
            {k: next(iter(ms[0].mix)) for k, ms in space.structure.modules.items()}
        )
        second = sum(outputs_of(space, active, inputs))
        shares.append((whole - second) / kept_bytes(space.model, forward(active)))
    path_time = paired_ratios(lambda: shared.run(1), lambda: alone.run(1))
    drawn = Supernet(space, paths=Uniform(), seed=0).trainer(task, recipe, steps=10**9)
    arch_time = paired_ratios(architecture_step, lambda: drawn.run(1))
    darts_time = paired_ratios(lambda: mixed.run(1), lambda: shared.run(1), pairs=5)
    row = {
        "kept_mib": {name: round(value / 2**20, 2) for name, value in kept.items()},
        "path_to_alone": round(kept["path"] / kept["alone"], 4),
        "proxyless_without_second_output_to_path": round(max(shares), 4),
        "darts_to_path": round(kept["darts"] / kept["path"], 2),
        "time_path_to_alone": round(float(np.median(path_time)), 3),
        "time_architecture_to_path": round(float(np.median(arch_time)), 3),
        "time_darts_to_path": round(float(np.median(darts_time)), 3),
    }
    return row, arch_time


class Fixed:
    """One path for every step: the middle option of each block."""

    def __init__(self, space: Space) -> None:
        self.point = space.complete({}, lambda c: c.options[len(c.options) // 2])

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> list[Any]:
        return [self.point]


class Everything:
    """All operations of each block, equally weighed."""

    def __init__(self, space: Space) -> None:
        self.mix = {
            label: {o: torch.tensor(1.0 / len(c.options), requires_grad=True) for o in c.options}
            for label, c in space.choices.items()
        }

    def passes(self, space: Space, step: int, *, rng: np.random.Generator) -> list[Any]:
        return [self.mix]


def outputs_of(space: Space, point: Any, inputs: Tensor) -> list[int]:
    """Return the bytes of the output of each block."""
    sizes: list[int] = []
    handles = [
        module.register_forward_hook(lambda m, i, out: sizes.append(out.nbytes))
        for modules in space.structure.modules.values()
        for module in modules
    ]
    space.select(point)
    with torch.no_grad():
        call_model(space.model, inputs)
    for handle in handles:
        handle.remove()
    return sizes


if __name__ == "__main__":
    main()
