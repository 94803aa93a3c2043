from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from assay.errors import InvalidSetting
from assay.zoo import SPACES, load_space


def task(*shape: int, classes: int | None = 10) -> Any:
    """A task as far as a space looks at it."""
    return SimpleNamespace(
        example=lambda n: torch.zeros(n, *shape), num_classes=classes, name="made up"
    )


def test_every_space_fits_itself_to_the_task() -> None:
    for name in SPACES:
        space = load_space(name, task(3, 28, 28, classes=7))
        with torch.no_grad():
            assert space.build(space.smallest()).eval()(torch.zeros(2, 3, 28, 28)).shape == (2, 7)


def test_options_come_as_values_or_as_text() -> None:
    spaces = [
        load_space("mobile", task(1, 8, 8), kernels=(3, 5), stem=8, skip=False),
        load_space("mobile", task(1, 8, 8), kernels="3,5", stem="8", skip="false"),
    ]
    assert spaces[0].fingerprint == spaces[1].fingerprint
    assert spaces[0].choices["stage1.1"].options == ("k3e3", "k3e6", "k5e3", "k5e6")
    assert load_space("mobile", task(1, 8, 8), kernels="3").choices["stage1.0"].options == (
        "k3e3", "k3e6",
    )  # fmt: skip
    stages = '[{"widths": [4, 8], "depth": [1, 2]}]'
    assert load_space("mobile", task(1, 8, 8), stages=stages).size == 2 * (6 + 6 * 7)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mobil", {}, "unknown space 'mobil'; did you mean 'mobile'"),
        ("mobile", {"kernel": (3,)}, "unknown option space.kernel; did you mean 'kernels'"),
        ("mobile", {"num_classes": 3}, "unknown option space.num_classes"),
        (
            "mobile",
            {"stem": "wide"},
            r"space.stem='wide' does not fit .*: Input should be",
        ),
        ("mobile", {"kernels": "3,x"}, r"space.kernels='3,x' does not fit"),
    ],
)
def test_unknown_names_and_values_are_refused(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidSetting, match=said):
        load_space(name, task(1, 8, 8), **options)


@pytest.mark.parametrize("wrong", [task(5), task(1, 8, 8, classes=None)])
def test_a_task_that_is_not_of_images_and_classes_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidSetting, match="classes of images"):
        load_space("mobile", wrong)
