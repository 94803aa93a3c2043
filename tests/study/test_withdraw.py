"""A study that was begun for nothing leaves no trace; one with work in it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.cost import Cost
from assay.study.store import Study

IDENTITY = {"seed": 0}


def begun(out: Path | None, **more) -> Study:
    study = Study.open(out, identity=IDENTITY, **more)
    study.begin_session({})
    return study


@pytest.mark.parametrize("was_there", [False, True])
def test_a_study_without_work_is_removed_with_all_in_its_folder(tmp_path, was_there):
    out = tmp_path / "out"
    if was_there:
        out.mkdir()
    study = begun(out)
    study.record_all([Trial(0, Architecture({"a": 1}), "infeasible", violation=1.0)])
    study.checkpoint("train", done=0, cost=Cost(), pointer={"file": "weights/none"})
    (out / "weights").mkdir()
    (out / "weights" / "none").write_text("")
    (out / "table.json").write_text("{}")
    study.withdraw()
    study.close()
    assert out.exists() == was_there
    assert list(tmp_path.rglob("*")) == [out] * was_there
    with Study.open(out, identity={"seed": 1}):  # the folder is free for another search
        pass


@pytest.mark.parametrize("work", ["trial", "state", "older"])
def test_what_has_work_in_it_stays(tmp_path, work):
    if work == "older":
        begun(tmp_path).close()
    study = begun(tmp_path)
    if work == "trial":
        study.record_all([Trial(0, Architecture({"a": 1}), "running")])
    if work == "state":
        study.checkpoint("train", done=3, cost=Cost(), pointer={"file": "weights/three"})
    study.withdraw()
    study.put("still", "open")
    study.close()
    with Study.read(tmp_path) as again:
        assert again.get("still") == "open"


def test_of_a_database_elsewhere_the_tables_go(tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    study = begun(tmp_path / "out", url=url)
    study.withdraw()
    study.close()
    assert not (tmp_path / "out").exists()
    with Study.open(tmp_path / "out", identity={"seed": 1}, url=url) as other:
        assert other.identity == {"seed": 1}
