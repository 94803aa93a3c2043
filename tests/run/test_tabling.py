"""Which latency table a run goes by: its folder's own, and no other under the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.errors import InvalidSetting, InvalidStudy
from assay.hardware.fit import Fit
from assay.hardware.table import LatencyTable
from assay.run.tabling import kept_table
from assay.testing import FakeDevice, tiny_space

SPACE, DEVICE = tiny_space(), FakeDevice(lambda module: 1.0)
Step: Any = None  # tells how far measuring is, and nothing is measured here


def saved(path: Path, unit_ms: float) -> Path:
    fit = Fit(1.0, 0.0, 0.0, 0.0)
    units = {"a unit": unit_ms}
    LatencyTable(SPACE, DEVICE, example=SPACE.example, units=units, fit=fit).save(path)
    return path


def kept(path: Path, given: Path | None) -> float:
    table = kept_table(Step, SPACE, DEVICE, SPACE.example, path=path, given=given, seed=0)
    return table.units["a unit"]


def test_a_table_given_is_kept_and_the_same_one_may_be_given_again(tmp_path: Path) -> None:
    own, given = tmp_path / "out" / "table.json", saved(tmp_path / "given.json", 0.1)
    assert [kept(own, given), kept(own, given), kept(own, None)] == [0.1, 0.1, 0.1]


def test_a_table_that_is_not_the_folder_s_is_refused(tmp_path: Path) -> None:
    own, other = saved(tmp_path / "table.json", 0.1), saved(tmp_path / "other.json", 0.2)
    with pytest.raises(InvalidSetting, match=r"other.json differs from it; leave the table out"):
        kept(own, other)
    assert kept(own, None) == 0.1


def test_a_table_given_must_be_there_though_the_folder_has_its_own(tmp_path: Path) -> None:
    own = saved(tmp_path / "table.json", 0.1)
    with pytest.raises(InvalidStudy, match=r"nowhere.json cannot be read"):
        kept(own, tmp_path / "nowhere.json")
