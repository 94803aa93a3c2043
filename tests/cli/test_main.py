"""The command line: what it says of bad input, and that its flags stay what they are."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cyclopts import App
from PIL import Image

from assay.cli import listing
from assay.cli.asked import command_line, default_out, stored
from assay.cli.main import COMMANDS, main
from assay.cli.search import resume, search
from assay.errors import InvalidStudy
from assay.study.store import Study
from assay.train import READY
from assay.zoo import SPACES

NET = """
import torch.nn as nn
from assay import OneOf

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), OneOf(relu=nn.ReLU(), tanh=nn.Tanh()),
            OneOf(conv=nn.Conv2d(4, 4, 3, padding=1), skip=nn.Identity()))
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

class Plain(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)

def sized(width):
    return Net()

NUMBER = 3
"""
TINY = ["--budget", "steps=2,trials=3,epochs=1", "--set", "finalists.compare=false"]


def run(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def photos(folder: Path, count: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(shade, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(NET)
    (tmp_path / "broken.py").write_text("import torch\n\nACT = torch.relu6d\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--task", "digit"], "did you mean 'digits'"),
        (["search", "--space", "mobil"], "did you mean 'mobile'"),
        (["search", "--estimator", "oneshot"], "did you mean 'one-shot'"),
        (["search", "--strategy", "nsga3"], "did you mean 'nsga2'"),
        (["search", "--limit", "latencyms=1"], "did you mean 'latency_ms'"),
        (["search", "--limit", "latency_ms"], "NAME=VALUE"),
        (["search", "--limit", "latency_ms=fast"], "'fast' must be a number or 'median'"),
        (["search", "--limit", "macs=0"], "positive number"),
        (["search", "--set", "estimator.path=fair"], "did you mean 'paths'"),
        (["search", "--set", "estimator.paths=fare"], "did you mean 'fair'"),
        (["search", "--set", "estimater.paths=fair"], "did you mean 'estimator'"),
        (["search", "--set", "paths"], "SECTION.OPTION=VALUE"),
        (
            ["search", "--limit", "macs=9", "--limit", "macs=8"],
            "--limit macs is given twice (9.0 and 8.0); give one",
        ),
        (
            ["search", "--set", "recipe.lr=1", "--set", "recipe.lr=2"],
            "--set recipe.lr is given twice (1 and 2); give one",
        ),
        (["search", "--budget", "-20s"], "budget '-20s' is neither a time nor counts"),
        (["search", "--budget", "steps=3,steps=4"], "steps is given twice (3 and 4); give one"),
        (
            ["search", "--estimator", "low-fidelity", "--set", "estimator.proxy=digit"],
            "did you mean 'digits'",
        ),
        (
            ["search", "--estimator", "predictor", "--set", "estimator.of=oneshot"],
            "estimator.of='oneshot' is no estimator; did you mean 'one-shot'",
        ),
        (
            ["search", "--estimator", "fused", "--set", "estimator.of=one-shot"],
            "estimator.of=OneShot has no steps_each",
        ),
        (
            ["search", "--estimator", "low-fidelity", "--proxy-task", "digit"],
            "did you mean 'digits'",
        ),
        (["search", "--proxy-task", "digits"], "--estimator low-fidelity, not for 'one-shot'"),
        (
            [
                "search",
                "--estimator",
                "low-fidelity",
                "--proxy-task",
                "digits",
                "--set",
                "estimator.proxy=digits",
            ],
            "not both",
        ),
        (["search", "--set", "space.kernel=3"], "did you mean 'kernels'"),
        (["search", "--budget", "soon"], "neither a time nor counts"),
        (["search", "--budget", "steps=0"], "at least 1"),
        (["search", "--train-on", "cdua"], "did you mean 'cuda'"),
        (["search", "--train-on", "cuda:x"], "train_on='cuda:x'; did you mean 'cuda'"),
        (["search", "--train-on", "cpu:foo"], "train_on='cpu:foo'; did you mean 'cpu'"),
        (["search", "--train-on", ""], "train_on=''; there are: auto, cpu, cuda"),
        (["search", "--train-on", "meta"], "train_on='meta'; there are: auto, cpu, cuda"),
        (["search", "--task", "digits", "--data", "x"], "not both"),
        (["search", "--data", "nowhere"], "nowhere"),
        (["search", "--model", "mynet"], "package.module:Class"),
        (["search", "--model", "./mynet.py:Net"], "package.module:Class"),
        (["search", "--model", "mynat:Net"], "cannot be imported"),
        (["search", "--model", "mynet:Nett"], "did you mean 'Net'"),
        (["search", "--model", "broken:Net"], "has no attribute 'relu6d'); mend it (python -c"),
        (["search", "--model", "mynet:Plain"], "no choice"),
        (["search", "--model", "mynet:sized"], "needs no arguments"),
        (["search", "--model", "mynet:NUMBER"], "needs no arguments"),
        (["search", "--data", ".", "--set", "task.sise=9"], "did you mean 'size'"),
        (["search", "--size", "224"], "--size 224 is for the images of --data"),
        (
            ["search", "--data", ".", "--size", "64", "--set", "task.size=16"],
            "the size of images (task.size, --size) is given twice (16 and 64); give one",
        ),
        (
            ["search", "--model", "mynet:Net", "--set", "space.width=9"],
            "--set space.width is for a ready --space, and --model mynet:Net is your own",
        ),
        (["search", "--objective", "-latencyms"], "did you mean 'latency_ms'"),
        (["search", "--objective", "scor"], "did you mean 'score'"),
        (["search", "--objective", "latency_ms"], "write '-latency_ms' for as little"),
        (["search", "--workers", "-1"], "at least 0"),
        (["search", "--bugdet", "1s"], "--bugdet"),
        (["resume", "nowhere"], "holds no study"),
        (["report", "nowhere"], "holds no study"),
        (["show", "nowhere"], "holds no study"),
        (["serach"], "serach"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
    assert not (here / "runs").exists()


def test_a_class_of_ones_own_is_found_in_the_current_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (here / "nearby.py").write_text("class Local:\n    def __init__(self, step=1): ...\n")
    asked = ["search", "--strategy", "nearby:Local", "--set", "strategy.stepp=2"]
    assert run(*asked) == 2
    assert "did you mean 'step'" in capsys.readouterr().err
    (here / "needy.py").write_text("class Local:\n    def __init__(self, step): ...\n")
    assert run("search", "--strategy", "needy:Local") == 2
    assert "missing a required argument: 'step'" in capsys.readouterr().err
    assert run("search", "--strategy", "nearbye:Local") == 2
    assert "install its package, or run this in its folder" in capsys.readouterr().err


def test_a_folder_that_is_no_study_is_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "diary.txt").write_text("dear diary")
    assert run("search", "--out", "notes") == 2
    assert "holds no study" in capsys.readouterr().err
    assert [p.name for p in (here / "notes").iterdir()] == ["diary.txt"]
    (here / "junk").mkdir()
    (here / "junk" / "study.db").write_bytes(b"not a database" * 100)
    assert run("search", "--out", "junk") == 2
    assert run("show", "junk") == 2
    assert [p.name for p in (here / "junk").iterdir()] == ["study.db"]


def test_a_study_of_a_newer_assay_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Study.open(here / "later", identity={"a": 1}).close()
    with sqlite3.connect(here / "later" / "study.db") as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    db.close()
    for command in (["show", "later"], ["search", "--out", "later"], ["resume", "later"]):
        assert run(*command) == 2
        assert "newer Assay" in capsys.readouterr().err


def test_a_broken_picture_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos(here / "photos") / "dark" / "zz.png").write_bytes(b"\x89PNG not really")
    assert run("search", "--model", "mynet:Net", "--data", "photos") == 2
    assert "zz.png" in capsys.readouterr().err
    (here / "photos" / "dark" / "zz.png").unlink()
    (here / "photos" / "empty").mkdir()
    assert run("search", "--model", "mynet:Net", "--data", "photos") == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "name"), [("photos", "photos"), (".", "here"), ("photos/..", "here"), ("link", "link")]
)
def test_a_folder_is_named_after_the_data_whatever_way_leads_there(
    here: Path, monkeypatch: pytest.MonkeyPatch, data: str, name: str
) -> None:
    (here / "here" / "photos").mkdir(parents=True)
    (here / "here" / "link").symlink_to("photos")
    monkeypatch.chdir(here / "here")
    assert default_out({"data": data, "model": "mynet:Net"}) == str(Path("runs") / f"{name}-Net")


@pytest.mark.slow
def test_ones_own_module_and_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(here / "photos")
    own = ["search", "--model", "mynet:Net", "--data", "photos", "--size", "16", *TINY]
    assert run(*own, "--out", "mine", "--json", "--limit", "macs=1e9") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {e["step"] for e in lines if e.get("kind") == "end"} == {
        "supernet", "train", "measure", "search", "score", "finalists",
    }  # fmt: skip
    result = lines[-1]
    assert result["kind"] == "result"
    assert result["winner"]["metrics"]["test_accuracy"] >= 0.0
    assert (here / "mine" / "best" / "model.onnx").is_file()
    assert not (here / "mine" / "best" / "model.py").exists()  # source is for ready spaces

    assert run("show", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["winner"] == result["winner"]
    assert run("report", "mine") == 0
    assert capsys.readouterr().out.strip() == str(Path("mine/report.html"))
    # Nothing in a study is executed: it says the line to type instead.
    assert run("resume", "mine") == 2
    said = capsys.readouterr().err
    assert "--model mynet:Net" in said
    assert "--data photos" in said
    assert run(*own, "--out", "mine", "--quiet", "--limit", "macs=2e9") == 2
    assert "limits.macs is 1000000000.0 there and 2000000000.0 here" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["reinforce", "enas", "darts", "proxyless", "optuna:tpe"])
def test_a_search_that_learns_is_one_word(
    here: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    photos(here / "photos")
    own = [
        "search",
        "--model",
        "mynet:Net",
        "--data",
        "photos",
        "--size",
        "16",
        "--limit",
        "macs=1e9",
    ]
    aim = ["--set", "strategy.quantity=macs"] if strategy == "proxyless" else []
    assert run(*own, *TINY, *aim, "--strategy", strategy, "--out", "mine", "--quiet") == 0
    assert run("show", "mine", "--json") == 0
    assert (
        "test_accuracy" in json.loads(capsys.readouterr().out.splitlines()[-1])["winner"]["metrics"]
    )


@pytest.mark.slow
def test_resume_alone_continues_what_has_names(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--set", "space.kernels=3", "--set", "space.expansions=2,3", "--quiet"]
    assert run("search", *TINY, *small, "--out", "runs/a") == 0
    first = capsys.readouterr().out
    assert run("resume", "runs/a", "--quiet") == 0
    assert capsys.readouterr().out.splitlines()[:8] == first.splitlines()[:8]
    assert (here / "runs" / "a" / "best" / "model.py").is_file()


@pytest.mark.parametrize("taken_over", [True, False])
def test_resume_needs_the_table_that_was_given_until_the_folder_has_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    told: list[dict[str, object]] = []
    kept = {"task": "digits", "table": "elsewhere/table.json"}
    monkeypatch.setattr("assay.cli.search.stored", lambda out: ("search", dict(kept)))
    monkeypatch.setattr("assay.cli.search._run", lambda arguments, shown: told.append(arguments))
    Path("runs/a").mkdir(parents=True)
    if taken_over:
        Path("runs/a/table.json").write_text("{}")
    assert run("resume", "runs/a", "--quiet") == 0
    assert [("table" in arguments) for arguments in told] == [not taken_over]


def test_an_interruption_says_how_to_continue(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("assay.run.face.search", interrupted)
    assert run("search", "--out", "runs/x", "--seed", "7", "--quiet") == 130
    said = capsys.readouterr().err
    assert "stopped. Continue with: assay search" in said
    assert "--seed 7" in said
    assert "--out runs/x" in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"strategy": "subprocess:Popen", "set_": ["strategy.args=touch hacked"]}, "strategy"),
        ({"estimator": "subprocess:Popen", "set_": ["estimator.args=touch hacked"]}, "estimator"),
    ],
)
def test_resume_imports_nothing_that_a_study_names(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], named: str
) -> None:
    given = {"estimator": "one-shot", "strategy": "random", "seed": 0, "train_on": "cpu"}
    asked = {**given, "budget": "steps=1", **arguments}
    settings = {"origin": {"arguments": asked}}
    with Study.open(here / "crafted", identity={"a": 1}, settings=settings):
        pass
    assert run("resume", "crafted") == 2
    said = capsys.readouterr().err
    assert "is never imported" in said
    assert f"--{named} subprocess:Popen" in said
    assert not (here / "hacked").exists()


def test_an_audit_s_rows_are_not_imported_either(here: Path) -> None:
    for asked in ({"estimators": "scratch,os:system"}, {"set_": ["os:system.command=true"]}):
        with Study.open(here / "a", identity={"kind": "audit"}) as study:
            study.put("asked", {"arguments": asked})
        with pytest.raises(InvalidStudy, match="never imported"):
            stored(here / "a")
    with Study.open(here / "b", identity={"kind": "audit"}) as study:
        study.put("asked", {"arguments": {"estimators": "scratch", "set_": ["a.b=c:d"]}})
    assert stored(here / "b")[0] == "audit"


def test_what_is_refused_at_first_can_be_mended_in_the_same_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["search", *TINY, "--set", "space.kernels=3", "--set", "space.expansions=2,3"]
    small += ["--out", "again", "--quiet", "--objective", "score", "--objective", "-macs"]
    assert run(*small, "--limit", "latency_ms=1e-9") == 2
    assert "raise the limit" in capsys.readouterr().err
    assert not (here / "again").exists()
    assert run(*small, "--limit", "latency_ms=50") == 0
    assert "limits       latency_ms <= 50" in capsys.readouterr().out


def test_the_command_to_type_again_is_read_as_it_was_meant(here: Path) -> None:
    given = {"objective": ["score", "-latency_ms"], "limit": ["macs=1e6"], "seed": 3}
    words = shlex.split(command_line("search", given))
    app = App()
    app.command(search, name="search")
    _, bound, _ = app.parse_args(words[1:])
    assert bound.arguments["objective"] == given["objective"]
    assert bound.arguments["seed"] == 3


def test_a_folder_that_cannot_be_written_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "runs/x/report.html")

    monkeypatch.setattr("assay.cli.audited.is_audit", denied)
    assert run("report", "runs/x") == 2
    assert "Permission denied: 'runs/x/report.html'" in capsys.readouterr().err


def test_a_full_gpu_is_one_line_with_what_to_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.0 GiB. "
        "See documentation for Memory Management."
    )

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr("assay.cli.audited.is_audit", full)
    assert run("report", "runs/x") == 2
    assert capsys.readouterr().err == (
        "assay: CUDA out of memory. Tried to allocate 2.00 GiB; lower recipe.batch_size or "
        "estimator.batch by --set, in a new folder\n"
    )


def test_an_error_that_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of the user's code")

    monkeypatch.setattr("assay.cli.audited.is_audit", broken)
    with pytest.raises(RuntimeError, match="of the user's code"):
        run("report", "runs/x")


def test_a_report_that_cannot_be_written_says_which_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", ".report.html.77.part")

    monkeypatch.setattr("assay.report.html.write_report", denied)
    Study.open(here / "mine", identity={"a": 1}).close()
    assert run("report", "mine") == 2
    assert capsys.readouterr().err == "assay: mine cannot be written; change its permissions\n"


def test_the_flags_are_frozen() -> None:
    assert list(COMMANDS) == [
        "search", "audit", "resume", "report", "show", "spaces", "tasks", "options", "doctor",
    ]  # fmt: skip
    assert list(inspect.signature(search).parameters) == [
        "task", "space", "model", "data", "size", "estimator", "strategy", "limit", "objective",
        "budget", "out", "seed", "train_on", "workers", "proxy_task", "table",
        "set_", "json", "quiet",
    ]  # fmt: skip
    assert list(inspect.signature(resume).parameters) == ["out", "json", "quiet"]


def test_the_lists_tell_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("spaces") == 0
    assert run("tasks") == 0
    shown = capsys.readouterr().out
    for name in [*SPACES, *READY]:
        assert name in shown
    assert set(listing._TASKS) == set(READY)
    assert set(listing._SPACES) == set(SPACES)


def test_doctor_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready"
    assert run("--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_doctor_gives_its_verdict_without_a_package(package: str) -> None:
    without = f"""
