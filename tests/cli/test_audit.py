"""`assay audit`: from bad input to a table on the screen, with published truths, too."""

from __future__ import annotations

import csv
import inspect
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from assay.cli.asked import read_settings, stored
from assay.cli.audit import audit
from assay.cli.audited import print_audit
from assay.cli.benchmark import published
from assay.cli.display import Bars
from assay.errors import InvalidSetting, InvalidStudy
from assay.run.events import Event
from assay.run.names import ESTIMATORS
from assay.study.store import Study
from assay.zoo.cell import arch_string, cell, from_arch_string
from tests.cli.test_main import here, photos, run
from tests.report.fake_audit import REFUSAL, audited

__all__ = ["here"]  # the fixture

SMALL = cell(channels=4, cells=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "digit"], "did you mean 'digits'"),
        (["--space", "mobil"], "did you mean 'mobile'"),
        (["--estimators", "one-shot,oneshot"], "did you mean 'one-shot'"),
        (["--estimators", "one-shot", "--set", "one-shot.path=fair"], "did you mean 'paths'"),
        (["--set", "one-shto.paths=fair"], "did you mean 'one-shot'"),
        (["--set", "recipe.lrate=1"], "recipe.lrate"),
        (["--set", "paths"], "SECTION.OPTION=VALUE, as one-shot.paths=fair"),
        (["--estimators", "one-shot", "--set", "scratch.seeds=2"], "which is not audited"),
        (["--estimators", "one-shot", "--proxy-task", "digits"], "'low-fidelity', which is not a"),
        (["--proxy-task", "digit"], "did you mean 'digits'"),
        (["--set", "low-fidelity.proxy=digit"], "did you mean 'digits'"),
        (["--set", "fused.others=one-shto"], "did you mean 'one-shot'"),
        (["--num", "1"], "num must be at least 2"),
        (["--limit", "mcas=1"], "did you mean 'macs'"),
        (["--limit", "macs"], "must be written NAME=VALUE"),
        (["--set", "target.runtime=torhc"], "should be 'onnxruntime' or 'torch'"),
        (["--seeds", "0"], "seeds at least 1"),
        (["--budget", "soon"], "neither a time nor counts"),
        (["--workers", "-1"], "workers of at least 0"),
        (["--train-on", "cdua"], "did you mean 'cuda'"),
        (["--task", "digits", "--data", "x"], "not both"),
        (["--space", "cell", "--model", "mynet:Net"], "not both"),
        (["--model", "mynet:Plain"], "no choice"),
        (["--benchmark", "nasbench"], "did you mean 'nasbench201'"),
        (["--benchmark", "nasbench201"], "give --truth FILE.csv"),
        (["--benchmark", "nasbench201", "--truth", "t", "--space", "cell"], "leave --space out"),
        (
            ["--benchmark", "nasbench201", "--truth", "t", "--data", ".", "--size", "64"],
            "leave --size out",
        ),
        (["--benchmark", "nasbench201", "--truth", "t.csv"], "--truth t.csv is no file"),
        (["--benchmark", "nasbench201", "--truth", "mynet.py", "--data", "nowhere"], "nowhere"),
        (["--truth", "t.csv"], "--truth goes with --benchmark"),
        (["--truth-key", "name"], "--truth-key goes with --benchmark"),
        (["--truth-value", "acc"], "--truth-value goes with --benchmark"),
        (["--table", "nowhere.json"], "serves a limit on latency_ms"),
        (["--set", "target.threads=2"], "give --limit latency_ms=VALUE"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("audit", *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
    assert not (here / "runs").exists()


def test_the_flags_are_frozen() -> None:
    assert list(inspect.signature(audit).parameters) == [
        "task", "space", "model", "data", "size", "estimators", "num", "seeds", "limit", "budget",
        "out", "seed", "train_on", "workers", "proxy_task", "table", "benchmark", "truth",
        "truth_key", "truth_value", "set_", "json", "quiet",
    ]  # fmt: skip


def test_a_section_may_have_dots_and_a_value_may_too() -> None:
    texts = ["my.own:Class.rate=0.5", "one-shot.paths=fair", "one-shot.passes=2"]
    assert read_settings(texts, ("one-shot",)) == {
        "my.own:Class": {"rate": "0.5"}, "one-shot": {"paths": "fair", "passes": "2"},
    }  # fmt: skip


# --- a run --------------------------------------------------------------------------------------


def test_an_audit_runs_grows_and_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(here / "photos")
    own = ["audit", "--model", "mynet:Net", "--data", "photos", "--size", "16", "--out", "mine",
           "--estimators", "one-shot", "--budget", "steps=2,epochs=1"]  # fmt: skip
    assert run(*own, "--num", "2", "--seeds", "1", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ended = [line["step"] for line in lines if line.get("kind") == "end"]
    assert ended == ["truth", "prepare one-shot", "score one-shot"]
    assert lines[-1]["kind"] == "result"
    assert lines[-1]["table"]["num"] == 2
    assert lines[-1]["verdict"]

    assert run(*own, "--num", "3", "--seeds", "1", "--quiet") == 0
    shown = capsys.readouterr()
    assert "truth of 3 architectures" in shown.out
    assert shown.err == ""
    assert "<h1>" in (here / "mine" / "report.html").read_text(encoding="utf-8")

    (here / "mine" / "report.html").unlink()
    assert run("report", "mine") == 0
    assert capsys.readouterr().out.strip() == str(Path("mine/report.html"))
    assert (here / "mine" / "report.html").is_file()
    assert run("show", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["table"]["num"] == 3
    assert run("resume", "mine") == 2  # nothing in a study is executed
    assert "assay audit --model mynet:Net" in capsys.readouterr().err


def test_an_audit_within_limits_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(here / "photos")
    own = ["audit", "--model", "mynet:Net", "--data", "photos", "--size", "16", "--out", "mine",
           "--estimators", "one-shot", "--budget", "steps=2,epochs=1", "--num", "2"]  # fmt: skip
    limits = ["--limit", "latency_ms=median", "--limit", "macs=1e9", "--set", "target.threads=1"]
    assert run(*own, "--seeds", "1", "--quiet", *limits) == 0
    shown = capsys.readouterr().out
    assert "architectures with macs <= 1,000,000,000, latency_ms <= 0." in " ".join(shown.split())
    page = (here / "mine" / "report.html").read_text(encoding="utf-8")
    assert "macs &lt;= 1,000,000,000, latency_ms &lt;= 0." in page
    assert run("show", "mine", "--json") == 0
    assert run(*own, "--seeds", "1", "--quiet", "--limit", "macs=1") == 2
    assert "limits" in capsys.readouterr().err


def test_an_audit_that_was_to_grow_and_was_cut_short_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = {"num": 40, "seeds": 1, "budget": "1h", "estimators": ["one-shot"]}
    found = {**audited().documents["audit"], "asked": question}
    with Study.open(tmp_path / "a", identity={"kind": "audit"}) as study:
        study.put("audit", found)
        study.put("asked", question)
        print_audit(tmp_path / "a")
        assert "earlier" not in capsys.readouterr().out
        study.put("asked", {**question, "num": 60})
    print_audit(tmp_path / "a")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Asked for since were 60 architectures, 1 seed and 1 estimator within 1h, which" in shown
    print_audit(tmp_path / "a", json=True)
    assert json.loads(capsys.readouterr().out)["finished"] is False
    assert run("report", str(tmp_path / "a")) == 0
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "What is told here is of an earlier question." in page


def test_resume_asks_for_what_was_asked_last(tmp_path: Path) -> None:
    identity = {"kind": "audit"}
    with Study.open(tmp_path / "a", identity=identity, settings={"arguments": {"num": 4}}) as study:
        assert stored(tmp_path / "a") == ("audit", {"num": 4, "out": str(tmp_path / "a")})
        study.put("asked", {"arguments": {"num": 9}})
        assert stored(tmp_path / "a")[1]["num"] == 9
    Study.open(tmp_path / "b", identity=identity).close()
    with pytest.raises(InvalidStudy, match=r"assay\.audit\(\.\.\.\) in Python"):
        stored(tmp_path / "b")


def test_an_interruption_says_how_to_continue(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("assay.run.audit.audit", interrupted)
    assert run("audit", "--seed", "7", "--quiet") == 130
    said = capsys.readouterr().err
    assert "stopped. Continue with: assay audit" in said
    assert "--seed 7" in said
    assert "--out runs/audit-digits-mobile" in said


def test_a_proxy_task_is_a_row_beside_the_plain_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("assay.run.audit.audit", lambda *_, **given: asked.update(given))
    monkeypatch.setattr("assay.cli.audited.print_audit", lambda *_, **__: None)
    with pytest.raises(AttributeError):  # nothing came back
        audit(
            estimators="macs-like:X, low-fidelity", proxy_task="digits", quiet=True,
            set_=["low-fidelity.share=0.1"],
        )  # fmt: skip
    assert asked["estimators"] == {
        "macs-like:X": "macs-like:X", "low-fidelity": "low-fidelity",
        "low-fidelity on digits": "low-fidelity",
    }  # fmt: skip
    assert asked["settings"] == {
        "low-fidelity": {"share": "0.1"},
        "low-fidelity on digits": {"share": "0.1", "proxy": "digits"},
    }
    with pytest.raises(AttributeError):
        audit(estimators="all", proxy_task="digits", quiet=True)
    assert list(asked["estimators"]) == [*ESTIMATORS, "low-fidelity on digits"]


def test_an_unfinished_audit_can_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Study.open(tmp_path / "a", identity={"kind": "audit"}) as study:
        study.put("asked", {"arguments": {"estimators": "all"}})
        study.finish("truth")
    assert run("show", str(tmp_path / "a")) == 0
    shown = capsys.readouterr().out
    assert "has not finished" in shown
    assert "continue with: assay resume" in shown
    assert run("report", str(tmp_path / "a")) == 0
    assert "No verdict yet" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")


def test_the_table_fits_eighty_columns_and_refusals_have_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with Study.open(tmp_path / "a", identity={"kind": "audit"}) as study:
        study.put("audit", audited().documents["audit"])
    print_audit(tmp_path / "a")
    shown = capsys.readouterr().out
    *lines, _ = shown.splitlines()  # the last has a path, which is not broken
    assert max(map(len, lines)) <= 80
    assert "low-fidelity" in shown  # a name that is not cut
    assert "macs*" in shown
    assert "0.70…0.90" in shown  # nor is an interval
    assert " ".join(shown.split()).count(f"hypernet refused: {REFUSAL}") == 1
    ceiling = json.loads(audited().documents["audit"]["table"])["ceiling"]
    for name, part in (("seed against seed", "between"), ("noise ceiling", "mean")):
        (line,) = [line for line in shown.splitlines() if line.startswith(name)]
        assert line.split()[-1] == f"{ceiling[part]['value']:.2f}"


def test_truths_of_one_seed_have_no_ceiling_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Study.open(tmp_path / "a", identity={"kind": "audit"}) as study:
        study.put("audit", audited(12, seeds=1).documents["audit"])
    print_audit(tmp_path / "a")
    assert "noise ceiling" not in capsys.readouterr().out


def test_bars_take_steps_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = Bars({"known": "a step"})
    bars._console = Console(file=io.StringIO())
    with bars:
        bars(Event("start", "prepare [x]", total=3, message="prepare [x]"))
        bars(Event("progress", "prepare [x]", 1, 3))
        bars(Event("end", "prepare [x]", 3, 3, 1.5, "done"))
        bars(Event("note", message="x refuses [y]"))
    said = bars._console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 prepare [x]" in said
    assert "1.5 s  done" in said
    assert "x refuses [y]" in said


# --- published truths ---------------------------------------------------------------------------

NAMES = [arch_string(a) for a in (SMALL.largest(), SMALL.smallest())]


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_published_truths_are_of_distinct_networks(tmp_path: Path) -> None:
    points = [SMALL.sample(np.random.default_rng(i)) for i in range(40)]
    texts = list(dict.fromkeys(map(arch_string, points)))
    first: dict[object, int] = {}
    rows: list[dict[str, object]] = [
        {"index": i, "arch_str": text, "acc": 50 + i,
         "rep_index": first.setdefault(SMALL.canonical(from_arch_string(text)), i)}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    twin = next(
        text
        for text in map(arch_string, SMALL.all())
        if SMALL.canonical(from_arch_string(text)) in first and text not in texts
    )
    of_class = first[SMALL.canonical(from_arch_string(twin))]
    rows.append({"index": 999, "arch_str": twin, "acc": 1, "rep_index": of_class})
    found = published(SMALL, table(tmp_path / "t.csv", rows), key="arch_str", value="acc")
    assert found == {network: 50.0 + i for network, i in first.items()}
    bare = [{k: row[k] for k in ("arch_str", "acc")} for row in rows]
    with pytest.raises(InvalidSetting, match=r"are one network; keep one row of each"):
        published(SMALL, table(tmp_path / "t.csv", bare), key="arch_str", value="acc")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"arch": NAMES[0], "acc": 1}], "no column 'arch_str'"),
        ([{"arch_str": NAMES[0], "accuracy": 1}], "no column 'acc'"),
        ([{"arch_str": NAMES[0], "acc": ""}], "no finite number"),
        ([{"arch_str": NAMES[0], "acc": "nan"}], "no finite number"),
        ([{"arch_str": "|conv~0|", "acc": 1}], "no architecture of the space"),
        ([{"arch_str": NAMES[0], "acc": a} for a in (1, 2)], "line 3 repeats"),
    ],
)
def test_faults_of_a_truth_file_are_named(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        published(SMALL, table(tmp_path / "t.csv", rows), key="arch_str", value="acc")
    with pytest.raises(InvalidSetting, match="cannot read truths"):
        published(SMALL, tmp_path / "none.csv", key="arch_str", value="acc")


def cifar(folder: Path, count: int = 20) -> Path:
    """Write CIFAR-10's binary files with a few random pictures each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        pixels = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        pixels[:, 0] = np.arange(count) % 10
        (folder / name).write_bytes(pixels.tobytes())
    return folder


def test_a_benchmark_needs_no_training_of_truth(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = list(dict.fromkeys(map(SMALL.canonical, SMALL.all())))[::500]
    rows: list[dict[str, object]] = [
        {"arch_str": arch_string(a), "c10_test_200": 60 + i} for i, a in enumerate(networks)
    ]
    truth = str(table(here / "truth.csv", rows))
    folder = str(cifar(here / "cifar"))
    arguments = ["audit", "--benchmark", "nasbench201", "--truth", truth, "--data", folder,
                 "--estimators", "one-shot", "--num", "4", "--budget", "steps=1", "--quiet",
                 "--json", "--set", "space.channels=4", "--set", "space.cells=1",
                 "--set", "task.valid=20", "--out", "b"]  # fmt: skip
    assert run(*arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["table"]["num"] == 4
    assert result["table"]["ceiling"] is None
    assert "truth" not in result["cost_s"]
    assert {value for values in result["truths"].values() for value in values} <= {
        float(row["c10_test_200"])
        for row in rows  # type: ignore[arg-type]
    }
    assert "Nothing was trained for it" in (here / "b" / "report.html").read_text(encoding="utf-8")
