"""A study in memory with what the report reads of one, made of plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost

OPS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "skip")
OP_MS = dict(zip(OPS, (0.031, 0.055, 0.039, 0.069, 0.05, 0.09, 0.0)))
OP_MACS = dict(zip(OPS, (161_000, 322_000, 180_000, 361_000, 203_000, 408_000, 0)))
LIMIT_MS = 0.42


@dataclass
class FakeStudy:
    """Holds rows and documents as given."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Trial] = ()
    measured: Sequence[Mapping[str, Any]] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    trained: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, Any]] = ()
    runs: Sequence[Mapping[str, Any]] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    """Steps begun and not done: name -> how much is done."""

    def phase(self, name: str) -> SimpleNamespace:
        done, counts = self.running.get(name), self.counts.get(name, {})
        state = "pending" if done is None else "running"
        return SimpleNamespace(name=name, counts=counts, state=state, done=done or 0)

    def trials(self) -> Sequence[Trial]:
        return list(self.rows)

    def measurements(
        self, quantity: str | None = None, source: str | None = None
    ) -> list[Mapping[str, Any]]:
        return [
            row
            for row in self.measured
            if quantity in (None, row["quantity"]) and source in (None, row["source"])
        ]

    def ledger(self) -> Mapping[str, Cost]:
        return self.costs

    def finalists(self) -> Sequence[Mapping[str, Any]]:
        return self.trained

    def failures(self) -> Sequence[Mapping[str, Any]]:
        return self.failed

    def sessions(self) -> Sequence[Mapping[str, Any]]:
        return self.runs

    def get(self, key: str) -> Any:
        return self.documents.get(key)


def architecture(rng: np.random.Generator, blocks: int = 8) -> Architecture:
    ops = rng.choice(OPS, blocks)
    options: dict[str, Any] = {f"stages.{i // 4}.{i % 4}": str(op) for i, op in enumerate(ops)}
    return Architecture({**options, "stages.0.width": int(rng.choice((16, 24, 32)))})


def latency_ms(point: Architecture) -> float:
    ops = sum(OP_MS[str(v)] for k, v in point.items() if "width" not in k)
    return 0.05 + ops * int(str(point["stages.0.width"])) / 24  # grows with the width


def macs(point: Architecture) -> int:
    ops = sum(OP_MACS[str(v)] for k, v in point.items() if "width" not in k)
    return 120_000 + ops * int(str(point["stages.0.width"])) // 24


def trial(number: int, rng: np.random.Generator) -> Trial:
    point = architecture(rng)
    measured = {"latency_ms": latency_ms(point), "macs": macs(point), "params": 31_402}
    if measured["latency_ms"] > LIMIT_MS:
        violation = measured["latency_ms"] / LIMIT_MS - 1
        return Trial(number, point, "infeasible", measured=measured, violation=violation)
    if number % 211 == 37:
        return Trial(number, point, "failed", measured=measured, error="NotFinite: loss is nan")
    score = 0.93 - 0.25 * np.exp(-6 * measured["latency_ms"]) + rng.normal(0, 0.018)
    estimate = Estimate(score=float(score), metrics={"supernet_loss": 0.31})
    return Trial(number, point, "scored", estimate, measured, (float(score),))


def halved() -> list[Trial]:
    """Return three architectures on a first rung, the best of them on the last, one failed there.

    What was trained a third as long has the highest score.
    """
    points = [Architecture({"a": i}) for i in range(3)]
    told = [({"macs": 1.0 + i}, 0.9 - 0.1 * i) for i in range(3)]
    low = [
        Trial(i, point, "scored", Estimate(score), measured, (score,), fidelity=1 / 3)
        for i, (point, (measured, score)) in enumerate(zip(points, told))
    ]
    top = Trial(3, points[0], "scored", Estimate(0.6), {"macs": 1.0}, (0.6,), parent=0)
    return [*low, top, Trial(4, points[1], "failed", measured={"macs": 2.0}, parent=1, error="no")]


def untested() -> FakeStudy:
    """Return a finished study of a task that has no test split."""
    study = finished(60)
    told = [study.documents["winner"], *study.documents["comparison"]]
    for row in told:
        kept = {k: v for k, v in row["metrics"].items() if not k.startswith("test_")}
        row["metrics"] = {"valid_loss": 0.081, "valid_accuracy": 0.97, **kept}
    return study