import sys
from importlib import metadata
sys.modules[{package!r}], version = None, metadata.version
def of(name):
    if name == {package!r}:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = of
from assay.cli.main import main
main(["doctor"])
"""
    told = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=False
    )
    assert told.stderr == ""
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert f"missing  {package:16} pip install {package}" in lines
    cuda = next(line for line in lines if " cuda " in line)
    assert cuda.startswith("unknown ")
    assert cuda.count(package) == 1
    assert lines[-1] == "not ready: install what is missing"


def test_a_reader_who_has_seen_enough_gets_no_traceback() -> None:
    """As `assay show --json | head` does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        told = subprocess.run(
            [sys.executable, "-c", "from assay.cli.main import main; main()", "tasks"],
            stdout=nobody, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert told.returncode == 141
    assert told.stderr == ""


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_give_way_soon_unless_the_user_says_otherwise(
    said: dict[str, str], spins: str | None
) -> None:
    """OpenMP reads it when torch is loaded, so torch may not be there before."""
    known = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = (
        "import os, sys, assay.cli.main as command\n"
        "assert 'torch' not in sys.modules\n"
        "command._version = lambda: print(os.environ.get('GOMP_SPINCOUNT'))\n"
        "command.main(['--version'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**known, **said}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(spins), done.stderr
