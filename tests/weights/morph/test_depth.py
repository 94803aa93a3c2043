from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph import add_branch, assert_same_function, deepen
from assay.weights.morph.depth import neutralise, silence
from assay.zoo.blocks import residual
from tests.weights.morph import nets


@pytest.mark.parametrize("batch", [None, nets.images()], ids=["bare", "norm"])
@pytest.mark.parametrize("after", ["0", "1", "2", "3", "5", "7", "8", "9"])
def test_a_layer_more_computes_the_same(after, batch):
    model = nets.network(nets.VGG)
    if after == "5":
        with pytest.raises(UnsupportedLayer, match=r"PReLU\(PReLU\(v\)\) is not PReLU\(v\).*add_b"):
            deepen(model, after, batch=batch)
        return
    deep = deepen(model, after, batch=batch)
    assert_same_function(model, deep, nets.images(), tolerance=1e-9)
    parts = list(deep.get_submodule(after))
    assert len(parts) == 2 + (batch is not None) + (after in "29")
    assert isinstance(parts[1], nn.Conv2d if after < "7" else nn.Linear)
    if after in "29":
        assert type(parts[-1]) is type(parts[0])


def test_the_new_norm_has_the_statistics_of_what_it_reads():
    model = nets.network(nets.VGG)
    x = nets.images()
    deep = deepen(model, "2", batch=x, kernel=5)
    seen = nn.Sequential(*list(model)[:3])(x)
    norm = deep[2][2]
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-12)
    assert torch.allclose(norm.running_var, seen.var((0, 2, 3), correction=0), atol=1e-12)
    assert torch.allclose(norm.weight**2, norm.running_var + norm.eps)
    assert deep[2][1].kernel_size == (5, 5)


@pytest.mark.parametrize("after", ["0", "5", "7", "9"])
def test_a_branch_begins_as_zero_behind_anything(after):
    model = nets.network(nets.VGG)
    model[10].p = 0.0
    more = add_branch(model, after, rng=np.random.default_rng(0), width=16)
    assert_same_function(model, more, nets.images(), tolerance=0.0)
    assert sum(p.numel() for p in more.parameters()) > sum(p.numel() for p in model.parameters())
    loss = more(nets.images()).square().sum()
    loss.backward()
    last = more.get_submodule(after).branch[2]
    assert last.weight.grad.abs().sum() > 0  # it can leave zero


def test_noise_is_drawn_from_the_generator_given():
    model = nets.network(nets.VGG)
    one, two = (deepen(model, "2", noise=0.1, rng=np.random.default_rng(0)) for _ in range(2))
    assert torch.equal(one[2][1].weight, two[2][1].weight)
    assert not torch.equal(one[2][1].weight, deepen(model, "2")[2][1].weight)
    with pytest.raises(InvalidSetting, match=r"noise=0\.1 is drawn: give rng"):
        deepen(model, "2", noise=0.1)


def test_a_single_weight_has_no_deviation():
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU())
    deep = deepen(model, "1", noise=0.1, rng=np.random.default_rng(0))
    assert deep[1][1].weight.tolist() == [[1.0]]


class InTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.aux = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(x) + self.aux(x) if self.training else self.head(x)


def test_what_cannot_be():
    model = nets.network(nets.VGG)
    with pytest.raises(InvalidSetting, match="no layer '99' is called"):
        deepen(model, "99")
    for kernel in (4, -1):
        with pytest.raises(InvalidSetting, match=f"kernel={kernel} has no centre"):
            deepen(model, "2", kernel=kernel)
    for noise in (-0.1, float("nan")):
        with pytest.raises(InvalidSetting, match=f"noise={noise} is a deviation"):
            deepen(model, "2", noise=noise, rng=np.random.default_rng(0))
    with pytest.raises(InvalidSetting, match="width=0 must be at least 1"):
        add_branch(model, "2", rng=np.random.default_rng(0), width=0)
    with pytest.raises(UnsupportedLayer, match="'6' cannot be followed"):
        deepen(model, "6")
    words = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UnsupportedLayer, match=r"no batch norm fits \[3, 5, 4\]"):
        deepen(words, "1", batch=torch.zeros(3, 5, 2))
    with pytest.raises(UnsupportedLayer, match="'aux' is not called in eval mode"):
        deepen(InTraining(), "aux", batch=torch.zeros(3, 2))
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Linear(2, 2), shared, nn.Linear(2, 2), shared)
    with pytest.raises(UnsupportedLayer, match="'1' is called 2 times"):
        add_branch(twice, "1", rng=np.random.default_rng(0))


