"""Modes are put back as they were, module by module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.train.modes import evaluating


def test_every_module_of_every_model_is_back_in_its_own_mode() -> None:
    mixed, other = nn.Sequential(nn.Dropout(), nn.Dropout()), nn.Dropout()
    mixed[0].eval()
    with evaluating(mixed, other):
        assert not any(m.training for m in (*mixed.modules(), other))
    assert [m.training for m in (*mixed.modules(), other)] == [True, False, True, True]


def test_modes_are_restored_after_an_error() -> None:
    module = nn.Linear(2, 2).train()
    with pytest.raises(RuntimeError), evaluating(module):
        module(torch.zeros(3))
    assert module.training
