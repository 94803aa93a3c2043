from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.report.html import write_report
from assay.report.page import group_failures
from assay.study.store import Study
from tests.report.fake_study import FakeStudy, finished, halved, untested

EVIL = "<script>alert(1)</script>\"'&$x$"
VOID = {"meta", "link", "wbr", "br"}


class Page(HTMLParser):
    """Collects elements, ids, links out, and the text of the first heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "xlink:href", "srcset", "action", "data"}:
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def written(study: FakeStudy, folder: Path) -> str:
    return write_report(study, folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(finished(), tmp_path_factory.mktemp("report"))


def test_the_page_is_whole_and_points_nowhere(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "iframe", "img", "object"}.isdisjoint(page.tags)
    inside = {link for link in page.links if link.startswith("#")}
    assert set(page.links) - inside == {"data:,"}
    assert {link[1:] for link in inside} <= set(page.ids)
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text


@pytest.mark.parametrize(
    ("latencies", "said"),
    [((-0.0003, 0.0019, 0.0019), ["too little to tell", "50 %", "50 %"]),
     ((-0.0042, -0.0086), ["too little to tell"] * 2)],
)  # fmt: skip
def test_a_block_that_takes_next_to_nothing_has_no_bar(
    latencies: tuple[float, ...], said: list[str], tmp_path: Path
) -> None:
    study = finished(60)
    chain = [{"label": str(i), "macs": 5, "latency_ms": ms} for i, ms in enumerate(latencies)]
    winner = {**study.documents["winner"], "blocks": chain}
    study.documents = {**study.documents, "winner": winner}
    page = written(study, tmp_path)
    assert "width:-" not in page
    shown = re.findall(r'<div class="ms">.*width:([\d.]+)%.*?<span>(.*?)</span></div>', page)
    assert [text.rpartition(" · ")[2] for _, text in shown] == said
    assert all((width == "0.0") == (text == "too little to tell") for width, text in shown)


def test_every_figure_is_there_with_a_caption(text: str) -> None:
    assert re.findall(r'<svg[^>]*class="figure (\w+)"', text) == [
        "front", "progress", "predicted", "macs", "ledger", "saving",
    ]  # fmt: skip
    assert text.count("<figcaption>") == 6
    assert text.count('<div class="block">') == 10


def test_the_first_line_says_what_was_got_and_what_it_cost(text: str) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", text)
    assert heading is not None
    assert heading[1].replace("\xa0", " ") == (
        "A trained network with 97.78 % test accuracy at 0.396 ms latency (limit 0.420 ms), "
        "found and trained in 1 min 53 s."
    )


def test_a_score_is_never_called_an_accuracy(text: str) -> None:
    said = Page(text).text
    for match in re.finditer("accurac", said):
        near = said[max(0, match.start() - 40) : match.start()]
        assert re.search(r"(test|validation|not the|task\.score)\s*$", near), near
    assert "one-shot score" in text


def test_notes_of_the_run_are_told_again(text: str, tmp_path: Path) -> None:
    study = finished(60)
    study.documents["notes"] = ["model.onnx takes <b>twice</b> as long", "it ended early"]
    noted = written(study, tmp_path)
    assert '<li style="overflow-wrap:anywhere">it ended early</li>' in noted
    assert "model.onnx takes &lt;b&gt;twice&lt;/b&gt; as long</li>" in noted
    assert 'href="#notes"' in noted
    assert "#notes" not in text


def test_settings_versions_formula_and_failures_are_all_there(text: str) -> None:
    said = Page(text).text
    for wanted in (
        "estimator.paths", "fair", "recipe.batch_size", "onnxruntime", "1.23.0", "9f31c2e07ab4",
        "limits.latency_ms", "median: 0.42", "counts.train.steps", "1792", "AMD EPYC",
        "differs by at most 2.4e-06", "no ready space", "All 9 decisions", "run 2",
        "305 architectures × 11.2 s", "lower the learning rate", "lost to kills",
        "Sessions that worked",
    ):  # fmt: skip
        assert wanted in said


def test_the_same_study_gives_the_same_bytes(text: str, tmp_path: Path) -> None:
    assert written(finished(), tmp_path) == text


def test_twenty_thousand_trials_fit_a_megabyte(tmp_path: Path) -> None:
    path = write_report(finished(20_000), tmp_path / "report.html")
    assert path.stat().st_size <= 2**20 // 2
    assert 'class="trials-binned"' in path.read_text(encoding="utf-8")


def test_just_below_the_limit_of_points_fits_too(tmp_path: Path) -> None:
    assert len(written(finished(3900), tmp_path).encode()) <= 2**20


def test_an_empty_study_says_what_is_not_there_yet(tmp_path: Path) -> None:
    text = written(FakeStudy(), tmp_path)
    said = Page(text).text
    assert "No winner yet: 0 architectures scored in 0 s." in said.replace("\xa0", " ")
    for missing in (
        "No network has been handed back yet", "is not made yet", "No finalist has been trained",
        "No architecture has been scored yet", "has not been validated", "Nothing has been booked",
        "is not known before a finalist is trained", "Settings: not recorded",
    ):  # fmt: skip
        assert missing in said
    assert "<svg" not in text


@pytest.mark.parametrize(
    "gone", ["winner", "comparison", "validation", "saving", "versions", "space", "limits"]
)
def test_any_document_may_be_missing(gone: str, tmp_path: Path) -> None:
    study = finished(60)
    study.documents = {key: value for key, value in study.documents.items() if key != gone}
    assert Page(written(study, tmp_path)).open == []


def test_what_a_user_wrote_is_escaped(tmp_path: Path) -> None:
    point = Architecture({EVIL: EVIL})
    other = {EVIL: "x", "b": 1}
    metrics = {"test_accuracy": 0.5, EVIL: 1.0}
    study = FakeStudy(
        settings={"task": EVIL, "space": EVIL, EVIL: EVIL},
        identity={"estimator": EVIL, "strategy": EVIL, "task": EVIL, EVIL: EVIL},
        rows=[Trial(0, point, "scored", Estimate(0.1), {EVIL: 1.0})],
        costs={EVIL: Cost(1.0, device=EVIL)},
        trained=[{"trial": 0, "seed": 0, "state": EVIL, "metrics": metrics}],
        failed=[{"phase": EVIL, "trial": None, "traceback": f"{EVIL}\n{EVIL}"}],
        runs=[{"id": EVIL, "started": 0, "heartbeat": 0, "versions": {EVIL: EVIL}}] * 2,
        counts={"train": {EVIL: 1}},
        documents={
            "winner": {"trial": 0, "architecture": dict(point), "metrics": metrics,
                       "blocks": [{"label": EVIL, "name": EVIL, "detail": EVIL, "macs": 1}]},
            "comparison": [{"name": EVIL, "metrics": metrics}],
            "validation": {"pairs": [[1.0, 1.0, dict(point), 5], [2.0, 2.0, other, 5]]},
            "saving": {"spent_s": 1.0, "train_each_s": 2.0, "formula": EVIL},
            "versions": {EVIL: EVIL},
            "space": {"size": "1", "choices": {EVIL: [EVIL]}},
            "limits": {EVIL: 2},
            "handover": {"files": [EVIL], "refused": {EVIL: EVIL}},
        },
    )  # fmt: skip
    text = written(study, tmp_path)
    assert "<script" not in text
    assert "script" not in Page(text).tags
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="report"):
        write_report(FakeStudy(), tmp_path / "file" / "report.html")
    write_report(FakeStudy(), str(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_limit_on_macs_alone_sets_the_score_against_macs(tmp_path: Path) -> None:
    study = FakeStudy(
        documents={"limits": {"macs": 2e6}},
        rows=[
            Trial(n, Architecture({"a": n}), "scored", Estimate(n / 10), {"macs": n * 1e6})
            for n in range(2)
        ]
        + [Trial(2, Architecture({"a": 2}), "infeasible", measured={"macs": 3e6}, violation=0.5)],
    )
    text = written(study, tmp_path)
    assert "Score against MACs" in text
    assert "limit 2.00 M" in text


def test_scores_that_are_not_finite_have_no_place_in_a_figure(tmp_path: Path) -> None:
    rows = [
        Trial(n, Architecture({"a": n}), "scored", Estimate(score), {"macs": 1.0})
        for n, score in enumerate((0.1, float("-inf"), float("nan")))
    ]
    assert "1 scored" in written(FakeStudy(rows=rows), tmp_path)


def test_figures_draw_the_longest_trained_and_say_how_many_they_leave_out(
    text: str, tmp_path: Path
) -> None:
    study = FakeStudy(rows=halved(), documents={"winner": {"trial": 2, "architecture": {"a": 2}}})
    climbed = written(study, tmp_path)
    assert "score against MACs: 1 scored trials, 1 of them on the front" in climbed
    assert "score of 1 trials in the order of proposing" in climbed
    said = (
        "Left out: 3 trials of shorter training, the winner&#39;s among them; scores of different "
        "lengths of training do not compare."
    )
    assert climbed.count(said) == 2
    study.documents = {}
    assert "3 trials of shorter training; scores" in written(study, tmp_path)
    assert "Left out" not in text


def test_a_task_without_a_test_split_is_not_said_to_be_tested(text: str, tmp_path: Path) -> None:
    said = Page(written(untested(), tmp_path)).text
    assert "Nothing was tested, since the task has no test split" in said
    assert "tested once" not in said
    assert "test accuracy" not in said
    assert "validation accuracy" in said
    assert "tested once" in text
    assert "Nothing was tested" not in text


def test_latency_by_a_table_that_was_not_validated_is_said_to_be_predicted(tmp_path: Path) -> None:
    study = finished(60)
    del study.documents["validation"]
    said = Page(written(study, tmp_path)).text
    assert "Latency is what the table of ops predicts for each." in said
    assert "The latency table was not validated on whole networks: it was given" in said
    del study.documents["winner"]
    assert "has not been validated on whole networks yet" in Page(written(study, tmp_path)).text


def test_decisions_have_no_winners_column_before_there_is_one(text: str, tmp_path: Path) -> None:
    study = finished(60)
    del study.documents["winner"]
    unfinished = written(study, tmp_path)
    assert "All 9 decisions of the space</summary>" in unfinished
    assert "not taken" not in unfinished
    assert ">the winner&#39;s</th>" not in unfinished
    assert ">the winner&#39;s</th>" in text


def test_a_study_in_a_database_reads_like_the_one_in_memory(tmp_path: Path) -> None:
    fake = finished(120)
    with Study.open(tmp_path / "out", identity=fake.identity, settings=fake.settings) as study:
        study.record_all(fake.rows, failed_in="score")
        for phase, cost in fake.costs.items():
            study.book(phase, cost)
        for phase, counts in fake.counts.items():
            study.plan(phase, counts)
        for key, value in fake.documents.items():
            study.put(key, value)
        for row in fake.measured:
            study.add_measurement(
                row["architecture"], row["quantity"], row["value"], source=row["source"],
                trial=row["trial"],
            )  # fmt: skip
        for row in fake.trained:
            study.save_finalist(
                row["key"], seed=0, architecture="{}", state=row["state"], metrics=row["metrics"],
                weights="", steps=1, trial=row["trial"],
            )  # fmt: skip
    fake.runs, fake.failed = (
        [],
        [{"trial": t.number, "error": t.error} for t in fake.rows if t.error],
    )
    with Study.read(tmp_path / "out") as study:
        text = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text == written(fake, tmp_path)


def test_a_traceback_keeps_the_end_of_each_path_and_no_more() -> None:
    raised = """Traceback (most recent call last):
  File "/home/someone/project/src/assay/run/loop.py", line 3, in judge
    work()
  File "net.py", line 1, in forward
  File "C:\\Users\\someone\\nets\\mine\\net.py", line 2, in forward
ValueError: no"""
    (group,) = group_failures([{"phase": "score", "trial": 1, "traceback": raised}])
    assert "someone" not in group["text"]
    assert 'File "…/assay/run/loop.py", line 3' in group["text"]
    assert 'File "net.py", line 1' in group["text"]
    assert "mine\\net.py" in group["text"]
