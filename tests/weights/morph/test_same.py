from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.errors import AssayError
from assay.weights.morph import assert_same_function


class Shifted(nn.Module):
    def __init__(self, *shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def forward(self, x):
        return {"out": x + self.shift, "copy": (x,)}


def test_errors_of_opposite_sign_do_not_cancel():
    x = torch.ones(3, 2, dtype=torch.float64)
    assert_same_function(Shifted(0.0, 0.0), Shifted(1e-10, -1e-10), x)
    with pytest.raises(AssayError, match="up to 1 differ by 1e-06, more than 1e-09"):
        assert_same_function(Shifted(0.0, 0.0), Shifted(1e-6, -1e-6), x)
    assert_same_function(Shifted(0.0, 0.0), Shifted(1e-6, -1e-6), x, tolerance=1e-5)


def test_what_is_not_finite_or_of_another_shape_is_not_the_same():
    x = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(AssayError, match="differ by nan"):
        assert_same_function(Shifted(0.0, 0.0), Shifted(float("nan"), 0.0), x)
    with pytest.raises(AssayError, match=r"from \[\[3, 4\]\] to \[\[3, 5\]\]"):
        assert_same_function(nn.Linear(2, 4).double(), nn.Linear(2, 5).double(), x)


def test_an_infinity_is_the_same_as_itself_alone():
    x = torch.ones(3, 2, dtype=torch.float64)
    masked = Shifted(0.0, -float("inf"))
    assert_same_function(masked, Shifted(0.0, -float("inf")), x)
    for other in (0.0, float("inf"), float("nan")):
        with pytest.raises(AssayError, match=r"outputs of up to 1 differ by (inf|nan)"):
            assert_same_function(masked, Shifted(0.0, other), x)
    with pytest.raises(AssayError, match="up to 1 differ by 1e-06"):
        assert_same_function(masked, Shifted(1e-6, -float("inf")), x)


def test_both_are_judged_in_eval_mode_and_left_in_their_own():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)).double()
    model[1].eval()
    assert_same_function(model, model, torch.ones(3, 2, dtype=torch.float64))
    assert [m.training for m in model.modules()] == [True, True, False]
    assert model[1].num_batches_tracked == 0


class Beside(nn.Module):
    """An output that is no tensor beside one that is."""

    def __init__(self, other) -> None:
        super().__init__()
        self.other = other

    def forward(self, x):
        return x, self.other


def test_an_output_that_is_no_tensor_is_compared_as_it_is():
    x = torch.ones(3, 2, dtype=torch.float64)
    assert_same_function(Beside(None), Beside(None), x)
    assert_same_function(Beside("a"), Beside("a"), x)
    with pytest.raises(AssayError, match=r"from \[\[3, 2\], None\] to \[\[3, 2\], 'b'\]"):
        assert_same_function(Beside(None), Beside("b"), x)
