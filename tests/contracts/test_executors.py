"""Every executor, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.executors.inline import Inline
from assay.testing import ExecutorContract


class TestInline(ExecutorContract):
    executor = Inline