class Post(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nets.conv_norm(2, 2)

    def forward(self, x):
        return torch.relu(self.body(x) + x)


class Told(nn.Module):
    """Does what its caller says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(2, 2, 1)

    def forward(self, x, residual):
        return x + self.body(x) if residual else self.body(x)


def test_only_residual_blocks_are_silenced():
    x = nets.images()
    plain = residual(nets.conv_norm(2, 2)).double().eval()
    assert silence(plain)
    assert torch.equal(plain(x), x)
    post = Post().double().eval()
    assert silence(post)
    assert torch.equal(post(x.relu()), x.relu())
    for other in (
        nets.conv_norm(2, 2),
        nn.Sequential(residual(nets.conv_norm(2, 2)), nn.Conv2d(2, 2, 1)),
        residual(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())),
        residual(nn.BatchNorm2d(2, affine=False)),
        nn.Identity(),
        nn.TransformerEncoderLayer(4, 2, 4),
        Told(),
    ):
        before = {k: v.clone() for k, v in other.state_dict().items()}
        assert not silence(other)
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def separable(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=4, dilation=2, groups=width, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU6(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (nets.conv_norm(2, 2), (8, 2, 6, 6)),
        (separable(4), (8, 4, 6, 6)),
        (nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()), (8, 5)),
        (nn.Conv1d(4, 4, 3, padding="same", groups=2), (8, 4, 7)),
        (nn.Linear(5, 5, bias=False), (8, 5)),
    ],
)
def test_a_plain_block_becomes_the_identity_behind_an_activation(block, shape):
    block = block.double()
    x = torch.rand(shape, dtype=torch.float64)
    assert neutralise(block, x)
    block.eval()
    assert float((block(x) - x).detach().abs().max()) <= 1e-12
    block.train()  # of the very batch that norms were set on
    for layer in block.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    assert float((block(x) - x).detach().abs().max()) <= 1e-12


@pytest.mark.parametrize(
    "block",
    [
        residual(nets.conv_norm(2, 2)),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()),
        nn.Conv2d(2, 2, 3, padding=1, stride=2),
        nn.Conv2d(2, 2, 2, padding="same"),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.PReLU()),
        nn.BatchNorm2d(2, affine=False),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.AvgPool2d(3, 1, 1),
    ],
)
def test_what_cannot_be_the_identity_is_left_as_it_is(block):
    before = {k: v.clone() for k, v in block.state_dict().items()}
    assert not neutralise(block, nets.images().float())
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


@pytest.mark.parametrize("inplace", [False, True])
def test_a_norm_is_set_from_what_it_reads_whatever_writes_into_that_later(inplace):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 2, 1)).double()
    images = torch.randn(
        8, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    norm = deepen(model, "0", batch=images)[0][2]
    assert torch.allclose(norm.running_mean, model[0](images).mean((0, 2, 3)), atol=1e-12)


class Twice(nn.Module):
    """A layer that has two names, and is called by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 4, 1), nn.ReLU()
        self.body = nn.Sequential(self.conv, self.act)

    def forward(self, x):
        return self.body(x)


def test_a_layer_with_two_names_gets_deeper_under_both():
    model, x = Twice(), torch.rand(3, 2, 4, 4)
    deep = deepen(model, "act")
    assert deep.body[1] is deep.act
    nn.init.zeros_(deep.act[1].weight)
    assert not torch.equal(deep(x), model(x))
    more = add_branch(model, "conv", rng=np.random.default_rng(0))
    assert more.body[0] is more.conv
    nn.init.ones_(more.conv.branch[2].bias)
    assert not torch.equal(more(x), model(x))


def test_each_module_keeps_its_mode():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model.train()[1].eval()
    for made in (deepen(model, "2"), add_branch(model, "3", rng=np.random.default_rng(0))):
        assert made.training
        assert not made[1].training
    model.eval()
    assert not any(m.training for m in deepen(model, "2", batch=torch.rand(4, 2, 3, 3)).modules())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_layer_whose_weight_a_hook_makes_is_no_identity():
    assert not neutralise(nn.utils.weight_norm(nn.Conv2d(4, 4, 1)), torch.rand(2, 4, 3, 3))
    block = residual(nn.Sequential(nn.ReLU(), nn.utils.weight_norm(nn.Conv2d(4, 4, 1))))
    assert not silence(block)
