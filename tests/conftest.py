"""What every test gets: one thread, draws that CI can repeat, and the rule about skips."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, or it has no effect

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
pytest.register_assert_rewrite("assay.testing")  # so that a broken contract shows its values

IN_CI = os.environ.get("CI") == "true"

# Times vary with the machine, so no deadline; CI draws the same examples each time.
hypothesis.settings.register_profile("assay", deadline=None, derandomize=IN_CI, print_blob=True)
hypothesis.settings.load_profile("assay")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none; no CI machine is promised one."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def needs() -> Callable[[str, object], None]:
    """Return the check for what only the system has (a package that `make system` installs).

    `needs(reason, condition)` goes on where the condition holds. Elsewhere it skips the test and
    says why; under CI=true, where everything must be installed, it fails the test instead.
    """

    def check(reason: str, condition: object) -> None:
        if condition:
            return
        message = f"{reason}; `make system` installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message} (a skip, which CI=true forbids)", pytrace=False)
        pytest.skip(message)

    return check
