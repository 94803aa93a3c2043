"""The mobile space: inverted bottlenecks with open kernel, expansion, depth and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from assay.errors import InvalidSetting
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.train.task import Task
from assay.zoo.blocks import conv_norm_act, inverted_bottleneck, named, residual

__all__ = ["Stage", "for_task", "mobile", "stages_for"]


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution.

    Attributes:
        widths: Options of its channels; one makes it fixed.
        depth: Fewest and most blocks.
        stride: Of its first block.
    """

    widths: tuple[int, ...]
    depth: tuple[int, int]
    stride: int = 1


def mobile(
    *,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    stages: Sequence[Stage] | None = None,
    stem: int = 16,
    stem_stride: int | None = None,
    head: int | None = None,
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[int] = (3, 6),
) -> Space:
    """Make the space of ProxylessNAS and Once-for-all, at any resolution.

    Each stage has an open width and depth; each of its blocks is one of kernel x expansion, and
    those that keep the shape may also be skipped.

    Source: Cai, Zhu, Han 2019, "ProxylessNAS", arXiv:1812.00332, section 4.2, and Cai et al. 2020,
    "Once-for-All", arXiv:1908.09791, section 3; differs: ReLU throughout, no squeeze-excite, and
    kernels and expansions are separate operations as in the first.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        stages: By default those of `stages_for(input_shape)`.
        stem: Channels of the first convolution.
        stem_stride: Its stride; by default 1 below 16 pixels, else 2.
        head: Channels before the classifier; by default twice the widest stage.
        kernels: Options of the depthwise kernel.
        expansions: Options of the expansion.
    Raises:
        InvalidSetting: no stage, or a depth that leaves none.
    """
    plan = tuple(stages) if stages is not None else stages_for(input_shape)
    if not plan or any(not 1 <= s.depth[0] <= s.depth[1] for s in plan):
        raise InvalidSetting(f"mobile needs stages of depth (1 <= min <= max), not {plan!r}")
    stride = stem_stride or (1 if input_shape[1] < 16 else 2)
    wide = head or 2 * max(plan[-1].widths)

    def model() -> nn.Module:
        channels: int = stem
        parts: dict[str, nn.Module] = {
            "stem": nn.Sequential(*conv_norm_act(input_shape[0], stem, 3, stride=stride))
        }
        for i, stage in enumerate(plan, start=1):
            width = _width(stage.widths, f"stage{i}.width")
            parts[f"stage{i}"] = _stage(channels, width, stage, kernels, expansions)
            channels = width
        return named(
            **parts,
            head=nn.Sequential(*conv_norm_act(channels, wide)),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            classifier=nn.Linear(wide, num_classes),
        )

    return Space(model)


def for_task(task: Task, **options: Any) -> Space:
    """Make the space for a task of images.

    Raises:
        InvalidSetting: the task's inputs are no images `[N, C, H, W]`, or it has no classes.
    """
    example = task.example(1)
    shape = tuple(getattr(example, "shape", ()))
    if len(shape) != 4 or task.num_classes is None:
        raise InvalidSetting(
            f"the space 'mobile' is for classes of images [N, C, H, W]; this task has inputs of "
            f"shape {shape} and {task.num_classes} classes: bring your own module by --model"
        )
    return mobile(input_shape=shape[1:], num_classes=task.num_classes, **options)


def stages_for(input_shape: tuple[int, int, int]) -> tuple[Stage, ...]:
    """Return stages that suit a resolution: 8x8 digits up to 224x224 photographs."""
    side = min(input_shape[1:])
    if side < 16:
        return (
            Stage((16, 24), (1, 3)),
            Stage((24, 32), (1, 3), stride=2),
            Stage((40, 56), (1, 3), stride=2),
        )
    if side < 64:
        return (
            Stage((16, 24), (1, 3)),
            Stage((32, 40), (1, 4), stride=2),
            Stage((64, 80), (1, 4), stride=2),
        )
    return (
        Stage((16, 24), (1, 2)),
        Stage((24, 32), (2, 4), stride=2),
        Stage((40, 48), (2, 4), stride=2),
        Stage((80, 96), (2, 4), stride=2),
        Stage((96, 112), (2, 4)),
        Stage((160, 192), (2, 4), stride=2),
        Stage((320, 384), (1, 1)),
    )


def _width(options: tuple[int, ...], label: str) -> int:
    return Width(*options, label=label) if len(options) > 1 else options[0]


def _stage(
    channels: int, width: int, stage: Stage, kernels: Sequence[int], expansions: Sequence[int]
) -> nn.Module:
    grid = [(k, e) for k in kernels for e in expansions]
    first = OneOf({
        f"k{k}e{e}": inverted_bottleneck(
            channels, width, kernel=k, expansion=e, stride=stage.stride
        )
        for k, e in grid
    })  # fmt: skip

    def block() -> nn.Module:
        options: dict[str, nn.Module] = {
            f"k{k}e{e}": residual(inverted_bottleneck(width, width, kernel=k, expansion=e))
            for k, e in grid
        }
        return OneOf({**options, "skip": nn.Identity()})

    low, high = stage.depth
    if high == 1:
        return named(first=first)
    rest = [block() for _ in range(high - 1)]
    if low == high:
        return named(first=first, rest=nn.Sequential(*rest))
    return named(first=first, rest=Depth(*rest, min=low - 1))
