"""ResNet, DenseNet and FractalNet are memory-bank networks: equal to ones written by hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from assay.cost import derive
from assay.errors import InvalidArchitecture, InvalidSetting, InvalidSpace
from assay.space.space import Space
from assay.zoo.memory_bank import densenet, fractalnet, memory_bank, resnet, wired
from assay.zoo.memory_bank_code import BankCode
from assay.zoo.mobile import mobile
from tests.space.spaces import randomise_norms

WIDTH = 4


def space(banks: int, ops: int, **options) -> Space:
    plain = {"units": (1,), "dilations": (1,), "groups": (1,)} | options
    made = memory_bank(widths=(WIDTH,), depth=(1, ops), banks=banks, **plain)
    made.model.double().eval()
    randomise_norms(made.model)
    return made


def compare(made: Space, wires, by_hand) -> None:
    """Hold the banks of the built block against what `by_hand(convs, x)` computes, in float64.

    `convs` are the block's operations, each as the layers that a textbook would write: 1x1
    convolution, norm, ReLU, 3x3 convolution, norm.
    """
    block = made.build(wired(made, wires)).get_submodule("block1")
    convs = [nn.Sequential(op.read.conv, op.norm, op.path[0]) for op in block.get_submodule("ops")]
    assert len(convs) == len(wires)
    x = torch.randn(2, WIDTH, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        banks = block(x).split(WIDTH, 1)
        for bank, expected in by_hand(convs, x).items():
            assert expected.abs().max() > 0.1
            assert torch.equal(banks[bank], expected)


def test_resnet_is_a_special_case():
    def by_hand(convs, x: Tensor) -> dict[int, Tensor]:
        for conv in convs:
            x = x + conv(x)
        return {0: x}

    compare(space(banks=2, ops=3), resnet(3), by_hand)


def test_densenet_is_a_special_case():
    def by_hand(convs, x: Tensor) -> dict[int, Tensor]:
        features = [x]
        for conv in convs:
            features.append(conv(torch.cat(features, 1)))
        return dict(enumerate(features))

    compare(space(banks=4, ops=3), densenet(3), by_hand)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_fractalnet_is_a_special_case(columns):
    def by_hand(convs, x: Tensor) -> dict[int, Tensor]:
        left = iter(convs)

        def fractal(columns: int, z: Tensor) -> Tensor:
            if columns == 1:
                return next(left)(z)
            deep = fractal(columns - 1, fractal(columns - 1, z))
            return deep + next(left)(z)

        return {2 ** (columns - 1): fractal(columns, x)}

    wires = fractalnet(columns)
    assert len(wires) == 2**columns - 1
    compare(space(banks=max(2, 2 ** (columns - 1) + 1), ops=max(2, len(wires))), wires, by_hand)


def test_adding_allocates_where_nothing_was_written():
    made = space(banks=3, ops=2)
    block = made.build(wired(made, [((0,), (1,))])).get_submodule("block1")
    x = torch.randn(1, WIDTH, 4, 4).double()
    with torch.no_grad():
        first, second, third = block(x).split(WIDTH, 1)
        op = block.get_submodule("ops.0")
        assert torch.equal(first, x)
        assert torch.equal(second, op.path(op.norm(op.read.conv(x))))
        assert torch.equal(third, torch.zeros_like(x))


def test_two_parallel_paths_of_two_are_added():
    made = space(banks=2, ops=1, kernels=(3, 5))
    point = wired(made, [((0,), (1,))], kernel=5, path=2, beside="path", other=2)
    op = made.build(point).get_submodule("block1.ops.0")
    x = torch.randn(1, WIDTH, 4, 4).double()
    h = op.norm(op.read.conv(x))
    one, two = op.path, op.beside.path
    assert [len(list(p.children())) for p in (one, two)] == [2, 2]
    assert one[0][0].kernel_size == (5, 5)
    assert torch.equal(op.write([x, 0 * x], op.beside(h, op.path(h)))[1], one(h) + two(h))


def test_convolutions_that_differ_in_dilation_have_one_weight():
    made = memory_bank()
    convs = made.model.get_submodule("block1.ops.0.path.0.0")
    assert convs.d1g1.weight is convs.d2g1.weight
    assert convs.d1g1.weight is not convs.d1g2.weight
    point = wired(made, resnet(1), conv="d2g2")
    built = made.build(point).get_submodule("block1.ops.0.path.0.0")
    assert (built.dilation, built.groups, built.padding) == ((2, 2), 2, (2, 2))


def test_its_size_is_that_of_the_formula():
    """Reads and writes: 2^n - 1 each; one path or two, each of one convolution or two: 2 + 4."""
    ways = (2**3 - 1) ** 2 * 6 * 2 * 4
    assert memory_bank().size == (ways + ways**2 + ways**3) ** 2
    assert memory_bank(kernels=(3, 5), depth=(2, 2)).size == (2 * ways) ** 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"banks": 1}, "banks of at least 2, not 1"),
        ({"depth": (2, 1)}, "1 <= fewest <= most"),
        ({"widths": ()}, "widths of at least 1"),
        ({"kernels": (3, 4)}, "odd kernels"),
        ({"groups": (3,)}, "divide a width of 8 by 3"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InvalidSetting, match=message):
        memory_bank(**options)


def test_wires_that_the_space_has_not_are_refused():
    with pytest.raises(InvalidArchitecture, match=r"block1\.ops"):
        wired(space(banks=2, ops=2), resnet(3))
    with pytest.raises(InvalidArchitecture, match=r"block1\.op1\.write"):
        wired(space(banks=2, ops=2), [((0,), (2,))])


def test_a_decision_that_no_operation_has_is_refused():
    with pytest.raises(InvalidArchitecture, match="decides 'unit'; did you mean 'units'"):
        wired(memory_bank(), resnet(3), unit=16)


@pytest.mark.parametrize("ops", [1, 3, 5])
def test_wires_are_as_many_as_the_operations_of_a_depth_that_is_fixed(ops):
    fixed = memory_bank(depth=(2, 2))
    assert fixed.contains(wired(fixed, resnet(2)))
    with pytest.raises(InvalidArchitecture, match=rf"has 2 .* the wires are of {ops}; give 2"):
        wired(fixed, resnet(ops))


# --- SMASH's code of it ---------------------------------------------------------------------------


def test_the_image_shows_reads_writes_and_decisions():
    made = memory_bank(depth=(1, 2), banks=3)
    code = BankCode(made)
    point = wired(made, [((0, 2), (1,))], units=16, conv="d2g1")
    image = code.image(point)
    assert image.shape == (code.channels, 4, 3) == (2 + 2 + 2 + 4 + 2 + 2 + 2, 4, 3)
    assert image[0, 0].tolist() == [1, -1, 1]  # read
    assert image[1, 0].tolist() == [-1, 1, -1]  # written
    assert image[2:, 0, 1].tolist() == [
        *(1, -1),  # block1
        *(-1, 1),  # units 16
        *(-1, 1, -1, -1),  # d2g1, the second of the options
        *(1, -1),  # a path of one convolution
        *(1, -1),  # nothing beside it
        *(0, 0),  # so its length is no decision
    ]
    assert image[:, 1].abs().max() == 0  # the second operation of the block does not run
    assert image[2:4, 2, 0].tolist() == [-1, 1]  # block2


def test_different_architectures_have_different_images():
    made = memory_bank(widths=(4,), depth=(1, 1), units=(1,), dilations=(1,), groups=(1,))
    code = BankCode(made)
    images = {code.image(point).numpy().tobytes() for point in made.all()}
    assert len(images) == made.size


def test_cells_lie_where_the_banks_read_are():
    made = memory_bank(depth=(1, 2), banks=3)
    code = BankCode(made)
    layers = dict(made.model.named_modules())
    assert all(layers[path].in_channels % count == 0 for path, count in code.reads.items())
    cells = code.cells(wired(made, [((0, 2), (1,)), ((0, 1, 2), (0,))]))
    assert cells == {
        "block1.ops.0.read.r2.conv": [(0, 0), (0, 2)],
        "block1.ops.1.read.r3.conv": [(1, 0), (1, 1), (1, 2)],
        "block2.ops.0.read.r2.conv": [(2, 0), (2, 2)],
        "block2.ops.1.read.r3.conv": [(3, 0), (3, 1), (3, 2)],
    }
    drawn = made.sample(derive(0, "cells"))
    built = [path for path, _ in made.build(drawn).named_modules() if path.endswith("read.conv")]
    assert [re.sub(r"\.r\d", "", path) for path in code.cells(drawn)] == built


def test_another_space_has_no_such_code():
    with pytest.raises(InvalidSpace, match="no memory-bank space"):
        BankCode(mobile())
