"""How SMASH's own hypernetwork ranks memory banks, at two sizes.

    python -m bench.smash_ranks                                  # 30 networks x 2 seeds, on digits
    python -m bench.smash_ranks --task fashion-mnist --epochs 1  # hours
    python -m bench.smash_ranks --num 4 --steps 8 --epochs 1     # to see that it runs

An audit of the space `memory-bank`: truths are validation accuracies after `--epochs`; each
hypernetwork trains for `--steps`. All is counted, so what else runs does no harm. `value` is tau of
the larger one; beside it the smaller one, and what counting says. The report is in `--out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from assay.estimators.hypernet import Hypernet
from assay.run.audit import audit
from assay.train.ready import load_task
from assay.train.recipe import Recipe
from assay.zoo.memory_bank import memory_bank
from bench.harness import of_audit, report

RECIPE = Recipe(batch_size=128, weight_decay=2e-4)
SIZES = (64, 4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="digits", choices=("digits", "fashion-mnist"))
    parser.add_argument("--num", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-smash-ranks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(given.task)
    _, *shape = task.example(1).shape
    found = audit(
        memory_bank(input_shape=tuple(shape)), task,
        estimators={f"hidden={n}": Hypernet(generator="smash", hidden=n) for n in SIZES},
        num=given.num, seeds=given.seeds, budget=f"steps={given.steps},epochs={given.epochs}",
        out=given.out, recipe=RECIPE, executor="processes", seed=given.seed,
    )  # fmt: skip
    rows = {row.estimator: row for row in found.table.rows}
    tau = rows[f"hidden={SIZES[0]}"].tau
    report(
        "smash_ranks", tau.value, "tau", "stated", (tau.low, tau.high),
        task=given.task, num=given.num, seeds=given.seeds, steps=given.steps, epochs=given.epochs,
        seed=given.seed,
        prepare_s={name: round(row.prepare_s, 1) for name, row in rows.items()},
        **of_audit(found),
    )  # fmt: skip


if __name__ == "__main__":
    main()
