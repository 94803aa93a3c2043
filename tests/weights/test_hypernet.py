from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSpace, UnsupportedLayer
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Kernel
from assay.space.slicing import take
from assay.space.space import Space
from assay.testing.tiny import tiny_space
from assay.weights.hypernet import Generated, TileGenerator, normalised, targets
from assay.weights.smash import BankGenerator
from assay.zoo.memory_bank import memory_bank, wired
from assay.zoo.memory_bank_code import BankCode
from assay.zoo.mobile import Stage, mobile
from tests.space.spaces import randomise_norms


def small_mobile() -> Space:
    stages = (Stage((4, 6), (1, 2)), Stage((6, 8), (1, 2), stride=2))
    return mobile(stages=stages, stem=4, head=8, kernels=(3,), expansions=(1, 2))


def small_bank(**options) -> Space:
    return memory_bank(**{"widths": (4, 6), "depth": (1, 2), "groups": (1,)} | options)


def with_tiles(space: Space) -> Generated:
    return Generated(space, TileGenerator(space, hidden=7))


def with_banks(space: Space) -> Generated:
    return Generated(space, BankGenerator(space, BankCode(space), hidden=3))


CASES = {
    "a network of the user's": (lambda: with_tiles(tiny_space()), (4, 6)),
    "mobile": (lambda: with_tiles(small_mobile()), (4, 1, 8, 8)),
    "memory bank": (lambda: with_tiles(small_bank()), (4, 1, 8, 8)),
    "memory bank, convolutional": (lambda: with_banks(small_bank(kernels=(3, 5))), (4, 1, 8, 8)),
}
every_case = pytest.mark.parametrize("case", CASES)


def made(case: str) -> tuple[Generated, Tensor]:
    make, shape = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().double()
        return network, torch.randn(*shape).double()


def points(network: Generated, num: int = 4) -> list[Architecture]:
    rng = derive(0, "points")
    return [network.space.sample(rng) for _ in range(num)]


def by_hand(network: Generated, point: Architecture) -> nn.Module:
    """The network built after the generated weights were written over the parameters."""
    written, sizes = network.weights(point), network.space.sizes(point)
    for target in network.generator.targets:
        if target.path in written:
            whole = target.layer._parameters["weight"].data
            here = take(whole, target.open.regions(sizes)["weight"]) if target.open else whole
            here.copy_(written[target.path])
    return network.space.build(point)


@every_case
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_the_built_network_does(case, training):
    network, x = made(case)
    randomise_norms(network.model)
    network.train(training)
    for point in points(network):
        network.space.select(None)
        plain = by_hand(network, point).train(training)
        network.select(point)
        with torch.no_grad():
            assert (network(x) - plain(x)).abs().max() <= 1e-9


@every_case
def test_gradients_are_those_of_finite_differences(case):
    network, x = made(case)
    randomise_norms(network.model)  # a bias of zero may lie at the corner of a ReLU
    network.eval()
    network.select(points(network)[0])
    network(x).square().mean().backward()
    checked = 0
    for parameter in network.parameters():
        if parameter.grad is None or not parameter.grad.any():
            continue
        at = parameter.grad.flatten().abs().argmax()
        values, eps = parameter.data.view(-1), 1e-6
        sides = []
        for sign in (1, -1):
            values[at] += sign * eps
            with torch.no_grad():
                sides.append(float(network(x).square().mean()))
            values[at] -= sign * eps
        difference = (sides[0] - sides[1]) / (2 * eps)
        assert difference == pytest.approx(float(parameter.grad.flatten()[at]), rel=1e-4, abs=1e-8)
        checked += 1
    assert checked > len(list(network.generator.parameters()))


@every_case
def test_a_forward_leaves_the_model_as_it_was(case):
    network, x = made(case)
    before = {k: v.clone() for k, v in network.model.named_parameters()}
    for point in points(network):
        network.select(point)
        views = [dict(t.layer.__dict__) for t in network.generator.targets]
        network.train()(x).sum().backward()
        assert [dict(t.layer.__dict__) for t in network.generator.targets] == views
    network.space.select(None)
    assert not any("weight" in t.layer.__dict__ for t in network.generator.targets)
    assert all(torch.equal(v, before[k]) for k, v in network.model.named_parameters())
    assert all(t.layer.weight.grad is None for t in network.generator.targets)


def test_a_failed_forward_leaves_the_model_as_it_was():
    network, _ = made("a network of the user's")
    network.select(points(network)[0])
    with pytest.raises(RuntimeError, match="shapes"):
        network(torch.zeros(1, 5).double())
    network.space.select(None)
    assert not any("weight" in t.layer.__dict__ for t in network.generator.targets)


