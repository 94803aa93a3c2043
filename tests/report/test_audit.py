"""The report of an audit: what it says, that it is whole, and how it looks in a real browser."""

from __future__ import annotations

import json
import re
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.report import audit_figures
from assay.report.audit import write_audit
from assay.report.audit_tables import Notes, ranking, told
from tests.report.conftest import fits
from tests.report.fake_audit import NOISE, REFUSAL, audited
from tests.report.fake_study import FakeStudy
from tests.report.test_figures import marks, words
from tests.report.test_html import EVIL, Page

FEW = {"params": 0.1, "macs": 0.1}
UNFINISHED = FakeStudy(identity={"kind": "audit"})


def written(study: FakeStudy, folder: Path) -> str:
    return write_audit(study, folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(audited(), tmp_path_factory.mktemp("audit"))


def said(text: str) -> str:
    return Page(text).text.replace("\xa0", " ")


# --- what it says -------------------------------------------------------------------------------


def test_the_page_is_whole_and_points_nowhere(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "iframe", "img", "object"}.isdisjoint(page.tags)
    inside = {link for link in page.links if link.startswith("#")}
    assert set(page.links) - inside == {"data:,"}
    assert {link[1:] for link in inside} <= set(page.ids)
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_verdict_comes_first_and_whole(text: str) -> None:
    verdict = audited().documents["audit"]["verdict"]
    heading = re.search(r"<h1>(.*?)</h1>", text)
    assert heading is not None
    assert heading[1].replace("\xa0", " ") == verdict[0]
    items = re.findall(r"<li>(.*?)</li>", text[: text.index('class="tiles"')])
    assert [item.replace("\xa0", " ") for item in items] == verdict[1:]


def test_every_figure_of_the_table_is_on_the_page_with_its_interval(text: str) -> None:
    table = json.loads(audited().documents["audit"]["table"])
    body = text[text.index('<table class="worth"') :]
    rows = re.findall(r"<tr.*?</tr>", body[: body.index("</table>")], re.S)[1:]
    assert len(rows) == len(table["rows"]) + 2  # seed against seed, and the noise ceiling
    for row, html in zip(table["rows"], rows):
        shown = said(html)
        assert row["estimator"] in shown
        assert ("baseline" in shown) is row["baseline"]
        for name in ("tau", "rho", "tau_top"):
            if row[name]["low"] is not None:
                ends = f"{row[name]['low']:z.2f} to {row[name]['high']:z.2f}"
                assert ends.replace("-", "−") in shown
    ceiling = table["ceiling"]
    assert f"{ceiling['between']['value']:.2f}" in rows[-2]
    assert f"{ceiling['mean']['value']:.2f}" in rows[-1]
    assert "0.400 ms" in said(rows[[r["estimator"] for r in table["rows"]].index("params")])


def test_what_failed_refused_or_is_undefined_says_why(text: str) -> None:
    shown = said(text)
    # In the verdict, among the refusals, and as a failure with its traceback.
    assert shown.count(REFUSAL) == 4
    assert "it scored no architecture" in shown
    assert "failed on 2" in shown
    assert "it refused" in shown
    assert "all truths are equal" in said_of(audited(6, spread=0.0, noise=FEW))


def said_of(study: FakeStudy) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return said(written(study, Path(folder)))


@pytest.mark.parametrize(
    "study",
    [
        audited(3, noise=FEW), audited(6, spread=0.0, noise=FEW), audited(12, seeds=1), UNFINISHED,
        audited(12, seeds=0),
    ],
    ids=["three", "flat", "one seed", "unfinished", "published"],
)  # fmt: skip
def test_no_nan_and_no_none_gets_into_a_page(study: FakeStudy) -> None:
    assert not re.search(r"\b(nan|None(?!\.)|inf)\b", said_of(study))


def test_the_speed_up_stands_beside_what_was_published(text: str) -> None:
    body = text[text.index('<table class="claims"') :]
    rows = [said(row) for row in re.findall(r"<tr>.*?</tr>", body[: body.index("</table>")], re.S)]
    (one_shot,) = (row for row in rows if "one-shot" in row)
    assert "49.9 ×" in one_shot  # 1,000 × 41 s by 611 s + 1,000 × 0.21 s
    assert "arXiv:1902.08142" in one_shot


def test_a_search_shows_all_figures_of_an_estimator_in_one_table() -> None:
    table = json.loads(audited().documents["audit"]["table"])
    shown = ranking(table)
    assert {len(row) for row in shown.rows} == {len(shown.head)}
    given = next(row for row in table["rows"] if row["estimator"] == "one-shot")
    row = dict(zip(shown.head, next(row for row in shown.rows if row[0] == "one-shot")))
    tau, regret = given["tau"], given["regret_5"]
    said = f"{tau['value']:.2f}, {tau['low']:.2f} to {tau['high']:.2f}"
    assert row["τ"] == said.replace("-", "−")
    assert row["regret of top 5"].startswith(f"{regret['value']:.2g}")
    assert row["precision, top 10 %"].startswith(f"{100 * given['precision_10']['value']:.0f}")
    assert (row["to prepare"], row["each"], row["failed"]) == ("10 min 11 s", "210 ms", "0")
    assert row["speed-up, measured"] == "49.9 ×"
    assert "arXiv:1902.08142" in row["published"]


def test_how_the_sample_was_chosen_is_told(text: str) -> None:
    assert "spread evenly over the MACs" in said(text)
    assert "for 12 epochs, 2 seeds each" in said(text)
    published = said_of(audited(12, seeds=0))
    assert "Nothing was trained for it" in published
    assert "no truth was trained here" in published
    assert "its noise, and with it the ceiling, cannot be told" in published


def test_an_unfinished_audit_says_so(tmp_path: Path) -> None:
    text = written(UNFINISHED, tmp_path)
    assert "No verdict yet: the audit has not finished." in text
    assert "<svg" not in text


def test_settings_and_sessions_are_there(text: str) -> None:
    for wanted in ("recipe.lr", "arguments.task", "9f31c2e07ab4", "run 1", "train the truth"):
        assert wanted in said(text)


def test_what_was_asked_last_is_what_is_shown(tmp_path: Path) -> None:
    study = audited(12, noise=FEW)
    study.documents = {**study.documents, "asked": {"arguments": {"num": 77}}}
    assert "77" in said(written(study, tmp_path))


def test_the_same_study_gives_the_same_bytes(text: str, tmp_path: Path) -> None:
    assert written(audited(), tmp_path) == text


@pytest.mark.parametrize("num", [300, 1500])
def test_a_large_audit_fits_a_megabyte(num: int, tmp_path: Path) -> None:
    path = write_audit(audited(num, noise={**FEW, "one-shot": 0.05}), tmp_path / "report.html")
    assert path.stat().st_size <= 2**20 // 2
    assert ('class="estimates-binned"' in path.read_text(encoding="utf-8")) is (num > 300)


def test_a_users_names_are_text(tmp_path: Path) -> None:
    study = audited(12, noise={**FEW, EVIL: 0.05})
    study.settings = {EVIL: EVIL}
    study.documents = {"audit": {**study.documents["audit"], "space": EVIL}}
    text = written(study, tmp_path)
    assert "<script" not in text
    assert "script" not in Page(text).tags


# --- its figures --------------------------------------------------------------------------------


def interval(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "reason": "" if low is not None else "few"}


def row(name: str, tau: dict[str, Any], *, prepare_s: float = 0.0, each_s: float = 1.0) -> Any:
    return {"estimator": name, "baseline": name == "macs", "tau": tau, "prepare_s": prepare_s,
            "each_s": each_s}  # fmt: skip


def test_ranks_draw_each_architecture_once_and_failures_as_crosses() -> None:
    svg = audit_figures.ranks(
        [[0.1, 0.3], [0.5, 0.6], [0.4], [0.9]], [1.0, None, 2.0, None], name="x", key="ranks-0"
    )
    assert marks(svg, "estimates") == 2
    assert marks(svg, "failed") == 2
    assert "2 of them failed and ranked last" in svg


def test_equal_values_share_the_middle_of_their_ranks() -> None:
    values = np.array([5.0, 7.0, 5.0, -np.inf, 9.0, -np.inf])
    assert audit_figures._ranks(values).tolist() == [3.5, 2.0, 3.5, 5.5, 1.0, 5.5]


def test_the_frontier_names_every_estimator_and_tells_baselines_apart() -> None:
    rows = [
        row("fused", interval(0.7, 0.6, 0.8)), row("macs", interval(0.5), each_s=0.0),
        row("one-shot", interval(0.4, 0.1, 0.6), prepare_s=600.0),
    ]  # fmt: skip
    svg = audit_figures.frontier(rows, interval(0.86, 0.8, 0.9))
    assert {"fused", "macs", "one-shot", "noise ceiling", "10 min"} <= set(words(svg))
    assert marks(svg, "estimator") == 2
    assert marks(svg, "baseline") == 1
    assert 'class="ceiling"' in svg
    assert "noise ceiling" not in words(audit_figures.frontier(rows[:1], None))


def test_differences_tell_what_is_real_from_what_may_be_chance() -> None:
    rows = [
        {"one": name, "other": "macs", "tau": interval(value, value - 0.1, value + 0.1), "p": 0.01,
         "p_holm": 0.02, "real": real}
        for name, value, real in (("fused", 0.3, True), ("one-shot", 0.05, False))
    ]  # fmt: skip
    svg = audit_figures.differences(rows)
    assert (marks(svg, "real"), marks(svg, "may")) == (1, 1)
    assert "fused 0.30 (real), one-shot 0.05" in svg


def test_what_a_search_gains_is_drawn_of_the_longest_time_and_told_of_all(text: str) -> None:
    found = audited().documents["audit"]["gains"]
    assert {row["trainings"] for row in found} == {2, 4}
    longest = [row for row in found if row["trainings"] == 4 and row["estimator"]]
    part = text[text.index('id="gain"') : text.index('id="ranks"')]
    figure = re.search(r"<svg.*?</svg>", part, re.S)
    assert figure is not None
    assert marks(figure[0], "real") + marks(figure[0], "may") == len(longest)
    assert set(words(figure[0])) >= {row["estimator"] for row in longest}
    rows = re.findall(r"<tr.*?</tr>", part[part.index("<table") :], re.S)[1:]
    assert len(rows) == len(found)
    for row, html in zip(found, rows):
        assert (row["estimator"] or "training at random") in said(html)
        ends = [row["gain"][end] for end in ("low", "high")]
        told = "no architecture makes a difference to it"
        if None not in ends:
            told = " to ".join(f"{end:.2g}".replace("-", "−") for end in ends)
        assert told in said(html)
    once = audited(seeds=1)
    once.documents["audit"].pop("gains")  # of an older version
    with tempfile.TemporaryDirectory() as folder:
        assert "20 architectures of two trainings each" in said(written(once, Path(folder)))


def test_figures_are_themed_labelled_and_share_no_id(text: str) -> None:
    ids: list[str] = []
    figures = re.findall(r"<svg.*?</svg>", text, re.S)
    # And the frontier, the differences, the gains and the ledger.
    assert len(figures) == len(NOISE) + 4
    for svg in figures:
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg), "a colour outside the theme"
        own = {e.get("id", "") for e in root.iter()} - {""}
        assert set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg)) == own
        ids += own
    assert len(ids) == len(set(ids))


