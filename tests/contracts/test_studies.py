"""Every store, hooked to the suite that it must pass."""

from __future__ import annotations

import pytest

from assay.study.records import Records
from assay.study.store import Study
from assay.testing import StudyContract


class TestSQLite(StudyContract):
    opened = staticmethod(lambda folder: Study.open(folder, identity={}))


class TestMemory(StudyContract):
    opened = staticmethod(lambda folder: Study.open(None, identity={}))


class TestSQLiteByURL(StudyContract):
    opened = staticmethod(
        lambda folder: Study.open(folder, identity={}, url=f"sqlite:///{folder.parent}/other.db")
    )


class TestReplacingAsElsewhere(StudyContract):
    """SQLite, with the statements that other databases get."""

    opened = staticmethod(lambda folder: Study.open(folder, identity={}))

    @pytest.fixture(autouse=True)
    def portable(self, monkeypatch):
        def replace(self, connection, table, rows):
            with monkeypatch.context() as patch:
                patch.setattr(connection.dialect, "name", "elsewhere")
                original(self, connection, table, rows)

        original = Records._replace
        monkeypatch.setattr(Records, "_replace", replace)
