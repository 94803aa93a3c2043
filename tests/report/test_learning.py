from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from assay.report import learning
from assay.report.html import write_report
from assay.report.svg import COLOURS
from tests.report.fake_study import FakeStudy, finished, learned
from tests.report.test_figures import SVG, words

OPTIONS = {"body.0": ["conv3", "skip"], "width": [160, 240, 320]}


def document(*probabilities: dict[str, list[float]], total: int = 30) -> dict[str, object]:
    records = [
        {"step": 10 * i, "probabilities": p, "entropy": 1 - i / 10, "quantity": "",
         "expected": None, "target": None, "reward": None, "stopped": ""}
        for i, p in enumerate(probabilities)
    ]  # fmt: skip
    return {"unit": "step", "total": total, "records": records, "warnings": {}}


def cells(svg: str) -> int:
    """Count the boxes of the map; each is closed once."""
    groups = [g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("class") == "cells"]
    return sum(path.get("d", "").count("z") for g in groups for path in g.iter(f"{SVG}path"))


def test_every_option_has_a_row_and_a_change_of_shade_a_box() -> None:
    known = (
        {"body.0": [0.5, 0.5], "width": [0.2, 0.2, 0.6]},
        {"body.0": [0.5, 0.5], "width": [0.2, 0.2, 0.6]},
        {"body.0": [0.9, 0.1], "width": [0.2, 0.2, 0.6]},
    )
    svg = learning.settling(document(*known), OPTIONS)
    said = words(svg)
    assert [w for w in said if w in ("body.0", "width")] == ["body.0", "width"]
    assert [w for w in said if w in ("conv3", "skip", "160", "240", "320")] == [
        "conv3", "skip", "160", "240", "320",
    ]  # fmt: skip
    assert cells(svg) == 2 * 2 + 3
    assert {"step", "probability", "83–100 %"} <= set(said)
    assert "5 options from step 0 to 20" in svg


def test_what_was_not_known_at_a_moment_is_left_open() -> None:
    svg = learning.settling(
        document({"body.0": [0.5, 0.5]}, {"width": [0.3, 0.3, 0.4]}, {"body.0": [0.5, 0.5]}),
        OPTIONS,
    )
    assert cells(svg) == 2 * 2 + 3


def test_of_many_choices_the_likeliest_option_of_each_is_drawn() -> None:
    study = learned(blocks=40)
    said = words(
        learning.settling(study.documents["learning"], study.documents["space"]["choices"])
    )
    assert sum(w.startswith("stages.") for w in said) == 41
    table = learning.likeliest(study.documents["learning"], study.documents["space"]["choices"])
    assert len(table.rows) == 41
    best = [row[1] for row in table.rows]
    assert [w for w in said if w in set(best)] == best


@pytest.mark.parametrize("blocks", [1, 4, 40, 400])
def test_the_figures_are_small_and_themed(blocks: int) -> None:
    study = learned(80, blocks=blocks)
    known = study.documents["learning"]
    for svg in (
        learning.settling(known, study.documents["space"]["choices"]), learning.curves(known)
    ):  # fmt: skip
        root = ET.fromstring(svg)
        assert root.get("viewBox", "").startswith("0 0 400 ")
        assert float(root.get("viewBox", "").split()[3]) < 800
        assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg), "a colour outside the theme"
        assert set(re.findall(r"var\(--(\w+)", svg)) <= {*COLOURS, "sans"}
        assert len(svg) < 150_000
        assert svg.count("<path") < 100


def test_curves_are_those_that_there_is_something_of() -> None:
    whole = words(learning.curves(learned().documents["learning"]))
    assert {"entropy (%)", "latency (ms)", "target", "reward", "step"} <= set(whole)
    without = words(learning.curves(learned(loop=False).documents["learning"]))
    assert {"latency (ms)", "target"}.isdisjoint(without)
    alone = words(learning.curves(document({"body.0": [0.5, 0.5]})))
    assert "entropy (%)" in alone
    assert "reward" not in alone


def test_the_table_ranks_the_options() -> None:
    table = learning.likeliest(document({"width": [0.2, 0.1, 0.7]}), OPTIONS)
    assert table.rows == [["width", "320", "70.00 %", "160 20 %, 240 10 %"]]


def written(study: FakeStudy, folder: Path) -> str:
    return write_report(study, folder / "report.html").read_text(encoding="utf-8")


def test_there_is_a_section_where_something_was_learned_only(tmp_path: Path) -> None:
    text = written(learned(), tmp_path)
    assert 'href="#learning"' in text
    assert "From step 30 to 100 the expected latency_ms grew." in text
    assert 'id="fig-settling"' in text
    assert len(text) < 2**20
    assert "learning" not in written(finished(30), tmp_path).replace("learning rate", "")
