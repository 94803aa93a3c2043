"""The report in a real Chromium: Debian's, driven by Playwright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.report.html import write_report
from tests.report.conftest import fits
from tests.report.fake_study import FakeStudy, finished, learned

FIGURES = ["front", "progress", "predicted", "macs", "ledger", "saving"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        "finished": write_report(finished(), folder / "finished.html"),
        "long": write_report(finished(20_000), folder / "long.html"),
        "empty": write_report(FakeStudy(), folder / "empty.html"),
        "unbroken": write_report(unbroken(), folder / "unbroken.html"),
        "learned": write_report(learned(blocks=40), folder / "learned.html"),
    }


def unbroken() -> FakeStudy:
    """A study whose names have no place where a line could end."""
    study, name = finished(30), "w" * 120
    study.settings = {**study.settings, "task": name, name: name}
    study.documents["comparison"][1]["name"] = name
    study.documents["winner"]["blocks"][1].update(name=name, label=name + "2", detail=name)
    study.documents["saving"]["formula"] = name
    study.failed = [{"phase": "score", "trial": 1, "traceback": f"{name}\n{name}"}]
    return study


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["finished", "long", "empty", "unbroken", "learned"])
def test_the_page_fits_its_width(
    reports: dict[str, Path], opened: Callable[..., Any], name: str, width: int
) -> None:
    page = opened(reports[name], width)
    fits(page, width)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_figures_are_drawn_and_legible(
    reports: dict[str, Path], opened: Callable[..., Any], width: int, learns: bool
) -> None:
    page = opened(reports["learned" if learns else "finished"], width)
    sizes = page.evaluate(
        """[...document.querySelectorAll('svg.figure')].map(svg => {
            const box = svg.getBoundingClientRect();
            const text = svg.querySelector('text').getBoundingClientRect();
            return [svg.classList[1], box.width, box.height, text.height];
        })"""
    )
    more = ["settling", "curves"] if learns else []
    assert [name for name, *_ in sizes] == [*FIGURES[:2], *more, *FIGURES[2:]]
    for _, wide, high, text in sizes:
        assert wide > 300
        assert high > 60
        assert text >= 8
    if not learns:
        assert page.locator(".chain > li").count() == 10
        assert page.locator("#fig-front svg .trials use").count() > 100


def test_night_turns_paper_and_ink_round(
    reports: dict[str, Path], opened: Callable[..., Any]
) -> None:
    def lightness(page: Any, selector: str, what: str) -> float:
        colour = page.evaluate(
            "([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what]
        )
        return sum(float(part) for part in colour[4:-1].split(",")) / 3

    day, night = (opened(reports["finished"], 1280, scheme) for scheme in ("light", "dark"))
    assert lightness(day, "body", "backgroundColor") > 200
    assert lightness(night, "body", "backgroundColor") < 60
    for page, dark in ((day, True), (night, False)):
        assert (lightness(page, "svg.figure .halo text, svg.figure text", "fill") < 128) is dark
