"""Models whose own code makes it hard to tell what an architecture calls."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Kernel, Width


class Reads(nn.Module):
    """Its forward reads open sizes and sliced weights off its layers, also off inner ones."""

    def __init__(self) -> None:
        super().__init__()
        w, v = Width(4, 6, 8), Width(2, 3)
        self.a = nn.Sequential(nn.Linear(6, w), nn.ReLU())
        self.b = nn.Linear(6, v)
        self.c = nn.Linear(w, 2)
        self.gate = OneOf(x=nn.Linear(2, 2), y=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).view(-1, self.a[0].out_features // 2, 2).flatten(1)
        z = F.linear(x, self.b.weight)  # the layer itself is never called
        rows = self.gate(y.new_zeros(len(x) * self.b.weight.shape[0], 2))
        return self.c(y) + z.sum(1, keepdim=True) + rows.sum()


class Block(nn.Module):
    """A residual block of an ordinary user, with an open kernel of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        k = Kernel(1, 3, 5)
        self.conv = nn.Conv2d(channels, channels, k, padding=k // 2, groups=2)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.Hardswish()
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.act(self.norm(self.conv(x))))


class Looped(nn.Module):
    """Blocks in a ModuleList, called in a loop, the last one twice; one shared width."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        w = Width(4, 8)
        self.stem = nn.Conv2d(3, w, 3)
        self.blocks = nn.ModuleList(
            OneOf(block=Block(w), pool=nn.AvgPool2d(3, 1, 1), skip=nn.Identity())
            for _ in range(blocks)
        )
        self.head = nn.ModuleDict({"linear": nn.Linear(w, 5)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        if x.shape[-1] > 2:
            x = F.max_pool2d(self.blocks[-1](x), 2)
        return self.head["linear"](x.mean((2, 3)))


class Slim(nn.Module):
    """Open sizes everywhere and no choice of modules: every call hangs on many decisions."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        channels = 3
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            w, k = Width(2, 4, 6), Kernel(1, 3)
            self.blocks.append(
                nn.ModuleDict({"conv": nn.Conv2d(channels, w, k, padding=k // 2),
                               "norm": nn.BatchNorm2d(w)})
            )  # fmt: skip
            channels = w
        self.head = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block["norm"](block["conv"](x)).relu()
        return self.head(x.mean((2, 3)))


class Padded(nn.Module):
    """Reads sequences up to their lengths, and other integers of the lengths' shape as places."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(9, 4), nn.Embedding(2, 4)
        self.read = OneOf(small=Recurrent(3), large=Recurrent(5))
        self.last = OneOf(linear=nn.Linear(4, 4), tanh=nn.Tanh())

    def forward(self, ids: Tensor, lengths: Tensor, kinds: Tensor) -> Tensor:
        return self.last(self.read(self.words(ids) + self.kinds(kinds)[:, None], lengths - 1))


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, width, batch_first=True)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class Cell(nn.Module):
    """Nodes that choose their predecessors and operations; the cell is used in two places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = OneOf(conv=nn.Conv2d(channels, channels, 3, padding=1), none=nn.Identity())
        self.second = OneOf(conv=nn.Conv2d(channels, channels, 1), pool=nn.MaxPool2d(3, 1, 1))
        self.pick = Inputs(3, 2)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        y = self.first(x)
        z = self.second(y + x)
        return torch.cat(self.pick([x, y, z]), 1) * scale


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        cell = Cell(4)
        self.here, self.there = cell, nn.ModuleList([cell])
        self.mix = Depth(*[nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()) for _ in range(2)], min=0)
        self.back = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = self.back(self.mix(self.here(x, scale=2.0)))
        out = self.there[0](z[:, :, ::2]) @ y
        return {"out": out}


class Attentive(nn.Module):
    """A token mixer with a choice, layers without rules, and operations between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.mixer = OneOf(
            attention=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            memory=nn.Sequential(nn.Linear(8, 8), Squares()),
        )
        self.pool = nn.MultiheadAttention(8, 2, batch_first=True)
        w = Width(3, 5)
        self.last = Tied(8, w)
        self.out = nn.Linear(w, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.mixer(self.embed(tokens))
        y, _ = self.pool(x, x, x, need_weights=False)
        return self.out(self.last(y)) @ torch.eye(2)[0]


class Squares(nn.Module):
    """A layer of a user's own, without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.dot(self.scale, self.scale)


class Tied(nn.Linear):
    """A torch layer with another forward, and an open size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean()


class Outputs(OrderedDict[str, Any]):
    """Outputs by name, also as attributes, as libraries of transformers return them."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.__dict__[name] = value


class Attributes(dict[str, Any]):
    """A dict that is its own attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Encoder(nn.Module):
    """Returns its results by name, in a kind of dict that it is given."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind
        self.layer = OneOf(a=nn.Linear(4, 4), b=nn.Identity())

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return self.kind(last=y, pooled=y.mean(1, keepdim=True))


class Named(nn.Module):
    """Its forward reads the results of a part as attributes."""

    def __init__(self, kind: type = Outputs) -> None:
        super().__init__()
        self.encoder = Encoder(kind)
        self.mix = nn.Bilinear(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.encoder(x)
        return self.mix(found.last, found.pooled) + found["last"].mean()
