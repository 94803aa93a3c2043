"""Every executor, hooked to the suite that it must pass."""

from __future__ import annotations

import functools

from assay.executors.inline import Inline
from assay.executors.processes import Processes
from assay.testing import ExecutorContract


class TestInline(ExecutorContract):
    executor = Inline


@functools.cache
def two_processes():
    """Keep the workers from test to test: each takes seconds to start."""
    return Processes(workers=2)


class TestProcesses(ExecutorContract):
    executor = two_processes
