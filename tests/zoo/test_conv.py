from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from assay.errors import InvalidSetting
from assay.space.space import Space
from assay.zoo.conv import OPERATIONS, conv
from tests.zoo.test_mobile import merges_exactly


def tiny(**options: Any) -> Space:
    return conv(widths=((4, 6), (8,)), blocks=2, operations=("conv3", "sep3", "skip"), **options)


def test_its_size_is_that_of_the_formula() -> None:
    assert conv().size == (3 * len(OPERATIONS) ** 3) ** 2
    assert tiny().size == 2 * 3 ** (2 * 2)  # a width with one option is no decision


def test_its_choices_are_named_by_stage_and_block() -> None:
    labels = ["stage1.0", "stage1.1", "stage2.0", "stage2.1", "width1"]
    assert sorted(tiny().choices) == labels
    assert conv().choices["stage2.2"].options == OPERATIONS
    assert conv().choices["width2"].options == (32, 48, 64)


def test_the_operations_have_the_weights_of_their_formulas() -> None:
    space = conv(widths=((4, 8),), blocks=1)
    expected = {
        "conv3": 9 * 8 * 8 + 16,
        "conv5": 25 * 8 * 8 + 16,
        "sep3": 9 * 8 + 16 + 8 * 8 + 16,
        "sep5": 25 * 8 + 16 + 8 * 8 + 16,
        "skip": 0,
    }
    for operation, weights in expected.items():
        point = space.complete({"stage1.0": operation, "width1": 8}, lambda c: c.options[0])
        body = space.build(point).get_submodule("stage1")
        assert sum(p.numel() for p in body.parameters()) == weights


def test_every_stage_halves_the_side_and_the_first_as_the_stem_does() -> None:
    for stem_stride, side in ((1, 14), (2, 7)):
        net = tiny(stem_stride=stem_stride).model
        sides: list[int] = []
        net.get_submodule("stage2").register_forward_hook(
            lambda module, given, out, sides=sides: sides.append(out.shape[-1])
        )
        net(torch.zeros(2, 1, 28, 28))
        assert sides == [side]


def test_canonical_forms_are_exact_over_a_whole_space() -> None:
    space = tiny()
    chains = sum(2**n for n in range(2 + 1))  # n operations in order, the rest skipped
    assert merges_exactly(space, space.all()) == space.size - 2 * chains**2


def test_a_variant_keeps_the_choices() -> None:
    space = tiny()
    other = space.variant(num_classes=3, stem_stride=1)
    assert list(other.choices) == list(space.choices)
    head = other.model.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    assert head.out_features == 3
    with pytest.raises(InvalidSetting, match="a variant keeps all choices"):
        space.variant(blocks=1)
    with pytest.raises(InvalidSetting, match=r"is OneOf.*, not absent; a variant keeps all"):
        space.variant(blocks=4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"operations": ("conv3", "conv7")}, "no 'conv7'; did you mean 'conv"),
        ({"operations": ("skip", "skip")}, "two different operations or more"),
        ({"widths": ()}, "widths of at least 1, not 0"),
        ({"widths": ((16, 24), ())}, "widths of at least 1, not 0"),
        ({"blocks": 0}, "blocks of at least 1, not 0"),
        ({"stem_stride": 0}, "stem_stride of at least 1, not 0"),
        ({"num_classes": 0}, "num_classes of at least 1, not 0"),
        ({"input_shape": (1, 0, 8)}, "input_shape of at least 1, not 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        conv(**wrong)


def test_the_default_suits_images_of_28_pixels() -> None:
    net = conv().model.eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
