"""A new folder, the same search again, or a refusal that says why and leaves all as it was."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.errors import InvalidSetting, InvalidStudy
from assay.study import schema
from assay.study.store import Study

IDENTITY = {"space": "9f31", "seed": 0, "limits": {"latency_ms": 0.5}, "objectives": ("a", "b")}


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def began(out: Path, **more) -> Path:
    with Study.open(out, identity=IDENTITY, settings={"say": "it"}, **more) as study:
        study.put("kept", 1)
    return out


def test_the_same_search_goes_on_with_the_settings_of_its_beginning(tmp_path):
    out = began(tmp_path / "deep" / "er")
    with Study.open(out, identity=dict(reversed(IDENTITY.items())), settings={"say": "more"}) as s:
        assert s.get("kept") == 1
        assert s.identity == json.loads(json.dumps(IDENTITY))
        assert s.settings == {"say": "it"}


def test_a_folder_with_strange_signs_in_its_name(tmp_path):
    out = began(tmp_path / "50% off? #1 & ü;")
    assert (out / "study.db").is_file()
    with Study.read(out) as study:
        assert study.get("kept") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"limits": {"latency_ms": 0.7}}, "limits.latency_ms is 0.5 there and 0.7 here"),
        (
            {"limits": {"macs": 9}},
            "limits.latency_ms is 0.5 there and None here; limits.macs is None there and 9 here",
        ),
        ({"objectives": ["a"]}, "objectives is ['a', 'b'] there and ['a'] here"),
        (
            {"space": "77", "seed": 2},
            "seed is 0 there and 2 here; the model, or its code, is another; give",
        ),
        ({"task": "77"}, "search: the task (its data, loss, metrics or augmentation) is another;"),
    ],
)
def test_another_search_is_refused_with_the_difference(change, said, tmp_path):
    out = began(tmp_path / "s")
    before = names(out)
    with pytest.raises(InvalidStudy) as caught:
        Study.open(out, identity={**IDENTITY, **change})
    assert said in str(caught.value)
    assert str(caught.value).endswith("give another folder, or the same settings to continue")
    assert "\n" not in str(caught.value)
    assert names(out) == before
    began(out)  # it was given back, too


def test_an_audit_is_no_search(tmp_path):
    out, audit = began(tmp_path / "s"), {"kind": "audit", "seed": 1, "published": False}
    with pytest.raises(InvalidStudy) as caught:
        Study.open(out, identity=audit)
    assert str(caught.value) == f"{out} holds a search, not an audit; give another folder"
    Study.open(tmp_path / "a", identity=audit).close()
    with pytest.raises(InvalidStudy, match=r"a holds an audit, not a search; give another folder"):
        Study.open(tmp_path / "a", identity=IDENTITY)
    with pytest.raises(InvalidStudy, match="belongs to another audit: seed is 1 there and 2 here"):
        Study.open(tmp_path / "a", identity={**audit, "seed": 2})


def test_of_many_differences_some_are_shown(tmp_path):
    Study.open(tmp_path / "s", identity={str(i): i for i in range(9)}).close()
    with pytest.raises(InvalidStudy, match=r"6 is 6 there and -6 here; and 3 more; give another"):
        Study.open(tmp_path / "s", identity={str(i): i if i == 0 else -i for i in range(10)})


# --- junk -----------------------------------------------------------------------------------------


def refused(out: Path, error: type[Exception], said: str, **more) -> None:
    folder = out if out.is_dir() else out.parent
    before = {n: (folder / n).read_bytes() for n in names(folder) if (folder / n).is_file()}
    with pytest.raises(error) as caught:
        Study.open(out, identity=IDENTITY, **more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {n: (folder / n).read_bytes() for n in names(folder) if (folder / n).is_file()}
    assert after == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "s").write_text("x")
    refused(tmp_path / "s", InvalidStudy, "is a file; give a folder for the study")
    refused(tmp_path / "s" / "t", InvalidSetting, "cannot be made (Not a directory)")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "photo.png").write_text("x")
    refused(tmp_path, InvalidStudy, "is not empty and holds no study; give a new folder")
    assert names(tmp_path) == {"photo.png"}


@pytest.mark.parametrize("content", [b"junk" * 999, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_database(content, tmp_path):
    (tmp_path / "study.db").write_bytes(content)
    refused(tmp_path, InvalidStudy, "is no readable study")
    with pytest.raises(InvalidStudy, match="is no readable study"):
        Study.read(tmp_path)


@pytest.mark.parametrize(
    "tables",
    [
        ["CREATE TABLE users (id INT)"],
        ["CREATE TABLE trials (id INT)"],
        ["CREATE TABLE meta (id INT)"],
        ["CREATE TABLE meta (key TEXT, value TEXT)", "INSERT INTO meta VALUES ('a', '1')"],
        ["CREATE TABLE meta (key TEXT, value TEXT)", "INSERT INTO meta VALUES ('a', 'x y')"],
    ],
)
def test_a_database_of_something_else(tables, tmp_path):
    database = sqlite3.connect(tmp_path / "study.db")
    for statement in tables:
        database.execute(statement)
    database.commit()
    database.close()
    with pytest.raises(InvalidStudy, match=r"is a database of something else|is no readable study"):
        Study.open(tmp_path, identity=IDENTITY)
    assert not {"phases", "costs"} & tables_of(tmp_path)


def tables_of(out: Path) -> set[str]:
    database = sqlite3.connect(out / "study.db")
    found = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    return found


def test_a_newer_schema(tmp_path):
    out = began(tmp_path / "s")
    with Study.open(out, identity=IDENTITY) as study, study._engine.begin() as connection:
        newer = update(schema.meta).where(schema.meta.c.key == "schema").values(value="2")
        connection.execute(newer)
    said = "was written by a newer Assay (schema 2, this one reads 1); upgrade Assay"
    refused(out, InvalidStudy, said)
    with pytest.raises(InvalidStudy, match="newer Assay"):
        Study.read(out)


def test_a_broken_row_is_no_readable_study(tmp_path):
    out = began(tmp_path / "s")
    whole = (out / "study.db").read_bytes()
    (out / "study.db").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(InvalidStudy, match=r"is no readable study|cannot be read"):
        Study.read(out).trials()


def test_a_beginning_that_breaks_off_leaves_no_tables(tmp_path, monkeypatch):
    def broken(table):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("assay.study.opening.insert", broken)
        with pytest.raises(ZeroDivisionError):
            Study.open(tmp_path / "s", identity=IDENTITY)
    assert tables_of(tmp_path / "s") == set()
    began(tmp_path / "s")


# --- in use ---------------------------------------------------------------------------------------


def test_a_study_in_use_is_refused_but_can_be_read(tmp_path):
    with Study.open(tmp_path / "s", identity=IDENTITY) as study:
        with pytest.raises(InvalidStudy, match="is in use by another process; wait for it"):
            Study.open(tmp_path / "s", identity=IDENTITY)
        study.put("a", 1)
        with Study.read(tmp_path / "s") as reader:
            assert reader.get("a") == 1
            study.put("a", 2)
            assert reader.get("a") == 2
    began(tmp_path / "s")


def test_a_reader_cannot_write(tmp_path):
    with Study.read(began(tmp_path / "s")) as study:
        with pytest.raises(Exception, match="readonly database"):
            study.put("a", 1)
        assert study.get("a") is None


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_there_is_nothing_to_read(folder, tmp_path):
    with pytest.raises(InvalidStudy, match="holds no study; give the folder that a search wrote"):
        Study.read(tmp_path / folder)
    assert names(tmp_path) == set()


def test_an_empty_file_is_an_empty_study(tmp_path):
    (tmp_path / "study.db").touch()
    with pytest.raises(InvalidStudy, match="holds an empty study; run the search again"):
        Study.read(tmp_path)
    began(tmp_path)


# --- read-only ------------------------------------------------------------------------------------

AS_NOBODY = """
import os, sys
import sqlalchemy.dialects.sqlite
from assay.errors import AssayError
from assay.study.store import Study
Study.open(None, identity={}).close()  # everything is loaded while it may be
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
out = sys.argv[1]
try:
    if sys.argv[2] == "open":
        Study.open(out, identity={}).close()
    else:
        with Study.read(out) as study:
            print("read", study.get("kept"), len(study.trials()))