def test_a_reason_is_told_once() -> None:
    notes = Notes()
    numbers = [told(interval(v), notes, str).note for v in (0.1, 0.2)]
    assert numbers == [1, 1]
    assert told({**interval(0.0), "value": None, "reason": "all equal"}, notes, str).note == 2
    assert notes.reasons == ["few", "all equal"]


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("audits")
    long = "w" * 90
    studies = {
        "full": audited(),
        "published": audited(300, seeds=0, noise={**FEW, "one-shot": 0.05}),
        "three": audited(3, noise=FEW),
        "unfinished": UNFINISHED,
        "unbroken": audited(12, noise={**FEW, long: 0.05}),
    }
    return {name: write_audit(s, folder / f"{name}.html") for name, s in studies.items()}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["full", "published", "three", "unfinished", "unbroken"])
def test_the_page_fits_its_width(
    reports: dict[str, Path], opened: Callable[..., Any], name: str, width: int
) -> None:
    fits(opened(reports[name], width), width)


def test_the_table_needs_no_scrolling_on_a_desk(
    reports: dict[str, Path], opened: Callable[..., Any]
) -> None:
    page = opened(reports["full"], 1280)
    wide = page.evaluate("(t => [t.scrollWidth, t.clientWidth])(document.querySelector('.scroll'))")
    assert wide[0] <= wide[1]


@pytest.mark.parametrize("width", [1280, 390])
def test_no_name_of_the_frontier_covers_another(
    reports: dict[str, Path], opened: Callable[..., Any], width: int
) -> None:
    page = opened(reports["full"], width)
    boxes = page.evaluate(
        """[...document.querySelectorAll('#fig-frontier .halo text')].map(t => {
            const b = t.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom];
        })"""
    )
    assert len(boxes) == len(NOISE)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            wide = min(one[2], other[2]) - max(one[0], other[0])
            high = min(one[3], other[3]) - max(one[1], other[1])
            assert min(wide, high) < 3  # a box is taller than its letters
