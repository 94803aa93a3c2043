"""A real Chromium, Debian's, driven by Playwright, for every kind of report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def fits(page: Any, width: int) -> None:
    """Assert that nothing of an opened page sticks out to the right, all details open."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    stray = page.evaluate(
        """width => [...document.querySelectorAll('main *, header *, footer *')]
            .filter(e => !e.closest('.scroll, pre, svg') && e.getClientRects().length)
            .filter(e => e.getBoundingClientRect().right > width + 0.5)
            .map(e => e.outerHTML.slice(0, 80))""",
        width,
    )
    assert stray == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None or find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any, needs: Callable[[str, object], None]) -> Iterator[Callable[..., Any]]:
    """Opens a report, and fails when it has complained or asked for anything but itself."""
    needs("needs Chromium and Playwright", chromium)
    contexts = []
    complaints: list[str] = []

    def visit(path: Path, width: int, scheme: str = "light") -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        own = path.as_uri()
        complaints[:] = [c for c in complaints if c != own and not c.startswith("data:")]
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
