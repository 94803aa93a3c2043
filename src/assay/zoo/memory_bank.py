"""The memory-bank space of SMASH: operations read from banks and write to banks.

A block owns some banks, tensors of one shape. They begin as zeros, except the first, which holds
the block's input. Each operation concatenates the banks it reads, and adds its output to the banks
it writes; adding to zeros is what the paper calls allocating. ResNet, DenseNet and FractalNet are
ways to read and write: `resnet`, `densenet` and `fractalnet` give them, `wired` makes
architectures of them.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from assay.architecture import Architecture, Option
from assay.errors import InvalidArchitecture, InvalidSetting, nearest
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Kernel, Width
from assay.space.space import Space
from assay.zoo import blocks
from assay.zoo.blocks import at_least, conv_norm_act, named

__all__ = ["Wires", "densenet", "fractalnet", "memory_bank", "resnet", "wired"]

Wires = Sequence[tuple[Sequence[int], Sequence[int]]]
"""For each operation the banks it reads and the banks it writes."""


def memory_bank(
    *,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    widths: Sequence[int] = (8, 16),
    depth: tuple[int, int] = (1, 3),
    banks: int = 3,
    units: Sequence[int] = (1, 2),
    kernels: Sequence[int] = (3,),
    dilations: Sequence[int] = (1, 2),
    groups: Sequence[int] = (1, 2),
) -> Space:
    """Make the space of memory-bank networks.

    An operation is a 1x1 convolution of the banks it reads, then one k x k convolution or two in a
    row, on one path or on two parallel ones that are added. Open are, for each operation: the banks
    read and written, the channels in the middle, the kernel, the dilation and the groups, the
    length of the first path, and the second path. Convolutions that differ in dilation alone have
    one weight; open kernels are centres of the largest.

    Source: Brock et al. 2017, "SMASH", arXiv:1708.05344, section 3.1; differs: all banks of a block
    have one width; batch norms follow the convolutions; a parallel path is added, not concatenated;
    a bank that nothing was written to is read as zeros; grouped convolutions have weights of their
    own.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs.
        widths: Channels of the banks of each block; a block begins at half the resolution of the
            block before it.
        depth: Fewest and most operations of a block.
        banks: Of each block.
        units: Options of the channels in the middle, in widths of a bank.
        kernels: Options of the kernel; odd.
        dilations: Options of the dilation.
        groups: Options of the groups; must divide the widths.
    Raises:
        InvalidSetting: a size that cannot be, such as a single bank.
    Example:
        >>> memory_bank(widths=(8,), depth=(1, 1), units=(1,), dilations=(1,), groups=(1,)).size
        294
    """
    options = _Options(
        tuple(widths), depth, banks, tuple(units), tuple(kernels), tuple(dilations), tuple(groups)
    )
    options.check()

    def model() -> nn.Module:
        stem = nn.Sequential(*conv_norm_act(input_shape[0], widths[0], 3))
        parts: dict[str, nn.Module] = {"stem": stem}
        for i, width in enumerate(widths, start=1):
            if i > 1:
                into = conv_norm_act(banks * widths[i - 2], width)
                parts[f"transition{i}"] = nn.Sequential(*into, nn.AvgPool2d(2, ceil_mode=True))
            parts[f"block{i}"] = _block(f"block{i}", width, options)
        last = banks * widths[-1]
        return named(
            **parts,
            norm=nn.Sequential(nn.BatchNorm2d(last), nn.ReLU()),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            classifier=nn.Linear(last, num_classes),
        )

    def remake(**changes: Any) -> Space:
        as_here: dict[str, Any] = {
            "input_shape": input_shape, "num_classes": num_classes, "widths": widths,
            "depth": depth, "banks": banks, "units": units, "kernels": kernels,
            "dilations": dilations, "groups": groups,
        }  # fmt: skip
        return memory_bank(**{**as_here, **changes})

    return Space(model, remake=remake)


# --- ways to read and write -----------------------------------------------------------------------


def resnet(ops: int) -> Wires:
    """Return the wires of a ResNet: every operation reads and writes the one bank.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027.

    Args:
        ops: Operations of a block.
    """
    return [((0,), (0,))] * ops


def densenet(ops: int) -> Wires:
    """Return the wires of a DenseNet: each operation reads all banks so far and writes the next.

    Source: Huang et al. 2016, "Densely Connected Convolutional Networks", arXiv:1608.06993.

    Args:
        ops: Operations of a block; it needs one bank more.
    """
    return [(tuple(range(i + 1)), (i + 1,)) for i in range(ops)]


def fractalnet(columns: int) -> Wires:
    """Return the wires of a FractalNet: f_1 = conv and f_{C+1}(z) = f_C(f_C(z)) + conv(z).

    The block has 2^C - 1 operations and needs 2^(C-1) + 1 banks; its output is the last written.

    Source: Larsson et al. 2016, "FractalNet", arXiv:1605.07648, section 3; differs: paths join by
    their sum in place of their mean.

    Args:
        columns: C, at least 1.
    """
    fresh = itertools.count(1)

    def grow(columns: int, source: int, sink: int) -> list[tuple[tuple[int], tuple[int]]]:
        if columns == 1:
            return [((source,), (sink,))]
        middle = next(fresh)
        halves = [*grow(columns - 1, source, middle), *grow(columns - 1, middle, sink)]
        return [*halves, ((source,), (sink,))]

    return grow(columns, 0, 2 ** (columns - 1))


def wired(space: Space, wires: Wires, **decisions: Option) -> Architecture:
    """Return the architecture whose blocks are all wired alike.

    Args:
        space: A memory-bank space.
        wires: Of each block.
        decisions: For all operations, such as `units=8` or `conv="d1g1"`; the others take their
            first option.
    Raises:
        InvalidArchitecture: the space has not so many operations or banks, or no such decision.
    """
    wanted: dict[str, Option] = {}
    known: set[str] = set()
    most: dict[str, int] = {}  # operations of each block
    for label in space.choices:
        block, _, rest = label.partition(".")
        if rest == "ops":
            wanted[label] = len(wires)
        elif rest.startswith("op"):
            op, _, decision = rest.partition(".")
            number = int(op.removeprefix("op")) - 1
            most[block] = max(number + 1, most.get(block, 0))
            if number < len(wires):
                wanted |= _wire(f"{block}.{op}", *wires[number])
            known.add(decision)
            if decision in decisions:
                wanted[label] = decisions[decision]
    for name in decisions.keys() - known:
        raise InvalidArchitecture(f"no operation decides {name!r}; {nearest(name, known)}")
    for block, num in most.items():
        if f"{block}.ops" not in wanted and num != len(wires):
            raise InvalidArchitecture(
                f"{block} has {num} operations, no more and no fewer, and the wires are of "
                f"{len(wires)}; give {num}, or a space whose depth allows {len(wires)}"
            )
    return space.check(space.complete(wanted, lambda choice: choice.options[0]))


def _wire(op: str, reads: Sequence[int], writes: Sequence[int]) -> dict[str, Option]:
    return {
        f"{op}.reads": f"r{len(reads)}",
        f"{op}.read{len(reads)}": tuple(sorted(reads)),
        f"{op}.write": _write_name(writes),
    }


# --- blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    widths: tuple[int, ...]
    depth: tuple[int, int]
    banks: int
    units: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: tuple[int, ...]

    def check(self) -> None:
        at_least("memory_bank", 2, banks=self.banks)
        if not 1 <= self.depth[0] <= self.depth[1]:
            raise InvalidSetting(f"memory_bank needs a depth of 1 <= fewest <= most: {self.depth}")
        for name in ("widths", "units", "kernels", "dilations", "groups"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InvalidSetting(f"memory_bank needs {name} of at least 1, not {values}")
        if any(k % 2 == 0 for k in self.kernels):
            raise InvalidSetting(f"memory_bank needs odd kernels such as (3, 5): {self.kernels}")
        for width, group in itertools.product(self.widths, self.groups):
            if width % group:
                raise InvalidSetting(f"memory_bank cannot divide a width of {width} by {group}")


def _block(label: str, width: int, options: _Options) -> nn.Module:
    low, high = options.depth
    ops = [_operation(f"{label}.op{i + 1}", width, options) for i in range(high)]
    stack = nn.Sequential(*ops) if low == high else Depth(*ops, min=low, label=f"{label}.ops")
    return named(open=_open(options.banks), ops=stack, close=_concat())


def _operation(label: str, width: int, options: _Options) -> fx.GraphModule:
    """Return the module from the list of banks to the list of banks."""
    middle: int = _open_size(Width, [u * width for u in options.units], f"{label}.units")
    kernel: int = _open_size(Kernel, options.kernels, f"{label}.kernel")

    def conv(channels: int) -> list[nn.Module]:
        return [_conv(channels, width, kernel, options, f"{label}.conv"), nn.BatchNorm2d(width)]

    def path(name: str) -> nn.Module:
        first = nn.Sequential(*conv(middle))
        second = nn.Sequential(nn.ReLU(), *conv(width))
        return Depth(first, second, min=1, label=f"{label}.{name}")

    parts = {
        "read": _read(label, width, middle, options.banks),
        "norm": nn.Sequential(nn.BatchNorm2d(middle), nn.ReLU()),
        "path": path("path"),
        "beside": OneOf(none=_untouched(), path=_added(path("other")), label=f"{label}.beside"),
        "write": _write(label, options.banks),
    }

    def wire(graph: fx.Graph, banks: fx.Node) -> fx.Node:
        x = graph.call_module("norm", (graph.call_module("read", (banks,)),))
        y = graph.call_module("beside", (x, graph.call_module("path", (x,))))
        return graph.call_module("write", (banks, y))

    return blocks.wired(wire, "banks", **parts)


def _read(label: str, width: int, middle: int, banks: int) -> nn.Module:
    def reader(count: int) -> nn.Module:
        every = count == banks
        pick = {} if every else {"pick": Inputs(banks, count, label=f"{label}.read{count}")}
        conv = nn.Conv2d(count * width, middle, 1, bias=False)
        return named(**pick, concat=_concat(), conv=conv)

    counts = range(1, banks + 1)
    return OneOf({f"r{count}": reader(count) for count in counts}, label=f"{label}.reads")


def _write(label: str, banks: int) -> nn.Module:
    sets = [s for n in range(1, banks + 1) for s in itertools.combinations(range(banks), n)]
    return OneOf({_write_name(s): _adder(s, banks) for s in sets}, label=f"{label}.write")


def _write_name(banks: Sequence[int]) -> str:
    return "w" + "_".join(map(str, sorted(banks)))


def _conv(channels: int, out: int, kernel: int, options: _Options, label: str) -> nn.Module:
    convs: dict[str, nn.Module] = {}
    for group in options.groups:
        weight = None
        for dilation in options.dilations:
            conv = nn.Conv2d(
                channels, out, kernel, padding=dilation * (kernel // 2), dilation=dilation,
                groups=group, bias=False,
            )  # fmt: skip
            weight = conv.weight = conv.weight if weight is None else weight
            convs[f"d{dilation}g{group}"] = conv
    return OneOf(convs, label=label) if len(convs) > 1 else next(iter(convs.values()))


def _open_size(kind: Any, sizes: Sequence[int], label: str) -> int:
    size: int = kind(*sizes, label=label) if len(sizes) > 1 else sizes[0]
    return size


# --- graphs, which hold no class of Assay's -------------------------------------------------------


def _open(banks: int) -> fx.GraphModule:
    """Return the module from the block's input to its banks."""

    def wire(graph: fx.Graph, x: fx.Node) -> list[fx.Node]:
        zeros = graph.call_function(torch.zeros_like, (x,))
        return [x, *[zeros] * (banks - 1)]

    return blocks.wired(wire, "x")


def _concat() -> fx.GraphModule:
    return blocks.wired(lambda graph, xs: graph.call_function(torch.cat, (xs, 1)), "xs")


def _untouched() -> fx.GraphModule:
    return blocks.wired(lambda graph, x, y: y, "x", "y")


def _added(path: nn.Module) -> fx.GraphModule:
    def wire(graph: fx.Graph, x: fx.Node, y: fx.Node) -> fx.Node:
        return graph.call_function(operator.add, (y, graph.call_module("path", (x,))))

    return blocks.wired(wire, "x", "y", path=path)


def _adder(written: Sequence[int], banks: int) -> fx.GraphModule:
    """Return the module (banks, y) -> banks, with y added to those that are written."""

    def wire(graph: fx.Graph, held: fx.Node, y: fx.Node) -> list[fx.Node]:
        after = [graph.call_function(operator.getitem, (held, i)) for i in range(banks)]
        for i in written:
            after[i] = graph.call_function(operator.add, (after[i], y))
        return after

    return blocks.wired(wire, "banks", "y")
