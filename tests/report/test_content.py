from __future__ import annotations

import json

import pytest

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.report.blocks import describe_layers
from assay.report.content import read_content
from tests.report.fake_study import FakeStudy, finished, halved


def test_trials_are_told_apart_by_state_and_costs_put_in_the_order_of_the_steps() -> None:
    study = finished(400)
    study.costs = {"finalists": Cost(3.0), "own": Cost(1.0), "lost": Cost(0.5), "train": Cost(2.0)}
    content = read_content(study)
    parts = (content.scored, content.infeasible, content.failed)
    assert [len(part) for part in parts] == [204, 195, 1]
    assert list(content.ledger) == ["train it once", "train finalists", "own"]
    assert (content.lost_s, content.spent_s) == (0.5, 6.5)
    assert content.by_table


def test_scores_of_the_longest_training_alone_compare() -> None:
    content = read_content(FakeStudy(rows=halved()))
    assert [trial.number for trial in content.scored] == [0, 1, 2, 3]
    assert [trial.number for trial in content.compared] == [3]
    first = read_content(FakeStudy(rows=halved()[:3]))
    assert first.compared == first.scored
    assert read_content(FakeStudy()).compared == []


def test_the_latency_of_a_trial_is_the_tables_whether_or_not_that_was_validated() -> None:
    study = finished(60)
    del study.documents["validation"]
    assert read_content(study).by_table
    assert not read_content(FakeStudy(rows=halved())).by_table


def test_networks_are_the_tables_and_the_finalists_each_once() -> None:
    point, other = Architecture({"a": "x"}), Architecture({"a": "y"})
    rows = [
        {"architecture": a, "trial": 0, "quantity": "latency_ms", "value": value,
         "source": "measured", "detail": {}}
        for a, value in ((point.to_json(), 9.0), (other.to_json(), 2.0), (None, 0.1))
    ]  # fmt: skip
    compared = Architecture({"a": "z"})  # of no trial; what it is made of stands in the detail
    conv = "Conv2d(8, 8, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))"
    detail = {"macs": 30, "parts_ms": {f"{conv} on ((1, 8, {n}, {n}),)": 0.25 for n in (4, 8)}}
    rows.append({**rows[0], "architecture": compared.to_json(), "detail": json.dumps(detail)})
    study = FakeStudy(
        rows=[Trial(0, other, "scored", Estimate(0.5), {"macs": 20})],
        measured=rows,
        documents={"validation": {"pairs": [[1.1, 1.0, dict(point), 10, {"op": 0.5}]]}},
    )
    found = read_content(study).networks
    assert [(n.architecture, n.macs, n.latency_ms, n.parts_ms) for n in found] == [
        (point, 10, 1.0, {"op": 0.5}),
        (other, 20, 2.0, {}),
        (compared, 30, 9.0, {describe_layers(conv): 0.5}),
    ]


@pytest.mark.parametrize(
    ("measured", "limits", "quantity", "limit"),
    [
        ({"latency_ms": 1.0, "macs": 5}, {"macs": 9}, "latency_ms", None),
        ({"macs": 5, "params": 7}, {"params": 9}, "params", 9),
        ({"macs": 5, "params": 7}, {}, "macs", None),
        ({"energy": 5}, {}, "energy", None),
        ({}, {"latency_ms": 3}, "latency_ms", 3),
    ],
)
def test_the_score_is_set_against_latency_or_what_is_limited(
    measured: dict[str, float], limits: dict[str, float], quantity: str, limit: float | None
) -> None:
    trial = Trial(0, Architecture({}), "scored", Estimate(0.5), measured)
    content = read_content(FakeStudy(documents={"limits": limits}, rows=[trial]))
    assert (content.quantity, content.limit) == (quantity, limit)
