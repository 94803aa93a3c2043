"""The mobile space: inverted bottlenecks with open kernel, expansion, depth and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from assay.errors import InvalidSetting
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.zoo.blocks import at_least, conv_norm_act, inverted_bottleneck, named, residual

__all__ = ["SIZES", "Sizes", "Stage", "mobile", "sizes_for"]


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution; the first may change the resolution, the others are residual.

    Attributes:
        widths: Options of its channels, shared by all its blocks; one makes them fixed.
        depth: Fewest and most blocks.
        stride: Of its first block.
        kernels: Options of the depthwise kernel; None for the space's.
        expansions: Options of the expansion; None for the space's.
    """

    widths: tuple[int, ...]
    depth: tuple[int, int]
    stride: int = 1
    kernels: tuple[int, ...] | None = None
    expansions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sizes:
    """What makes the space fit a resolution.

    Attributes:
        stages: In order.
        stem: Channels of the first convolution.
        stem_stride: Its stride.
        head: Channels before the classifier.
    """

    stages: tuple[Stage, ...]
    stem: int
    stem_stride: int
    head: int


SIZES: Mapping[str, Sizes] = {
    "digits": Sizes(
        (
            Stage((16, 24), (1, 3)),
            Stage((24, 32), (1, 3), stride=2),
            Stage((40, 56), (1, 3), stride=2),
        ),
        stem=16, stem_stride=1, head=112,
    ),
    "fashion-mnist": Sizes(
        (
            Stage((16, 24), (1, 3)),
            Stage((32, 40), (1, 4), stride=2),
            Stage((64, 80), (1, 4), stride=2),
        ),
        stem=16, stem_stride=2, head=160,
    ),
    "cifar": Sizes(
        (
            Stage((24, 32), (1, 3), stride=2),
            Stage((48, 64), (1, 4), stride=2),
            Stage((96, 128), (1, 4), stride=2),
        ),
        stem=16, stem_stride=1, head=256,
    ),
    "imagenet": Sizes(
        (
            Stage((16,), (1, 1), kernels=(3,), expansions=(1,)),
            Stage((24, 32), (2, 4), stride=2),
            Stage((40, 48), (2, 4), stride=2),
            Stage((80, 96), (2, 4), stride=2),
            Stage((96, 112), (2, 4)),
            Stage((160, 192), (2, 4), stride=2),
            Stage((320, 384), (1, 1)),
        ),
        stem=32, stem_stride=2, head=1280,
    ),
}  # fmt: skip
"""Name -> sizes for 8x8, 28x28, 32x32 and 224x224 pixels."""

_SMALLEST_SIDE = {"imagenet": 96, "cifar": 32, "fashion-mnist": 16, "digits": 0}


def sizes_for(input_shape: tuple[int, int, int]) -> Sizes:
    """Return the sizes that suit a resolution.

    Args:
        input_shape: Channels, height, width; the shorter side decides.
    """
    side = min(input_shape[1:])
    return next(SIZES[name] for name, smallest in _SMALLEST_SIDE.items() if side >= smallest)


