"""The report can be drawn at every moment of a search and of an audit, and says that they go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.run import live, preparing
from assay.run.audit import audit
from assay.run.events import Event
from assay.testing import tiny_space, tiny_task
from assay.train.recipe import Recipe
from tests.e2e import tiny_learned


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw after every event, and save after every step."""
    monkeypatch.setattr(live, "_SOONEST_S", 0.0)
    monkeypatch.setattr(live, "_SHARE", float("inf"))
    monkeypatch.setattr(preparing, "_SAVE_EVERY_S", 0.0)


def followed(path: Path) -> tuple[list[str], list[str], Callable[[Event], None]]:
    """Return the pages seen before each event, what was noted, and the listener that sees them."""
    pages: list[str] = []
    notes: list[str] = []

    def listener(event: Event) -> None:
        if path.exists():
            pages.append(path.read_text(encoding="utf-8").replace("\xa0", " "))
        if event.kind == "note":
            notes.append(event.message)

    return pages, notes, listener


def test_a_search_that_learns_is_shown_while_it_does(table: Path, tmp_path: Path) -> None:
    pages, notes, listener = followed(tmp_path / "report.html")
    budget = "steps=12,trials=4,epochs=1"
    tiny_learned.run("proxyless", tmp_path, table, budget=budget, on_event=listener)
    assert not [note for note in notes if "drawn" in note]
    assert all("under way at" in page and 'http-equiv="refresh"' in page for page in pages)
    training = [page for page in pages if "It has come to: train it once, " in page]
    assert any("of 12 steps" in page and 'id="fig-settling"' in page for page in training)
    last = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A trained network" in last
    assert "under way at" not in last
    assert "refresh" not in last


def test_an_audit_is_shown_while_it_goes_on(tmp_path: Path) -> None:
    pages, notes, listener = followed(tmp_path / "report.html")
    audit(
        tiny_space(), tiny_task(), estimators=["zero-cost"], num=4, seeds=1, out=tmp_path,
        budget="steps=2,epochs=1", recipe=Recipe(batch_size=32, epochs=1), on_event=listener,
    )  # fmt: skip
    assert not [note for note in notes if "drawn" in note]
    assert any("No verdict yet" in page for page in pages)
    assert all('http-equiv="refresh"' in page for page in pages)
    assert "refresh" not in (tmp_path / "report.html").read_text(encoding="utf-8")
