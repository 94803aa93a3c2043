"""The result of a study on the screen: its paths as they are, its figures by their split."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.cli.show import print_result
from assay.study.store import Study
from tests.report.fake_study import finished, untested


def kept(out: Path, documents: dict[str, object]) -> Path:
    with Study.open(out, identity={"a": 1}) as study:
        for key, value in documents.items():
            study.put(key, value)
    return out


# What rich would read as markup, and longer than a line of a terminal.
ODD = f"my[lr]run [/closed] {'deep' * 20}"


def test_the_paths_of_a_result_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = kept(tmp_path / ODD, dict(finished(60).documents))
    print_result(out)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"network      {out / 'best'}",
        f"report       {out / 'report.html'}",
    ]


def test_the_paths_of_an_unfinished_study_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = kept(tmp_path / ODD, {})
    print_result(out)
    first, further = capsys.readouterr().out.splitlines()
    assert first == f"{out} has not finished: no trial yet"
    assert f"call it again with out={str(out)!r} and the same arguments" in further


def test_without_a_test_split_validation_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_result(kept(tmp_path / "untested", dict(untested().documents)))
    said = capsys.readouterr().out
    assert "validation accuracy" in said
    assert "0.9700" in said
    assert "test" not in said.partition("limits")[0]
    print_result(kept(tmp_path / "tested", dict(finished(60).documents)))
    said = capsys.readouterr().out
    assert "test accuracy" in said
    assert "validation" not in said


def test_limits_are_written_out_and_what_is_over_one_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    documents = dict(finished(60).documents)
    limits = {"latency_ms": 0.42, "macs": 4_234_567}
    print_result(kept(tmp_path / "one", {**documents, "limits": limits}))
    said = capsys.readouterr().out
    assert "limits       latency_ms <= 0.42, macs <= 4,234,567\n" in said
    assert said.count("(over the limit)") == 1
    assert "largest (over the limit)" in said


def test_the_line_of_costs_is_not_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    documents = dict(finished(60).documents)
    print_result(kept(tmp_path / "one", documents))
    assert f"{documents['saving']['formula']}\n" in capsys.readouterr().out
