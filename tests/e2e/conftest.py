from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import tiny


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency table of the tiny space, measured once."""
    path = tmp_path_factory.mktemp("table") / "table.json"
    tiny.save_table(path)
    return path