except AssayError as error:
    print(type(error).__name__, error)
"""


def as_nobody(out: Path, verb: str) -> str:
    """Open or read a study as a user who may not write there; root may write anywhere."""
    command = [sys.executable, "-c", AS_NOBODY, str(out), verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def read_only():
    """A study in a folder that others may read and nobody may write."""
    place = Path(tempfile.mkdtemp())  # pytest's own are closed to others
    place.chmod(0o755)
    out = began(place / "s")
    for path in out.iterdir():
        path.chmod(0o444)
    out.chmod(0o555)
    yield out
    out.chmod(0o755)
    shutil.rmtree(place)


def test_a_read_only_study_can_be_read_and_no_more(read_only):
    assert as_nobody(read_only, "read") == "read 1 0"
    assert as_nobody(read_only, "open") == (
        f"InvalidSetting {read_only} cannot be written; change its permissions or give another "
        "folder"
    )
    assert as_nobody(read_only / "new", "open").startswith(
        f"InvalidSetting {read_only}/new cannot be made (Permission denied)"
    )
    assert names(read_only) <= {"study.db", "lock"}


def test_a_read_only_database_in_a_folder_that_is_not(tmp_path, monkeypatch):
    out = began(tmp_path / "s")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, m: Path(p).name != "study.db" and allowed(p, m))
    refused(out, InvalidSetting, "study.db cannot be written; change its permissions")


# --- another database -----------------------------------------------------------------------------


def test_a_study_by_url_goes_on_in_its_folder(tmp_path):
    url, out = f"sqlite:///{tmp_path}/other.db", tmp_path / "s"
    began(out, url=url)
    (out / "weights").mkdir()
    assert not (out / "study.db").exists()
    with Study.open(out, identity=IDENTITY, url=url) as study:
        assert study.get("kept") == 1
    with Study.read(out, url=url) as study:
        assert study.get("kept") == 1
    with pytest.raises(InvalidStudy, match=r"other\.db belongs to another search: seed is 0 there"):
        Study.open(out, identity={**IDENTITY, "seed": 9}, url=url)
    strange = f"sqlite:///{tmp_path}/new.db"
    with pytest.raises(InvalidStudy, match="is not empty and holds no study"):
        Study.open(out, identity=IDENTITY, url=strange)
    with pytest.raises(InvalidStudy, match="belongs to another search"):
        Study.open(tmp_path / "t", identity={**IDENTITY, "seed": 9}, url=url)
    assert not (tmp_path / "t").exists()


def test_the_folder_of_another_study_is_not_taken_for_one_elsewhere(tmp_path):
    out = began(tmp_path / "s")
    elsewhere = f"sqlite:///{tmp_path}/new.db"
    refused(out, InvalidStudy, f"holds no study of {elsewhere}; give a new folder", url=elsewhere)


@pytest.mark.parametrize("url", ["nonsense", "nodialect://x/y", "mysql+nodriver://x/y"])
def test_a_url_that_cannot_be_used_makes_no_folder(url, tmp_path):
    with pytest.raises(InvalidSetting, match="the study's URL cannot be used"):
        Study.open(tmp_path / "s", identity=IDENTITY, url=url)
    assert names(tmp_path) == set()


def test_a_password_is_not_shown(tmp_path):
    from assay.study.opening import place

    assert place(tmp_path, "postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_nothing_in_a_study_is_executed(tmp_path):
    """What text columns hold is read as JSON, whatever it looks like."""
    out = began(tmp_path / "s")
    with Study.open(out, identity=IDENTITY) as study:
        study.record(Trial(0, Architecture({"a": "__import__('os').abort()"})))
        with study._engine.begin() as connection:
            row = {"key": "evil", "value": "__import__('os').abort()"}
            connection.execute(insert(schema.documents), row)
        assert study.trials()[0].architecture["a"] == "__import__('os').abort()"
        with pytest.raises(json.JSONDecodeError):
            study.get("evil")


def test_a_study_elsewhere_is_that_of_one_folder(tmp_path):
    url = f"sqlite:///{tmp_path}/other.db"
    out = began(tmp_path / "s", url=url)
    before = names(tmp_path)
    with pytest.raises(InvalidStudy, match=f"is the study of the folder {out}; give that one"):
        Study.open(tmp_path / "t", identity=IDENTITY, url=url)
    assert names(tmp_path) == before
    moved = out.rename(tmp_path / "moved")
    with Study.open(moved, identity=IDENTITY, url=url) as study:
        assert study.get("kept") == 1


def test_a_database_that_could_not_keep_it_is_refused(monkeypatch, tmp_path):
    from assay.study import opening

    monkeypatch.setattr(opening, "_DATABASES", ("postgresql",))
    with pytest.raises(InvalidSetting, match="URL is of a sqlite database; there are: postgresql"):
        Study.open(tmp_path / "s", identity=IDENTITY, url=f"sqlite:///{tmp_path}/other.db")
    assert names(tmp_path) == set()
