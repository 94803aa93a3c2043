"""What `search` is told and what it means."""

from __future__ import annotations

import pytest
import torch

from assay.errors import InvalidSetting
from assay.run.face import training_device


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given in ("cuda", "cuda:0", "cuda:1", "cpu", "cpu:0"):
        assert training_device(given) == given
    assert training_device("auto") == "cuda"
    for wrong, why in (
        ("cuda:9", "train_on='cuda:9', but the last CUDA device is 'cuda:1'"),
        ("cuda:x", "train_on='cuda:x'; did you mean 'cuda'"),
        ("cuda:-1", "train_on='cuda:-1'; did you mean 'cuda'"),
        ("gpu", "There are: auto, cpu, cuda"),
    ):
        with pytest.raises(InvalidSetting, match=why):
            training_device(wrong)


def test_without_cuda_the_cpu_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device("auto") == "cpu"
    with pytest.raises(InvalidSetting, match=r"torch sees no CUDA device; use 'cpu'"):
        training_device("cuda:0")
