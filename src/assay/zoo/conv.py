"""A chain of convolutions: operations open in every block, a width in every stage."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from torch import nn

from assay.errors import InvalidSetting, nearest
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.zoo.blocks import at_least, conv_norm_act, named

__all__ = ["OPERATIONS", "conv"]

OPERATIONS = ("conv3", "conv5", "sep3", "sep5", "skip")
"""What a block can be: a convolution, a depthwise separable one, or none; sides in pixels."""


def conv(
    *,
    input_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int = 10,
    widths: Sequence[Sequence[int]] = ((16, 24, 32), (32, 48, 64)),
    blocks: int = 3,
    operations: Sequence[str] = OPERATIONS,
    stem_stride: int = 2,
) -> Space:
    """Make the space of plain convolutional chains.

    A stem, then stages: in each an open width and some blocks, each one of the operations. Every
    stage after the first begins with a convolution of stride 2. In a stage it does not matter where
    the skips stand: such chains have one canonical form.

    Source: the plain networks of He et al. 2015, "Deep Residual Learning for Image Recognition",
    arXiv:1512.03385, section 3.3, and the separable convolution of Howard et al. 2017,
    "MobileNets", arXiv:1704.04861, section 3.1; differs: operations, depth and widths are open.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        widths: For each stage the options of its width; one makes it fixed.
        blocks: In each stage.
        operations: Options of every block, some of `OPERATIONS`.
        stem_stride: Of the first convolution.
    Raises:
        InvalidSetting: an unknown operation, fewer than two, or a count or size below 1.
    Example:
        >>> conv().size == (3 * 5**3) ** 2
        True
    """
    for operation in operations:
        if operation not in OPERATIONS:
            raise InvalidSetting(f"conv has no {operation!r}; {nearest(operation, OPERATIONS)}")
    if len(set(operations)) < 2:
        raise InvalidSetting(f"conv needs two different operations or more, not {operations!r}")
    at_least(
        "conv", input_shape=min(input_shape), num_classes=num_classes, blocks=blocks,
        widths=min((min(ws, default=0) for ws in widths), default=0), stem_stride=stem_stride,
    )  # fmt: skip

    def model() -> nn.Module:
        parts: dict[str, nn.Module] = {}
        channels = input_shape[0]
        for i, options in enumerate(widths, start=1):
            width = Width(*options, label=f"width{i}") if len(options) > 1 else options[0]
            stride = 2 if i > 1 else stem_stride
            first = conv_norm_act(channels, width, 3, stride=stride)
            parts["stem" if i == 1 else f"reduce{i}"] = nn.Sequential(*first)
            body = [OneOf(_operations(width, operations)) for _ in range(blocks)]
            parts[f"stage{i}"] = nn.Sequential(*body)
            channels = width
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return named(**parts, pool=pool, classifier=nn.Linear(channels, num_classes))

    remake = functools.partial(
        conv, input_shape=input_shape, num_classes=num_classes, widths=widths, blocks=blocks,
        operations=operations, stem_stride=stem_stride,
    )  # fmt: skip
    return Space(model, remake=remake)


def _operations(width: int, wanted: Sequence[str]) -> Mapping[str, nn.Module]:
    return {name: _operation(name, width) for name in wanted}


def _operation(name: str, width: int) -> nn.Module:
    if name == "skip":
        return nn.Identity()
    kernel = int(name[-1])
    if name.startswith("conv"):
        return nn.Sequential(*conv_norm_act(width, width, kernel))
    depthwise = conv_norm_act(width, width, kernel, groups=width)
    return nn.Sequential(*depthwise, *conv_norm_act(width, width))
