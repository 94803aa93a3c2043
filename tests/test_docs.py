"""What the documents show is true: their Python runs, their links and make targets exist.

In README.md, CONTRIBUTING.md and docs/*.md a fence says what becomes of it:

- `python`: runs; the blocks of a document share their names, in order.
- `pycon`: runs as a doctest among them; `...` in the expected output stands for anything.
- `python sketch`: does not run, for what needs a user's own files or more time than a test has.
- `python file=PATH`, `python add=PATH`, `python entry=PATH:NAME`: what CONTRIBUTING.md adds to the
  source; test_contributing.py adds it to a copy.
"""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import house

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    p
    for p in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
    if p.exists()
]
WITH_EXAMPLES = [n for n, m in house.modules(ROOT / "src").items() if ">>> " in m.path.read_text()]
KINDS = {"python", "python sketch", "python file", "python add", "python entry", "pycon"}
DOCTEST = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Fence(NamedTuple):
    """A code block of a document."""

    info: str
    line: int
    code: str


def fences(text: str) -> Iterator[Fence]:
    """Yield the fenced blocks of a Markdown text, with the line their code begins on."""
    for match in re.finditer(r"^```([^\n`]*)\n(.*?)^```[ ]*$", text, re.MULTILINE | re.DOTALL):
        yield Fence(match[1].strip(), text[: match.start(2)].count("\n") + 1, match[2])


def run(name: str, text: str) -> None:
    """Run the blocks of a document; an error points at the document's own line."""
    names: dict[str, Any] = {"__name__": f"document {name}"}
    for fence in fences(text):
        if fence.info == "python":
            code = "\n" * (fence.line - 1) + fence.code
            exec(compile(code, name, "exec"), names)
        elif fence.info == "pycon":
            parsed = doctest.DocTestParser().get_doctest(
                fence.code, names, f"{name}:{fence.line}", name, fence.line - 1
            )
            parsed.globs = names  # not a copy: later blocks see what this one defines
            said: list[str] = []
            runner = doctest.DocTestRunner(optionflags=DOCTEST)
            runner.run(parsed, out=said.append, clear_globs=False)
            if runner.failures:
                pytest.fail("".join(said), pytrace=False)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_python_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(str(path.relative_to(ROOT)), path.read_text())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_python_block_says_what_becomes_of_it(path):
    infos = [f.info for f in fences(path.read_text()) if f.info.startswith(("py", "Py"))]
    assert [info for info in infos if info.partition("=")[0] not in KINDS] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path):
    links = re.findall(
        r"\]\(([^)#\s]+)", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    )
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


def anchors(text: str) -> set[str]:
    """Return how the headings of a Markdown text are linked to."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_a_heading_lead_to_one(path):
    links = re.findall(r"\]\(([^)\s]*\.md)?#([^)\s]+)\)", path.read_text())
    told = [(path.parent / file if file else path, anchor) for file, anchor in links]
    lost = [(p.name, anchor) for p, anchor in told if anchor not in anchors(p.read_text())]
    assert lost == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_exist(path):
    targets = re.findall(r"^([\w%-]+(?: [\w-]+)*):(?!=)", (ROOT / "Makefile").read_text(), re.M)
    known = {name for line in targets for name in line.split()}
    named = re.findall(r"(?:`|^|&& )make ([a-z][\w-]*)", path.read_text(), re.M)
    benches = {f"bench-{p.stem}" for p in ROOT.glob("bench/[a-z]*.py")} | {"bench-NAME"}
    assert [name for name in named if name not in known | benches] == []


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=DOCTEST)
    assert result.attempted > 0
    assert result.failed == 0


# --- the checks can fail ------------------------------------------------------------------------


SHARED = """
```python
a = 1
```
```python sketch
a = 2
```
```pycon
>>> a
1
>>> b = 3
```
```python
assert (a, b) == (1, 3)
```
"""


def test_blocks_share_names_and_sketches_do_not_run():
    assert [f.line for f in fences(SHARED)] == [3, 6, 9, 14]
    run("x.md", SHARED)
    awake = SHARED.replace("python sketch", "python")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)Expected:\n    1\nGot:\n    2"):
        run("x.md", awake)


def test_an_error_points_at_its_line():
    with pytest.raises(ZeroDivisionError) as caught:
        run("x.md", "# Title\n\n```python\nok = 1\n1 / 0\n```\n")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("x.md", 5)


def test_a_wrong_output_is_found():
    with pytest.raises(pytest.fail.Exception, match=r"(?s)Expected:\n    3\nGot:\n    2"):
        run("x.md", "```pycon\n>>> 1 + 1\n3\n```\n")
