"""An audit on the screen: names and paths as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.cli.audited import print_audit
from assay.study.store import Study
from tests.report.fake_audit import audited

# What rich would read as markup, and longer than a line of a terminal.
ODD = f"my[lr]run [/closed] {'deep' * 20}"


def test_paths_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / ODD
    with Study.open(out, identity={"kind": "audit"}) as study:
        print_audit(out)
        first, further = capsys.readouterr().out.splitlines()
        assert first == f"the audit in {out} has not finished"
        assert f"call it again with out={str(out)!r} and the same arguments" in further
        study.put("audit", audited().documents["audit"])
    print_audit(out)
    assert capsys.readouterr().out.splitlines()[-1] == f"report       {out / 'report.html'}"


def test_a_row_is_called_as_the_user_called_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dict(audited().documents["audit"])
    table = json.loads(found["table"])
    table["rows"][0]["estimator"] = "lr[/1]"
    with Study.open(tmp_path / "a", identity={"kind": "audit"}) as study:
        study.put("audit", {**found, "table": json.dumps(table)})
    print_audit(tmp_path / "a")
    assert "lr[/1]" in capsys.readouterr().out
