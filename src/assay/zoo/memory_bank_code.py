"""A memory-bank architecture as an image, for SMASH's convolutional hypernetwork."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from assay.architecture import Architecture
from assay.errors import InvalidSpace
from assay.space.space import Space

__all__ = ["BankCode"]

_DECISIONS = ("units", "kernel", "conv", "path", "beside", "other")


class BankCode:
    """Lays architectures out: a row for each operation of each block, a column for each bank.

    Channels, each +1, -1, or 0 where the operation or the decision is absent: whether the bank is
    read; whether it is written; then, alike in all columns, one-hot codes of the block and of the
    operation's other decisions.

    Source: Brock et al. 2017, "SMASH", arXiv:1708.05344, section 3.2; differs: a column is a bank,
    not a run of its channels.

    Args:
        space: A memory-bank space.
    Raises:
        InvalidSpace: it is another space.
    """

    def __init__(self, space: Space) -> None:
        if "block1.op1.write" not in space.choices:
            raise InvalidSpace(
                f"{space!r} is no memory-bank space, and SMASH's code tells of banks only; use "
                "the generator 'mlp' for other spaces"
            )
        self._choices = space.choices
        writes = [label for label in space.choices if label.endswith(".write")]
        self._ops = [label.removesuffix(".write") for label in writes]
        self._blocks = list(dict.fromkeys(op.partition(".")[0] for op in self._ops))
        # All non-empty sets of banks can be written: 2^n - 1 options.
        self._banks = len(space.choices[writes[0]].options).bit_length()

    @property
    def channels(self) -> int:
        """How many channels the image has."""
        first = self._ops[0]
        known = [f"{first}.{name}" for name in _DECISIONS if f"{first}.{name}" in self._choices]
        return 2 + len(self._blocks) + sum(len(self._choices[la].options) for la in known)

    @property
    def reads(self) -> Mapping[str, int]:
        """Path of each 1x1 convolution that reads banks -> how many it reads."""
        return {
            self._path(op, count): count for op in self._ops for count in range(1, self._banks + 1)
        }

    def image(self, architecture: Architecture) -> Tensor:
        """Return the image `[channels, operations, banks]`."""
        image = torch.zeros(self.channels, len(self._ops), self._banks)
        for row, op in self._active(architecture):
            for channel, banks in enumerate(
                (self._read(op, architecture), self._written(op, architecture))
            ):
                image[channel, row] = -1.0
                image[channel, row, banks] = 1.0
            code = torch.tensor(list(self._decisions(op, architecture)))
            image[2:, row] = code[:, None]
        return image

    def cells(self, architecture: Architecture) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Return (row, column) of each bank read, by the path of the 1x1 convolution."""
        found = {}
        for row, op in self._active(architecture):
            banks = self._read(op, architecture)
            found[self._path(op, len(banks))] = [(row, bank) for bank in banks]
        return found

    def _active(self, architecture: Architecture) -> Iterator[tuple[int, str]]:
        return ((i, op) for i, op in enumerate(self._ops) if f"{op}.write" in architecture)

    def _read(self, op: str, architecture: Architecture) -> list[int]:
        count = int(str(architecture[f"{op}.reads"]).removeprefix("r"))
        if count == self._banks:
            return list(range(count))
        return list(architecture[f"{op}.read{count}"])  # type: ignore[arg-type]

    @staticmethod
    def _written(op: str, architecture: Architecture) -> list[int]:
        return [int(bank) for bank in str(architecture[f"{op}.write"]).removeprefix("w").split("_")]

    def _decisions(self, op: str, architecture: Architecture) -> Iterator[float]:
        block = op.partition(".")[0]
        yield from (1.0 if name == block else -1.0 for name in self._blocks)
        for name in _DECISIONS:
            choice = self._choices.get(f"{op}.{name}")
            if choice is None:
                continue
            taken = architecture.get(choice.label)
            yield from (
                0.0 if taken is None else 1.0 if o == taken else -1.0 for o in choice.options
            )

    @staticmethod
    def _path(op: str, count: int) -> str:
        block, _, number = op.partition(".op")
        return f"{block}.ops.{int(number) - 1}.read.r{count}.conv"
