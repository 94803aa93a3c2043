"""The convolutional hypernetwork of SMASH: from an image of the architecture to 1x1 weights.

The image has a row for each operation and a column for each memory bank. What comes out at a cell
is the part of the operation's 1x1 convolution that reads this bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.architecture import Architecture
from assay.space.space import Space
from assay.weights.hypernet import Generator, Target, normalised, targets

__all__ = ["BankGenerator", "Cells", "Code"]

Cells = Mapping[str, Sequence[tuple[int, int]]]
"""Path of a 1x1 convolution -> the (row, column) of each bank that it reads, in its order."""

_LAYERS = 4
_SLOPE = 0.02


class Code(Protocol):
    """How an architecture of memory banks is laid out as an image."""

    @property
    def channels(self) -> int:
        """How many channels the image has."""
        ...

    @property
    def reads(self) -> Mapping[str, int]:
        """Path of each 1x1 convolution to generate -> how many banks it reads."""
        ...

    def image(self, architecture: Architecture) -> Tensor:
        """Return the image `[channels, rows, columns]`."""
        ...

    def cells(self, architecture: Architecture) -> Cells:
        """Return where the parts of each 1x1 convolution that runs come out."""
        ...


class BankGenerator(Generator):
    """A densely connected, fully convolutional network over the image of an architecture.

    Every convolution is without bias and normalised by its Frobenius norm, as the weights that
    come out are. The channels at a cell are its part of the weight, row by row, so what a bank
    gets depends on that bank and its neighbours, wherever it stands in the concatenation.

    Source: Brock et al. 2017, "SMASH", arXiv:1708.05344, section 3.2; differs: one cell is one
    bank of one operation, where the authors' cells are runs of channels; four layers of `hidden`;
    the code carries no noise.

    Args:
        space: The space.
        code: How its architectures are laid out.
        hidden: Channels that each layer adds.
    Raises:
        UnsupportedLayer: a 1x1 convolution has an open kernel.
    """

    def __init__(self, space: Space, code: Code, hidden: int) -> None:
        super().__init__()
        self.targets = targets(space, list(code.reads))
        self._code = code
        self._out = max(t.shape[0] for t in self.targets)
        self._in = max(t.shape[1] // code.reads[t.path] for t in self.targets)
        sizes = [code.channels + i * hidden for i in range(_LAYERS + 1)]
        self.layers = nn.ModuleList(_Conv(size, hidden, 3) for size in sizes[:-1])
        self.last = _Conv(sizes[-1], self._out * self._in, 1)

    def forward(self, architecture: Architecture, active: Sequence[Target]) -> list[Tensor]:
        """Return a raw weight for each of the active targets."""
        cells = self._code.cells(architecture)
        image = self._code.image(architecture).to(self.last.weight)
        grid = self._grid(image)
        return [self._weight(grid, cells[target.path], target) for target in active]

    def _grid(self, image: Tensor) -> Tensor:
        """Return the parts of all cells, `[rows, columns, out, in]`."""
        x = image[None]
        for layer in self.layers:
            x = torch.cat([x, functional.leaky_relu(layer(x), _SLOPE)], 1)
        grid: Tensor = self.last(x)[0].permute(1, 2, 0)
        return grid.reshape(*grid.shape[:2], self._out, self._in)

    def _weight(self, grid: Tensor, cells: Sequence[tuple[int, int]], target: Target) -> Tensor:
        out, width = target.shape[0], target.shape[1] // len(cells)
        parts = [grid[row, column, :out, :width] for row, column in cells]
        return torch.cat(parts, 1).view(target.shape)


class _Conv(nn.Conv2d):
    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, normalised(self.weight), padding=self.padding)
