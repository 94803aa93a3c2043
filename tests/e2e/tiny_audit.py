"""A whole audit small enough to run many times: `python -m tests.e2e.tiny_audit OUT`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from assay.estimators.fused import Fused
from assay.estimators.hypernet import Hypernet
from assay.estimators.inherit import Inherit
from assay.estimators.low_fidelity import LowFidelity
from assay.estimators.one_shot import OneShot
from assay.estimators.predictor import Predictor
from assay.estimators.zero_cost import ZeroCost
from assay.run import preparing
from assay.run.audit import audit
from assay.run.auditing import Audit
from assay.run.events import Event
from assay.space.space import Space
from tests.e2e import tiny

SIGNALS = ("macs", "synflow")


def run(out: Path) -> Audit:
    estimators = [
        OneShot(samples=64, calibration=64),
        LowFidelity(share=0.5),
        Inherit(ancestors=2, tune_steps=4),
        ZeroCost(SIGNALS, reference=8),
        Hypernet(hidden=8),
        Predictor(LowFidelity(steps=4), sample=8, batch=2),
        Fused(ZeroCost(SIGNALS, reference=8), LowFidelity(steps=4), sample=8, candidates=1),
    ]
    return audit(
        Space(tiny.Net), tiny.task(), estimators=estimators, num=5, seeds=2, out=out,
        budget="steps=40,epochs=2", recipe=tiny.RECIPE, on_event=told,
    )  # fmt: skip


def told(event: Event) -> None:
    print(event.kind, event.step.replace(" ", "-"), event.done, flush=True)
    if event.kind == "start":
        time.sleep(0.05)  # so that a test can kill within a step that takes no time here


if __name__ == "__main__":
    torch.set_num_threads(1)
    preparing._SAVE_EVERY_S = 0.0
    run(Path(sys.argv[1]))