def latency_row(of: Trial) -> Mapping[str, Any]:
    return {
        "architecture": of.architecture.to_json(),
        "trial": of.number,
        "quantity": "latency_ms",
        "value": of.measured["latency_ms"] * 1.02,
        "source": "measured",
        "detail": "{}",
    }


def finished(num_trials: int = 400) -> FakeStudy:
    """Return a study whose search has ended and whose winner is handed back."""
    rng = np.random.default_rng(0)
    trials = [trial(number, rng) for number in range(num_trials)]
    scored = [t for t in trials if t.estimate is not None]
    best = sorted(scored, key=lambda t: -t.estimate.score)[:3]  # type: ignore[union-attr]
    nets = [architecture(rng) for _ in range(50)]
    ms = [latency_ms(net) * rng.normal(1, 0.035) for net in nets]
    pairs = [[latency_ms(n), float(m), dict(n), macs(n)] for n, m in zip(nets, ms)]
    costs = {
        "supernet": Cost(0.8, 0, 0, "cpu"),
        "train": Cost(41.2, 230_400, 1_310_000_000_000, "cpu"),
        "measure": Cost(18.4, 0, 0, "cpu"),
        "search": Cost(3.1),
        "score": Cost(14.9, 57_000, 81_000_000_000, "cpu"),
        "finalists": Cost(33.5, 172_000, 990_000_000_000, "cpu"),
        "lost": Cost(0.7),
    }
    return FakeStudy(
        settings={
            "origin": {"space": "mobile", "task": "digits"},
            "space": "Space(Sequential, 9 choices, size 17294403)",
            "task": {"name": "digits", "score": "accuracy", "train": 1151},
        },
        identity={
            "space": "9f31c2e07ab4",
            "task": "5a17c0de",
            "estimator": {"class": "assay.estimators.one_shot:OneShot", "paths": "fair"},
            "strategy": {"class": "assay.strategies.evolution:Evolution", "population": 50},
            "objectives": ["score", "-latency_ms"],
            "limits": {"latency_ms": "median"},
            "budget": "120s",
            "seed": 0,
            "target": {
                "runtime": "onnxruntime", "threads": 1, "batch": 1, "runs": 50, "warmup": 10,
                "machine": {"processor": "AMD EPYC", "cores": 2},
            },
            "recipe": {"optimizer": "sgd", "lr": 0.1, "batch_size": 96, "ema": 0.0},
            "finalists": {"k": 3, "seeds": 1},
        },
        counts={"train": {"steps": 1792}, "search": {"trials": 400}},
        rows=trials,
        measured=[latency_row(t) for t in best],
        costs=costs,
        trained=[
            {
                "key": f"finalist-{t.number}-0", "trial": t.number, "seed": 0, "state": "done",
                "metrics": {"accuracy": 0.978 - 0.004 * i, "loss": 0.081, "training_s": 4.4},
            }
            for i, t in enumerate(best)
        ]
        + [{"key": "largest-0", "trial": None, "seed": 0, "state": "done", "metrics": {}}],
        failed=[
            {
                "phase": "score", "trial": t.number,
                "traceback": "Traceback (most recent call last):\n  File \"loop.py\", line 3\n"
                "assay.errors.NotFinite: the loss is nan at step 12; lower the learning rate",
            }
            for t in trials
            if t.state == "failed"
        ],
        runs=[
            {"id": 1, "started": 1795526748.6, "heartbeat": 1795526800.0, "ended": None,
             "versions": {"torch": "2.13.0", "numpy": "2.4.6"}},
            {"id": 2, "started": 1795526900.0, "heartbeat": 1795526960.0, "ended": 1795526961.0,
             "versions": {"torch": "2.14.0", "numpy": "2.4.6"}},
        ],
        documents=_documents(best[0], pairs, sum(c.wall_s for c in costs.values())),
    )  # fmt: skip


