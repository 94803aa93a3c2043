"""Small networks of every family, in float64, with norm statistics that nothing can hide behind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.space.spaces import randomise_norms


def conv_norm(i: int, o: int, kernel: int = 3, **settings: int) -> nn.Sequential:
    conv = nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False, **settings)
    return nn.Sequential(conv, nn.BatchNorm2d(o))


class VGG(nn.Sequential):
    """A chain, pooled, flattened with its positions, and a head of linear layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 3, padding=1), nn.PReLU(5),
            nn.Flatten(),
            nn.Linear(5 * 9, 6), nn.BatchNorm1d(6), nn.ReLU6(), nn.Dropout(),
            nn.Linear(6, 3),
        )  # fmt: skip


class ResNet(nn.Module):
    """Blocks that add: one keeps its shape, one has a shortcut of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(2, 4)
        self.body = nn.Sequential(conv_norm(4, 6), nn.ReLU(), conv_norm(6, 4))
        self.down = nn.Sequential(conv_norm(4, 6, stride=2), nn.ReLU(inplace=True), conv_norm(6, 8))
        self.shortcut = conv_norm(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.body(x))
        x = torch.add(self.down(x), self.shortcut(x)).relu()
        return self.head(x.mean((2, 3)))


class Inception(nn.Module):
    """Branches side by side, concatenated, one of them pooled, flattened by a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(2, 4)
        self.one = conv_norm(4, 3, 1)
        self.three = nn.Sequential(conv_norm(4, 2, 1), nn.ReLU(), conv_norm(2, 5))
        self.mixed = conv_norm(12, 4, 1)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        pooled = F.avg_pool2d(x, 3, 1, 1)
        x = torch.cat([self.one(x), self.three(x), pooled], dim=1)
        x = F.max_pool2d(F.relu(self.mixed(x)), 2)
        return self.head(x.view(x.size(0), -1))


class Dense(nn.Module):
    """Each layer reads all before it; norms over what was concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(4 + 3 * i), nn.ReLU(), nn.Conv2d(4 + 3 * i, 3, 3, padding=1)
            )
            for i in range(3)
        )
        self.norm = nn.BatchNorm2d(13)
        self.head = nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class Mobile(nn.Module):
    """Inverted bottleneck: depthwise, squeeze-excite of linear layers and of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = conv_norm(2, 6, 1)
        self.depthwise = conv_norm(6, 6, groups=6)
        self.squeeze, self.excite = nn.Linear(6, 2), nn.Linear(2, 6)
        self.project = conv_norm(6, 4, 1)
        self.doubled = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.last = conv_norm(8, 8, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 3, 1), nn.SiLU(), nn.Conv2d(3, 8, 1), nn.Sigmoid()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(F.relu6(self.expand(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        x = self.last(self.doubled(self.project(x * gate[:, :, None, None])))
        return self.head(x * self.gate(x))


class Grouped(nn.Module):
    """Grouped convolutions of two kinds on one stretch of channels, and a sum after them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(2, 12, 1)
        self.thirds = nn.Conv2d(12, 6, 3, padding=1, groups=3)
        self.halves = nn.Conv2d(12, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(6 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(torch.flatten(self.thirds(x) + self.halves(x), 1))


class MLP(nn.Module):
    """Linear layers with a residual sum, and one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.up, self.twice, self.down = nn.Linear(72, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.up(self.flat(x)))
        return self.down(x + torch.tanh(self.twice(torch.tanh(self.twice(x)))))


FAMILIES: list[Callable[[], nn.Module]] = [VGG, ResNet, Inception, Dense, Mobile, Grouped, MLP]


def network(family: Callable[[], nn.Module]) -> nn.Module:
    """Return one in float64 and eval mode, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = family().double().eval()
    randomise_norms(model)
    return model


def images(side: int = 6, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, side, side, dtype=torch.float64, generator=generator)
