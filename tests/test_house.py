"""The house as it stands keeps its rules, and each rule can fail."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import assay
from tests import house, house_docs

ROOT = Path(__file__).parents[1]
RULES: list[Callable[[Path], list[str]]] = [
    house.arrows,
    house.cycles,
    house.torch_imports,
    house.unsafe,
    house.sizes,
    house.vague_names,
    house.work_at_import,
    house.swallowed,
    house.shadows,
    house_docs.missing_all,
    house_docs.undocumented,
    house_docs.undescribed,
    house_docs.shapeless,
    house_docs.unitless,
    house_docs.unsourced,
]
BY_NAME = {rule.__name__: rule for rule in RULES}


@pytest.mark.parametrize("rule", BY_NAME)
def test_the_house_keeps_the_rule(rule):
    assert BY_NAME[rule](ROOT / "src") == []


# --- each rule can fail -------------------------------------------------------------------------

FACE = '''"""The face."""
if TYPE_CHECKING:
    from assay.run.a import Net, search
__all__ = ["Net", "search"]
'''


def tree(folder: Path, files: dict[str, str]) -> Path:
    """Write a small `assay/` and return the folder that holds it."""
    for name, text in {"__init__.py": FACE, **files}.items():
        path = folder / "assay" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def faults() -> list[tuple[str, str, dict[str, str]]]:
    """Read house_faults.txt: the rule, what it must say, and the files."""
    text = (ROOT / "tests/house_faults.txt").read_text()
    cases = []
    for case in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *files = re.split(r"^-- ", case, flags=re.MULTILINE)
        rule, _, said = head.strip().partition(" | ")
        named = (file.partition("\n") for file in files)
        cases.append((rule, said, {name: body.strip("\n") for name, _, body in named}))
    return cases


@pytest.mark.parametrize(
    ("rule", "said", "files"), [pytest.param(*case, id=case[0]) for case in faults()]
)
def test_the_rule_finds(rule, said, files, tmp_path):
    found = BY_NAME[rule](tree(tmp_path, files))
    assert len(found) == 1, found
    assert said in found[0]


def test_the_rule_finds_a_long_file(tmp_path):
    lines = {"run/long.py": "\n" * 401, "run/fits.py": "\n" * 400}
    assert house.sizes(tree(tmp_path, lines)) == [
        "assay/run/long.py:1 has 401 lines; the ceiling is 400"
    ]


def test_each_rule_is_seen_to_fail():
    assert {rule for rule, _, _ in faults()} == set(BY_NAME) - {"sizes"}


GOOD = '''"""A module that keeps every rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay import errors

if TYPE_CHECKING:
    import torch

    from assay.run.loop import Loop

__all__ = ["KNOWN", "Net", "search"]

KNOWN = ("a", "b")
"""What is known."""


def search(space: Loop, x: torch.Tensor, *, seed: int = 0) -> float:
    """Search.

    Args:
        space: Where.
        x: Example `[N, C]`.
        seed: Of all draws.
    Raises:
        AssayError: always.
    """
    raise errors.AssayError(space)


class Net:
    """A net.

    Args:
        latency_ms: Milliseconds.
    Source: nobody, 2020, section 1.
    """

    def __init__(self, latency_ms: float) -> None:
        self.latency_ms = latency_ms

    def again(self) -> None:
        """Hand on what another raised."""
        try:
            search(self)
        except Exception:
            self.latency_ms = 0
            raise

    def _own(self):
        raise ValueError
'''


@pytest.mark.parametrize("rule", BY_NAME)
def test_the_rule_lets_pass(rule, tmp_path):
    errors = '"""The tree."""\n__all__ = []\n'
    assert BY_NAME[rule](tree(tmp_path, {"strategies/good.py": GOOD, "errors.py": errors})) == []


# --- what loading does --------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the top-level packages it has loaded."""
    report = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def everything_in(room: str) -> str:
    """Return the imports of all modules of a room but those that learn, which need torch."""
    names = [
        name
        for name, m in house.modules(ROOT / "src").items()
        if m.room == room and not name.startswith("assay.strategies.learned")
    ]
    return "\n".join(f"import {name}" for name in names)


LISTS = [("listing", "tasks"), ("listing", "spaces"), ("options", "options")]


def test_the_check_sees_torch():
    assert "torch" in loaded_by("import assay; assay.Width; assay.OneOf")


@pytest.mark.parametrize(
    "code",
    [
        "import assay; dir(assay); assay.__version__; assay.errors; assay.Architecture; assay.Cost",
        "import assay.contracts, assay.pareto",
        *(everything_in(room) for room in house.TORCH_FREE),
        "import assay; assay.Evolution(); assay.NSGA2(); assay.Random(); assay.Study",
        "import sys; from assay.cli.main import main\n"
        "sys.argv = ['assay', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code",
        *(f"from assay.cli.{file} import {name}; {name}()" for file, name in LISTS),
    ],
    ids=[
        *("face", "contracts", *house.TORCH_FREE, "strategies through the face", "help"),
        *(name for _, name in LISTS),
    ],
)
def test_no_torch_where_none_belongs(code):
    assert not loaded_by(code) & {"torch", "onnxruntime", "sklearn"}


def test_importing_every_module_shadows_no_public_name():
    for name in house.modules(ROOT / "src"):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    for name in assay.__all__:
        value = getattr(assay, name)
        if name == "errors":
            assert value is sys.modules["assay.errors"]
            continue
        home = importlib.import_module(assay._HOME[name])
        assert value is vars(home)[name]
        assert value.__name__ == name
        is_one = inspect.isfunction if name in ("audit", "search") else inspect.isclass
        assert is_one(value), name
        assert value.__module__ == home.__name__, f"{name} is defined in {value.__module__}"


def test_the_face_lists_what_it_has():
    assert set(assay.__all__) == {*assay._HOME, "errors"}
    assert set(assay.__all__) <= set(dir(assay))
    assert len(assay.__all__) == len(set(assay.__all__))
    with pytest.raises(AttributeError, match="'assay' has no attribute 'Serach'"):
        _ = assay.Serach


def test_a_type_checker_sees_the_same_face():
    source = (ROOT / "src/assay/__init__.py").read_text()
    for name, home in assay._HOME.items():
        (names,) = re.findall(rf"^    from {re.escape(home)} import (.+)$", source, re.MULTILINE)
        assert name in names.split(", ")
