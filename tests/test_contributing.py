"""CONTRIBUTING.md worked through: what it says to add is added to a copy, which then passes.

`python file=PATH` shows a whole file, `python add=PATH` what a test file gains at its end, and
`python entry=PATH:NAME` an entry of the dict NAME in a module.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
        opening = re.compile(rf"^{where.partition(':')[2]}\b[^=\n]*= \{{", re.MULTILINE)
        text, times = opening.subn(lambda m: f"{m[0]}\n    {fence.code.strip()}", path.read_text())
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
    chosen = " or ".join([*names, "hooked_to_its_suite"])
    files.append("tests/contracts/test_names.py")
    out = shell(copy, "-m", "pytest", "-p", "no:cacheprovider", *files, "-k", chosen)
    assert re.search(r"^\d+ passed", out, re.MULTILINE), out


USED = """
from assay.run.names import ESTIMATORS, STRATEGIES, resolve
from assay.train.ready import load_task
from assay.zoo import load_space

print(resolve("strategy", STRATEGIES, "local-search", {"jump": "0.2"}))
print(resolve("estimator", ESTIMATORS, "num-params"))
print(load_space("chain", load_task("digits"), blocks="2").size)
"""


def test_the_examples_are_found_by_their_names(copy):
    assert shell(copy, "-c", USED).splitlines() == [
        "LocalSearch(start=10, jump=0.2)",
        "NumParams()",
        "27",
    ]