@pytest.mark.parametrize("shape", [(6, 3), (16, 8, 3, 3), (12, 1, 5, 5)])
def test_a_normalised_weight_keeps_the_variance(shape):
    generator = torch.Generator().manual_seed(0)
    weight = normalised(7.0 * torch.randn(*shape, generator=generator).double())
    assert float(weight.square().sum()) == pytest.approx(shape[0])
    inputs = torch.randn(20_000, weight[0].numel(), generator=generator).double()
    assert float((inputs @ weight.flatten(1).T).var()) == pytest.approx(1.0, abs=0.05)


def test_a_weight_depends_on_the_whole_architecture():
    network, _ = made("a network of the user's")
    code = network.generator.code.weight.data  # zeros at first
    code.copy_(torch.randn(code.shape, generator=torch.Generator().manual_seed(0)))
    label = next(la for la, c in network.space.choices.items() if c.kind == "Width")
    here, there = (
        network.weights(Architecture({"body": 1, "body.0": "wide", label: width}))["body.0.wide.0"]
        for width in (4, 8)
    )
    assert here.shape == there.shape
    assert not torch.allclose(here, there)


def test_what_is_written_and_what_is_shared():
    """Stem: always there. Body, neck and head: in a choice, or of an open width."""
    paths = [t.path for t in targets(tiny_space())]
    in_body = [f"body.{i}.{op}" for i in range(5) for op in ("wide.0", "thin.0", "thin.1")]
    assert paths == [*in_body, "neck.0", "head"]


def test_a_weight_that_two_layers_share_stays_one():
    paths = [t.path for t in targets(memory_bank(widths=(4,), depth=(1, 2), groups=(1,)))]
    assert all(".read." in path for path in paths)  # dilations share their k x k weights


def test_the_number_of_parameters_is_that_of_the_formula():
    space = small_mobile()
    tiles = sum(math.ceil(t.shape.numel() / 256) for t in targets(space))
    code = len(space.encode(space.smallest()))
    for hidden in (5, 40):
        generator = TileGenerator(space, hidden)
        count = sum(p.numel() for p in generator.parameters())
        assert count == hidden * (tiles + (code + 1) + (hidden + 1) + 256)


def test_a_bank_gets_what_comes_out_at_its_cell():
    network, _ = made("memory bank, convolutional")
    code = BankCode(network.space)
    grids = []
    network.generator.last.register_forward_hook(lambda _m, _args, out: grids.append(out[0]))
    point = wired(network.space, [((0, 2), (1,)), ((1,), (0,))])
    active = [t for t in network.generator.targets if t.path in code.cells(point)]
    most = max(t.shape[0] for t in network.generator.targets)
    for target, weight in zip(active, network.generator(point, active)):
        cells, (out, channels) = code.cells(point)[target.path], target.shape[:2]
        width = channels // len(cells)
        for i, (row, column) in enumerate(cells):
            tile = grids[0][:, row, column].view(most, -1)[:out, :width]
            assert torch.equal(weight[:, i * width : (i + 1) * width, 0, 0], tile)


def test_the_scale_of_a_hypernetwork_convolution_does_not_matter():
    network, _ = made("memory bank, convolutional")
    point = points(network)[0]
    before = network.weights(point)
    for parameter in network.generator.parameters():
        parameter.data.mul_(10.0)
    for path, weight in network.weights(point).items():
        assert torch.allclose(weight, before[path], rtol=1e-9, atol=1e-12)


def test_open_kernels_are_refused_by_name():
    kernel = Kernel(3, 5)
    body = Depth(*[nn.Conv2d(2, 2, kernel, padding=kernel // 2) for _ in range(4)], min=1)
    with pytest.raises(UnsupportedLayer, match=r"for Kernel choices in body\.0; make them options"):
        TileGenerator(Space(nn.Sequential(OrderedDict(body=body))), 4)


def test_a_space_without_a_weight_to_write_is_refused():
    space = Space(nn.Sequential(nn.Linear(2, 2), OneOf(a=nn.ReLU(), b=nn.Tanh())))
    with pytest.raises(InvalidSpace, match="no weight to write"):
        TileGenerator(space, 4)


def test_an_architecture_without_a_weight_to_write_runs():
    space = Space(nn.Sequential(nn.Linear(2, 2), OneOf(a=nn.Linear(2, 2), b=nn.Tanh())))
    network = Generated(space, TileGenerator(space, 4))
    network.select(Architecture({"1": "b"}))
    x = torch.ones(1, 2)
    assert torch.equal(network(x), torch.tanh(space.model[0](x)))
