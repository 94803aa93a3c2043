"""CONTRIBUTING.md worked through: what it says to add is added to a copy, which then passes.

Beside the fences of test_docs.py it uses `python add=PATH` (a line that ends a test file) and
`python entry=PATH:NAME` (an entry of the dict NAME in a module).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house
from tests.test_docs import Fence, fences
from tests.test_house import BY_NAME

ROOT = Path(__file__).parents[1]
FENCES = [f for f in fences((ROOT / "CONTRIBUTING.md").read_text()) if "=" in f.info]


def parts(fence: Fence) -> tuple[str, str]:
    """Split `python file=PATH` into the kind of change and where it goes."""
    kind, _, where = fence.info.removeprefix("python ").partition("=")
    return kind, where


def apply(root: Path, fence: Fence) -> None:
    """Make the change that a fence shows."""
    kind, where = parts(fence)
    path = root / where.partition(":")[0]
    if kind == "file":
        assert not path.exists(), f"{where} is there already"
        path.write_text(fence.code)
    elif kind == "add":
        path.write_text(f"{path.read_text()}\n\n{fence.code}")
    else:
        assert kind == "entry", fence.info
        name = where.partition(":")[2]
        opening = re.compile(rf"^{name}\b[^=\n]*= \{{\n", re.MULTILINE)
        text, times = opening.subn(lambda m: f"{m[0]}    {fence.code.strip()}\n", path.read_text())
        assert times == 1, f"{where} is no dict that opens once"
        path.write_text(text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source and the contract tests, and add all that CONTRIBUTING.md adds."""
    root = tmp_path_factory.mktemp("contributed")
    unwanted = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", root)
    for fence in FENCES:
        apply(root, fence)
    return root


def shell(root: Path, *command: str) -> str:
    """Run Python in the copy, which stands in front of the installed package; return its output."""
    env = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_example_costs_one_file_one_line_and_one_entry():
    assert [parts(f)[0] for f in FENCES] == ["file", "add", "entry"] * 3
    short = [len(f.code.strip().splitlines()) for f in FENCES if parts(f)[0] == "entry"]
    assert short == [1, 1, 1]


@pytest.mark.parametrize("rule", BY_NAME)
def test_the_house_with_the_examples_keeps_the_rule(rule, copy):
    assert BY_NAME[rule](copy / "src") == []


def test_the_examples_pass_lint(copy):
    files = [parts(f)[1] for f in FENCES if parts(f)[0] != "entry"]
    shell(copy, "-m", "ruff", "check", *files)
    shell(copy, "-m", "ruff", "format", "--check", *files)


def test_the_examples_pass_their_contract_suites(copy):
    added = [f for f in FENCES if parts(f)[0] == "add"]
    files = [parts(f)[1] for f in added]
    names = [re.findall(r"^class (\w+)", f.code, re.MULTILINE)[0] for f in added]
    out = shell(copy, "-m", "pytest", "-p", "no:cacheprovider", *files, "-k", " or ".join(names))
    assert re.search(r"^\d+ passed", out, re.MULTILINE), out


def test_the_examples_are_found_by_name(copy):
    for fence in FENCES:
        if parts(fence)[0] == "entry":
            module, _, attribute = fence.code.split('"')[3].partition(":")
            assert module in house.modules(copy / "src")
            shell(copy, "-c", f"from {module} import {attribute}; assert callable({attribute})")
