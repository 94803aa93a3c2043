"""What is of a wrong type is refused by name before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import assay
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.run.audit import audit
from assay.testing import FakeEstimator, tiny_space, tiny_task

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"space": nn.Linear}, "is not a Space; write Space(Net)"),
    ({"task": (np.zeros((99, 1, 8, 8)), [0])}, "is not a Task; write Task.from_arrays"),
    ({"budget": None}, 'budget=None is not a time or counts; write "20min" or "steps=300"'),
    ({"seed": "a"}, "seed='a' is not an int; write 0"),
    ({"recipe": {"lr": 1}}, "recipe={'lr': 1} is not a Recipe; write Recipe(lr=0.1)"),
    ({"on_event": 3}, "on_event=3 is not a function; give one that takes an Event"),
    ({"out": 3}, 'out=3 is not a path; write "runs/mine"'),
]
OF_A_SEARCH: list[tuple[dict[str, Any], str]] = [
    ({"limits": ["macs"]}, "limits=['macs'] is not a mapping; write {\"latency_ms\": 0.5}"),
    ({"objectives": "score"}, "objectives='score' is not a tuple; write ('score',)"),
    ({"target": "torch"}, "target='torch' is not a Device; write Device(\"onnxruntime\")"),
    ({"finalists": 3}, "finalists=3 is not Finalists; write Finalists(k=3)"),
    ({"estimator": OneShot}, "estimator OneShot is a class; give OneShot()"),
    ({"estimator": 3}, "an object of type int is no estimator: it has no step_seconds, prepare"),
    ({"estimator": "collections:Counter"}, "type Counter is no estimator: it has no step_seconds"),
    ({"strategy": object()}, "type object is no strategy: it has no ask; give one that has, or"),
    ({"executor": object()}, "type object is no executor: it has no submit, gather, cancel;"),
]
OF_AN_AUDIT: list[tuple[dict[str, Any], str]] = [
    ({"num": "4"}, "num='4' is not an int; write 40"),
    ({"seeds": 1.5}, "seeds=1.5 is not an int; write 2"),
    ({"estimators": FakeEstimator(len)}, 'is not a list; write ["one-shot"]'),
    ({"estimators": "zero-cost"}, "estimators='zero-cost' is not a list; write [\"one-shot\"]"),
    ({"truths": [0.5] * 9}, "is not a mapping; write {architecture: 0.9}"),
]


@pytest.mark.parametrize(("given", "said"), WRONG + OF_A_SEARCH)
def test_a_search_refuses(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    whole = {"space": tiny_space(), "task": tiny_task(), "out": tmp_path / "out", **given}
    with pytest.raises(InvalidSetting) as refused:
        assay.search(**whole)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "said"), WRONG + OF_AN_AUDIT)
def test_an_audit_refuses(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    whole = {"space": tiny_space(), "task": tiny_task(), "out": tmp_path / "out", **given}
    with pytest.raises(InvalidSetting) as refused:
        audit(**whole)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{next(iter(given))}=")
    assert not list(tmp_path.iterdir())