def mobile(
    *,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    stages: Sequence[Stage] | None = None,
    stem: int | None = None,
    stem_stride: int | None = None,
    head: int | None = None,
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[int] = (3, 6),
    skip: bool = True,
) -> Space:
    """Make the space of ProxylessNAS and Once-for-All, at any resolution.

    Each stage has an open width and depth; each of its blocks is one of kernel x expansion, and
    those that keep the shape may also be skipped. A skipped block and one beyond the depth are the
    same network, and have the same canonical form.

    Source: Cai, Zhu, Han 2019, "ProxylessNAS", arXiv:1812.00332, section 4.2, and Cai et al. 2020,
    "Once-for-All", arXiv:1908.09791, section 3; differs: ReLU throughout, no squeeze-excite, and
    kernels and expansions are separate operations as in the first.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        stages: These and the three that follow are by default those of `sizes_for(input_shape)`.
        stem: Channels of the first convolution.
        stem_stride: Its stride.
        head: Channels before the classifier.
        kernels: Options of the depthwise kernel; odd.
        expansions: Options of the expansion.
        skip: Whether a block that keeps the shape may be skipped.
    Raises:
        InvalidSetting: a size that cannot be, such as an even kernel or a stage without a block.
    Example:
        >>> mobile().size
        320013504
    """
    usual = sizes_for(input_shape)
    sizes = Sizes(
        tuple(usual.stages if stages is None else stages),
        stem=usual.stem if stem is None else stem,
        stem_stride=usual.stem_stride if stem_stride is None else stem_stride,
        head=usual.head if head is None else head,
    )
    _check(sizes, input_shape=input_shape, num_classes=num_classes,
           kernels=kernels, expansions=expansions)  # fmt: skip

    def model() -> nn.Module:
        channels: int = sizes.stem
        stem = conv_norm_act(input_shape[0], channels, 3, stride=sizes.stem_stride)
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
        for i, stage in enumerate(sizes.stages, start=1):
            width = _width(stage.widths, f"stage{i}.width")
            grid = _grid(stage.kernels or kernels, stage.expansions or expansions)
            parts[f"stage{i}"] = _stage(channels, width, stage, grid, skip)
            channels = width
        return named(
            **parts,
            head=nn.Sequential(*conv_norm_act(channels, sizes.head)),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            classifier=nn.Linear(sizes.head, num_classes),
        )

    def remake(**options: Any) -> Space:
        as_here: dict[str, Any] = {
            "input_shape": input_shape, "num_classes": num_classes, "stages": sizes.stages,
            "stem": sizes.stem, "stem_stride": sizes.stem_stride, "head": sizes.head,
            "kernels": kernels, "expansions": expansions, "skip": skip,
        }  # fmt: skip
        return mobile(**{**as_here, **options})

    return Space(model, remake=remake)


_Grid = Mapping[str, tuple[int, int]]
"""Name of a block -> its kernel and expansion."""


def _grid(kernels: Sequence[int], expansions: Sequence[int]) -> _Grid:
    return {f"k{k}e{e}": (k, e) for k in kernels for e in expansions}


def _width(options: tuple[int, ...], label: str) -> int:
    return Width(*options, label=label) if len(options) > 1 else options[0]


def _stage(channels: int, width: int, stage: Stage, grid: _Grid, skip: bool) -> nn.Module:
    low, high = stage.depth
    blocks = [_first(channels, width, stage.stride, grid)]
    blocks += [_residual(width, grid, skip) for _ in range(high - 1)]
    return nn.Sequential(*blocks) if low == high else Depth(*blocks, min=low)


def _first(channels: int, width: int, stride: int, grid: _Grid) -> nn.Module:
    return _one_of({
        name: inverted_bottleneck(channels, width, kernel=k, expansion=e, stride=stride)
        for name, (k, e) in grid.items()
    })  # fmt: skip


def _residual(width: int, grid: _Grid, skip: bool) -> nn.Module:
    options: dict[str, nn.Module] = {
        name: residual(inverted_bottleneck(width, width, kernel=k, expansion=e))
        for name, (k, e) in grid.items()
    }
    return _one_of({**options, "skip": nn.Identity()} if skip else options)


def _one_of(options: dict[str, nn.Module]) -> nn.Module:
    return OneOf(options) if len(options) > 1 else next(iter(options.values()))


def _check(sizes: Sizes, **given: Any) -> None:
    kernels = [k for s in sizes.stages for k in s.kernels or ()] + [*given["kernels"]]
    expansions = [e for s in sizes.stages for e in s.expansions or ()] + [*given["expansions"]]
    if not sizes.stages or any(not 1 <= s.depth[0] <= s.depth[1] for s in sizes.stages):
        raise InvalidSetting(
            f"mobile needs stages with a depth of 1 <= fewest <= most, not {sizes.stages!r}"
        )
    if not given["kernels"] or any(k < 1 or k % 2 == 0 for k in kernels):
        raise InvalidSetting(f"mobile needs odd kernels such as (3, 5, 7), not {kernels}")
    if not given["expansions"] or any(e < 1 for e in expansions):
        raise InvalidSetting(f"mobile needs expansions such as (3, 6), not {expansions}")
    at_least(
        "mobile", stem=sizes.stem, stem_stride=sizes.stem_stride, head=sizes.head,
        num_classes=given["num_classes"], input_shape=min(given["input_shape"]),
        stride=min(s.stride for s in sizes.stages),
        widths=min(min(s.widths, default=0) for s in sizes.stages),
    )  # fmt: skip