def _documents(winner: Trial, pairs: list[Any], spent_s: float) -> dict[str, Any]:
    point = winner.architecture
    chain = [{"label": "stem", "name": "Conv2d", "shape": [1, 16, 8, 8], "macs": 9_216,
              "detail": "Conv2d(1, 16, kernel_size=(3, 3), stride=(1, 1)) > ReLU()",
              "latency_ms": 0.011}]  # fmt: skip
    for label, op in point.items():
        if "width" not in label:
            op = str(op)
            detail = (
                "passes its input on"
                if op == "skip"
                else (f"24 → 24, {op[1]}×{op[1]} depthwise, expansion {op[3]}, 8×8")
            )
            name = op if op == "skip" else f"inverted bottleneck {op}"
            chain.append({"label": label, "name": name, "detail": detail,
                          "macs": OP_MACS[op], "latency_ms": OP_MS[op]})  # fmt: skip
    chain.append({"label": "head", "name": "linear", "detail": "64 → 10", "macs": 640,
                  "latency_ms": 0.004})  # fmt: skip
    metrics = {
        "test_accuracy": 0.97778, "test_loss": 0.0793, "latency_ms": latency_ms(point) * 1.02,
        "latency_table_ms": latency_ms(point), "macs": macs(point), "params": 31_402,
    }  # fmt: skip
    others = {
        "largest": {**metrics, "test_accuracy": 0.98333, "latency_ms": 0.931, "macs": 4_310_000},
        "smallest": {**metrics, "test_accuracy": 0.86111, "latency_ms": 0.051, "macs": 89_000},
        "random": {**metrics, "test_accuracy": 0.95555, "latency_ms": 0.344, "macs": 1_900_000},
    }
    return {
        "limits": {"latency_ms": LIMIT_MS},
        "winner": {"trial": winner.number, "architecture": dict(point), "metrics": metrics,
                   "blocks": chain},
        "comparison": [{"name": "winner", "architecture": dict(point), "metrics": metrics}]
        + [{"name": k, "architecture": {}, "metrics": v} for k, v in others.items()],
        "validation": {"rmse_ms": 0.0123, "tau": 0.957, "within_10": 0.98, "pairs": pairs},
        "saving": {
            "spent_s": spent_s, "train_each_s": 3_412.0,
            "formula": "305 architectures × 11.2 s (median of 3 finalists' trainings) = 3,412 s",
        },
        "versions": {
            "assay": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "onnxruntime": "1.23.0",
        },
        "handover": {
            "files": ["model.onnx", "model.pt2"], "onnx_max_difference": 2.384e-06,
            "source_max_difference": None, "refused": {"model.py": "no ready space"},
        },
        "space": {
            "size": str(7**8 * 3),
            "choices": {label: ([16, 24, 32] if "width" in label else OPS) for label in point},
        },
    }  # fmt: skip


def learned(num_records: int = 60, *, blocks: int = 8, loop: bool = True) -> FakeStudy:
    """Return a finished study whose strategy has learned: `blocks` choices of operations."""
    study = finished(60)
    point = architecture(np.random.default_rng(0), blocks)
    options = {label: [16, 24, 32] if "width" in label else list(OPS) for label in point}
    records = [_known(i / num_records, i, options, loop) for i in range(num_records + 1)]
    study.documents = {
        **study.documents,
        "space": {"size": str(7**blocks * 3), "choices": options},
        "learning": {
            "unit": "step", "total": 10 * num_records, "records": records,
            "warnings": {"drifting": "from step 30 to 100 the expected latency_ms grew"},
        },
    }  # fmt: skip
    return study


def _known(share: float, number: int, options: Mapping[str, Sequence[Any]], loop: bool) -> Any:
    """Return a record of learning: each choice leans to an option of its own, some sooner."""
    probabilities = {}
    for place, (label, known) in enumerate(options.items()):
        gain = max(0.0, share - 0.2) * (1 + place % 4) * 2
        logits = gain * np.array([np.cos(place + i) for i in range(len(known))])
        p = np.exp(logits) / np.exp(logits).sum()
        probabilities[label] = [round(float(x), 4) for x in p]
    nats = sum(-sum(x * np.log(x) for x in p if x) for p in probabilities.values())
    return {
        "step": 10 * number, "probabilities": probabilities,
        "entropy": float(nats / sum(np.log(len(p)) for p in probabilities.values())),
        "quantity": "latency_ms" if loop else "", "stopped": "",
        "expected": 0.5 - 0.12 * share if loop else None, "target": LIMIT_MS if loop else None,
        "reward": -2.1 + share if number > 12 else None,
    }  # fmt: skip
