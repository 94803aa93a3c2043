"""Random models with choices, for the laws that every space obeys."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Kernel, Width


def conv(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def separable(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels),
        nn.Conv2d(channels, channels, 1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class Chain(nn.Module):
    """The model of the README: six interchangeable positions and an open width."""

    def __init__(self, blocks: int = 6) -> None:
        super().__init__()
        w = Width(32, 48, 64)
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.Sequential(
            *[
                OneOf(
                    conv3=conv(16, 3), conv5=conv(16, 5), sep3=separable(16, 3), skip=nn.Identity()
                )
                for _ in range(blocks)
            ]
        )
        self.neck = nn.Sequential(nn.Linear(16, w), nn.ReLU())
        self.head = nn.Linear(w, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(self.stem(x)).mean((2, 3))))


class Tangle(nn.Module):
    """Every kind of choice, nested, shared, concatenated and depthwise, with a dynamic forward."""

    shape = (1, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        w, v, k = Width(4, 6, 8), Width(3, 5), Kernel(3, 5, 7)
        self.a = nn.Conv2d(1, w, k, padding=k // 2)
        self.b = nn.Conv2d(1, v, 1)
        self.norm = nn.BatchNorm2d(w + v)
        self.depthwise = nn.Conv2d(
            w + v, w + v, k, padding=k // 2, groups=w + v, padding_mode="reflect"
        )
        self.stack = Depth(
            *[
                OneOf(
                    x=OneOf(p=nn.Conv2d(w + v, w + v, 1), q=nn.ReLU(), label=f"inner.{i}"),
                    skip=nn.Identity(),
                )
                for i in range(3)
            ],
            min=0,
        )
        self.pick = Inputs(3, 2)
        self.norm2 = nn.LayerNorm([w + v, 4, 4])
        self.head = nn.Linear((w + v) * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.norm(torch.cat([self.a(x), self.b(x)], 1)))
        z = self.stack(y)
        return self.head(self.norm2(sum(self.pick([y, z, y * z]))).flatten(1))


class Drawn(nn.Module):
    """A chain of drawn blocks on `[N, 2, 6, 6]`, with widths that meet in residual sums."""

    shape = (2, 6, 6)

    def __init__(self, plan: list[tuple[str, int]], shared: bool) -> None:
        super().__init__()
        common = Width(4, 8)
        self.blocks = nn.ModuleList()
        channels: int = 2
        for i, (kind, n) in enumerate(plan):
            width: int = common if shared else Width(2, 4, 8) if n % 2 else 4
            self.blocks.append(_block(kind, channels, width, n, f"own.{i}" if n > 2 else None))
            channels = width
        self.norm = nn.GroupNorm(2, channels)
        self.out = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            y = block(x)
            x = y + x if i % 2 and y.shape == x.shape else y
        return self.out(self.norm(x).mean((2, 3)))


class Keeps(nn.Module):
    """Keeps what it computed as attributes, on `[N, 3]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = OneOf(a=nn.Linear(3, 4), b=nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.op(x)
        self.seen = [self.features, (2 * self.features, {"x": 3 * self.features})]
        return self.head(self.features)


class Reads(nn.Module):
    """A node that reads two of three predecessors."""

    def __init__(self, i: int, o: int, label: str | None) -> None:
        super().__init__()
        self.pick = Inputs(3, 2, label=label)
        self.paths = nn.ModuleList(nn.Conv2d(i, o, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.pick([path(x) for path in self.paths])
        return first - 0.5 * second


class Joined(nn.Module):
    """Concatenated channels, each part of an own width."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        w, v = Width(2, 3, 5), Width(1, 4)
        self.a, self.b = nn.Conv2d(i, w, 1), nn.Conv2d(i, v, 1)
        self.norm = nn.BatchNorm2d(w + v)
        self.out = nn.Conv2d(w + v, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(torch.cat([self.a(x), self.b(x)], 1)))


class Gated(nn.Module):
    """Flattened channels (a product), and a width that the block's own code reads."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.width = o
        self.conv = nn.Conv2d(i, o, 1)
        self.gate = nn.Linear(o * 36, o)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * self.gate(y.flatten(1)).sigmoid().view(-1, self.width, 1, 1)


def _block(kind: str, i: int, o: int, n: int, label: str | None) -> nn.Module:
    if kind == "kernel":
        k = Kernel(1, 3, 5, label=label)
        return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2), nn.BatchNorm2d(o))
    if kind == "pool":
        k = Kernel(1, 3, 5, label=label)
        pool = nn.MaxPool2d(k, 1, k // 2) if n % 2 else nn.AvgPool2d(k, 1, k // 2)
        return nn.Sequential(nn.Conv2d(i, o, 1), pool)
    if kind == "inputs":
        return Reads(i, o, label)
    if kind == "joined":
        return Joined(i, o)
    if kind == "gated":
        return Gated(i, o)
    if kind == "layernorm":
        return nn.Sequential(nn.Conv2d(i, o, 1), nn.LayerNorm([o, 6, 6]))
    if kind == "nested":
        deep = Depth(nn.Conv2d(i, o, 1), _block("kernel", o, o, n, None), Joined(o, o))
        return OneOf(deep=deep, x=_block("oneof", i, o, n, None), label=label)
    if kind == "oneof":
        return OneOf({"3x3": nn.Conv2d(i, o, 3, padding=1), "1x1": nn.Conv2d(i, o, 1)}, label=label)
    if kind == "grouped":
        return nn.Sequential(
            nn.Conv2d(i, o, 1), nn.Conv2d(o, o, 3, padding=1, groups=2), nn.PReLU(o)
        )
    if kind == "depthwise":
        return nn.Sequential(nn.Conv2d(i, o, 1), nn.Conv2d(o, o, 3, padding=1, groups=o))
    first = nn.Sequential(nn.Conv2d(i, o, 1), nn.ReLU())
    rest = [nn.Sequential(nn.Conv2d(o, o, 1), nn.BatchNorm2d(o)) for _ in range(1 + n % 2)]
    return Depth(first, *rest, min=1, label=label)


BLOCKS = ["kernel", "pool", "inputs", "joined", "gated", "layernorm", "nested", "oneof"]
BLOCKS += ["grouped", "depthwise", "depth"]


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    blocks = st.tuples(st.sampled_from(BLOCKS), st.integers(0, 4))
    plan = draw(st.lists(blocks, min_size=1, max_size=4))
    return Drawn([*plan, ("oneof", 0)], draw(st.booleans()))


def randomise_norms(model: nn.Module, seed: int = 0) -> None:
    """Make norm statistics and weights random, so that a wrong slice cannot hide."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if tensor.is_floating_point():
                    low = 0.5 if name in ("weight", "running_var") else -1.0
                    values = rng.uniform(low, 2.0, tensor.shape)
                    tensor.data.copy_(torch.from_numpy(values))


def macs_of(network: nn.Module, x: Tensor) -> int:
    """Count the multiply-accumulates of convolutions and linear layers, by what they return."""
    total = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    for module in network.eval().modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    network(x)
    return total
