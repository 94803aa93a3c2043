"""A finished search says how far its scores can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import assay
from assay.contracts import History
from assay.errors import InvalidStudy
from assay.run.fidelity import fidelity
from assay.study.store import Study
from assay.trust.table import Table
from tests.e2e import tiny


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, table: Path) -> assay.Result:
    return tiny.run(tmp_path_factory.mktemp("runs") / "fidelity", table)


def test_finalists_and_a_sample_are_held_against_their_trainings(found: assay.Result) -> None:
    audit = found.fidelity(num=4)
    with Study.read(found.out) as study:
        finalists = [r for r in study.finalists() if r["trial"] is not None]
        kept = study.get("fidelity")
        spent = study.ledger()["fidelity"]
    numbers = list(kept["truths"])
    assert {str(r["trial"]) for r in finalists} <= set(numbers)
    assert audit.table.num == len(numbers) == len(finalists) + 4
    assert {r.estimator for r in audit.table.rows} == {"OneShot", "params", "macs"}
    for row in finalists:  # what was trained before is the truth
        assert kept["truths"][str(row["trial"])] == [row["metrics"]["accuracy"]]
    # Four were trained now, each for as long as a finalist, 32 pictures a step, and judged.
    assert spent.samples == 4 * (finalists[0]["steps"] * 32 + len(tiny.task().valid))
    assert Table.from_json(kept["table"]) == audit.table
    assert json.loads(kept["table"])["num"] == audit.table.num


def test_asked_again_it_trains_nothing_and_the_report_shows_it(found: assay.Result) -> None:
    first = found.fidelity(num=4)
    with Study.read(found.out) as study:
        before = study.ledger()["fidelity"].samples
    again = found.fidelity(num=4)
    with Study.read(found.out) as study:
        assert study.ledger()["fidelity"].samples == before
    assert [r.tau for r in again.table.rows] == [r.tau for r in first.table.rows]
    page = (found.out / "report.html").read_text()
    assert first.verdict[0].split(".")[0] in page
    assert "trained for real" in page


def test_a_search_without_scores_has_nothing_to_compare(found: assay.Result) -> None:
    nothing = list(History(found._space))
    with pytest.raises(InvalidStudy, match="0 scored trials"):
        fidelity(found._plan, nothing, num=4)
