"""The rule about skips: allowed where a system package is missing, forbidden under CI=true."""

import pytest
import torch


def test_one_thread_per_worker():
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("ci", ["true", ""])
def test_needs_goes_on_where_the_condition_holds(needs, monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    needs("no Chromium", "/usr/bin/chromium")


def test_needs_skips_and_says_why(needs, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception) as caught:
        needs("no Chromium", None)
    assert str(caught.value) == "no Chromium; `make system` installs it"


def test_needs_fails_under_ci(needs, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no Chromium; .*CI=true forbids"):
        needs("no Chromium", None)
