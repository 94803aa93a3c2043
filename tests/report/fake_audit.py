"""Audits in memory, judged by the real table and told by the real verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from assay.cost import Cost, derive
from assay.trust.claims import CLAIMS
from assay.trust.gain import Gain, gains
from assay.trust.table import Price, Table
from assay.trust.verdict import verdict
from tests.report.fake_study import FakeStudy

NOISE = {
    "params": 0.09, "macs": 0.07, "scratch": 0.01, "one-shot": 0.09, "low-fidelity": 0.04,
    "predictor": 0.045, "inherit": 0.05, "zero-cost": 0.08, "fused": 0.02,
}  # fmt: skip
PRICES = {
    "params": Price(0.0, 4e-4),
    "macs": Price(0.0, 5e-4),
    "scratch": Price(0.0, 41.0),
    "one-shot": Price(611.0, 0.21),
    "low-fidelity": Price(0.0, 2.3),
    "predictor": Price(640.0, 0.004),
    "inherit": Price(212.0, 1.9),
    "zero-cost": Price(0.0, 0.06),
    "fused": Price(598.0, 0.06),
}
REFUSAL = "hypernet cannot generate weights for Kernel choices in stages.0.1: give another space"


def audited(
    num: int = 40, *, seeds: int = 2, spread: float = 0.05, noise: Mapping[str, float] = NOISE
) -> FakeStudy:
    """Return a finished audit; `hypernet` refused, and `zero-cost` failed on two.

    Args:
        num: Architectures.
        seeds: Trainings of each; 0 for one published truth.
        spread: Of the true worth; 0 makes all truths equal.
        noise: Estimator -> how much noise its scores carry.
    """
    rng = derive(0, "fake audit")
    worth = 0.85 + spread * rng.normal(size=num)
    keys = [f"{i:016x}" for i in range(num)]
    shaken = spread * 0.25
    truths = {
        key: [float(w + shaken * rng.normal()) for _ in range(max(1, seeds))]
        for key, w in zip(keys, worth)
    }
    scores: dict[str, dict[str, float | None]] = {
        name: {key: float(w + much * rng.normal()) for key, w in zip(keys, worth)}
        for name, much in noise.items()
    }
    prices = {name: PRICES.get(name, Price(10.0, 0.1)) for name in noise}
    if "zero-cost" in scores:
        scores["zero-cost"] |= dict.fromkeys(keys[:2])
    scores["hypernet"], prices["hypernet"] = dict.fromkeys(keys), Price(0.0, 0.0)
    seconds = dict.fromkeys(keys, 41.0) if seeds else None
    train_s = 41.0 if seeds else None
    table = Table.make(truths, scores, prices, claims=CLAIMS, train_s=train_s, resamples=100)
    spoke = {name: given for name, given in scores.items() if name != "hypernet"}
    gained = gains(truths, spoke, prices, seconds=seconds)
    return _study(table, truths, scores, seeds, gained)


def _study(
    table: Table,
    truths: Mapping[str, Any],
    scores: Mapping[str, Any],
    seeds: int,
    gained: Sequence[Gain],
) -> FakeStudy:
    ops = ("k3e3", "k3e6", "k5e3", "skip")
    rng = np.random.default_rng(1)
    costs = {"truth": Cost(3312.0, 4_608_000, 0, "cpu")} if seeds else {}
    for name in scores:
        if name not in ("params", "macs", "hypernet"):
            costs[f"prepare {name}"] = Cost(PRICES.get(name, Price(10.0, 0.1)).prepare_s)
            costs[f"score {name}"] = Cost(40 * PRICES.get(name, Price(10.0, 0.1)).each_s)
    return FakeStudy(
        settings={"audit": True, "arguments": {"task": "fashion-mnist", "num": len(truths)}},
        identity={
            "kind": "audit", "space": "9f31c2e07ab4", "task": "5a17c0de", "seed": 0,
            "recipe": {"optimizer": "sgd", "lr": 0.1, "epochs": 12}, "published": not seeds,
        },
        costs=costs,
        failed=[{
            "phase": "audit hypernet", "trial": None,
            "traceback": f"Traceback (most recent call last):\n  File \"x.py\", line 3\n{REFUSAL}",
        }],
        runs=[{"id": 1, "started": 1795526748.6, "heartbeat": 1795526800.0,
               "ended": 1795530748.0, "versions": {"torch": "2.13.0"}}],
        documents={"audit": {
            "table": table.to_json(),
            "verdict": verdict(table, refused={"hypernet": REFUSAL}, gained=gained),
            "truths": dict(truths), "scores": dict(scores),
            "gains": [asdict(gain) for gain in gained],
            "architectures": {
                key: {f"stages.{i}": str(rng.choice(ops)) for i in range(5)} for key in truths
            },
            "versions": {"assay": "0.1.0", "torch": "2.13.0"},
            "task": {"name": "fashion-mnist", "score": "accuracy", "train": 54000},
            "space": "Space(Sequential, 21 choices, size 3e+15)",
            "failures": {**dict.fromkeys(scores), "hypernet": REFUSAL},
            "epochs": 12 if seeds else None,
        }},
    )  # fmt: skip
