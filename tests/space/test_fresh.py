"""What a model that was given as an instance comes back to."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.cost import derive
from assay.errors import InvalidSpace
from assay.space.choices import OneOf
from assay.space.fresh import reset
from assay.space.sizes import Width
from assay.space.space import Space
from tests.space.spaces import Tangle


class Scaled(nn.Module):
    """Has a parameter that no `reset_parameters` draws."""

    def __init__(self) -> None:
        super().__init__()
        self.op = OneOf(a=nn.Linear(3, 3), b=nn.Identity())
        self.norm = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.norm(self.op(x))


def train(model: nn.Module) -> None:
    """Change all that a training changes."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)


def test_an_instance_is_reset_to_what_was_given() -> None:
    space = Space(Scaled())
    given = {k: v.clone() for k, v in space.model.state_dict().items()}
    for seed in (0, 1):
        reset(space, seed)
        assert all(torch.equal(v, given[k]) for k, v in space.model.state_dict().items())
        train(space.model)


def test_a_network_of_an_instance_begins_as_given_and_not_as_trained() -> None:
    space = Space(Scaled())
    point = space.check({"op": "a"})
    before = space.fresh(point, 0).state_dict()
    train(space.model)
    after = space.fresh(point, 0).state_dict()
    assert after["scale"].tolist() == [2.0] * 3
    assert all(torch.equal(v, before[k]) for k, v in after.items())
    assert space.model.scale.tolist() == [3.0] * 3


class Backbone(nn.Module):
    """Frozen all through, as if read from a file; resets what it is made of, as users' parts do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.plain = nn.BatchNorm1d(3, affine=False)
        train(self)
        self.requires_grad_(False)

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.norm(self.conv(x)))


def test_what_is_frozen_in_an_instance_keeps_its_weights_and_statistics() -> None:
    tuned = nn.Linear(3, 3)
    tuned.weight.requires_grad_(False)  # only its bias is trained
    net = nn.Sequential(Backbone(), tuned, Scaled())
    given = {k: v.clone() for k, v in net.state_dict().items()}
    space = Space(net)
    train(space.model[2])
    built = space.fresh(space.check({"2.op": "a"}), 0)
    state, frozen = built.state_dict(), ("0.", "1.weight")
    assert all(torch.equal(v, given[k]) for k, v in state.items() if k.startswith(frozen))
    drawn = [k for k, v in state.items() if k in given and not torch.equal(v, given[k])]
    assert "1.bias" in drawn
    assert {n for n, p in built.named_parameters() if not p.requires_grad} == {
        "0.conv.weight", "0.conv.bias", "0.norm.weight", "0.norm.bias", "1.weight",
    }  # fmt: skip


def test_the_path_selected_goes_on_with_its_own_weights() -> None:
    space, rng = Space(Tangle()), derive(0, "fresh")
    space.model.eval()
    reset(space, 0)
    train(space.model)
    x = torch.ones(1, *Tangle.shape)
    for _ in range(4):
        point = space.sample(rng)
        space.select(point)
        out = space.model(x)
        space.fresh(point, 0)
        assert torch.equal(space.model(x), out)


def test_a_factory_may_draw_by_any_generator() -> None:
    def drawn() -> nn.Module:
        numbers = [float(torch.rand(())), float(np.random.rand()), random.random()]
        model = nn.Sequential(OneOf(a=nn.Linear(3, 3), b=nn.Identity()), nn.Linear(1, 3))
        model[1].bias = nn.Parameter(torch.tensor(numbers))
        return model

    space = Space(drawn)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    one, same, other = (space.fresh({"0": "b"}, seed)[1].bias for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not bool((one == other).any())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


class Headed(nn.Module):
    """A backbone that exists already, and a choice."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = OneOf(a=nn.Linear(3, 3), b=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def test_a_factory_that_returns_what_was_there_before_is_refused() -> None:
    backbone = nn.Linear(3, 3)
    space = Space(lambda: Headed(backbone))
    for made_anew in (lambda: space.fresh(space.check({"head": "a"}), 0), lambda: reset(space, 0)):
        with pytest.raises(
            InvalidSpace, match=r"backbone\.weight: .* give copy\.deepcopy\(\.\.\.\)"
        ):
            made_anew()
    copied = Space(lambda: Headed(copy.deepcopy(backbone)))
    built = copied.fresh(copied.check({"head": "a"}), 0)
    assert torch.equal(built.backbone.weight, backbone.weight)
    assert built.backbone.weight is not backbone.weight


def test_what_is_frozen_may_be_shared() -> None:
    backbone = nn.Linear(3, 3).requires_grad_(False)
    space = Space(lambda: Headed(backbone))
    reset(space, 0)
    built = space.fresh(space.check({"head": "a"}), 0)
    assert torch.equal(built.backbone.weight, backbone.weight)


def test_a_frozen_layer_that_shrank_keeps_its_part_of_the_weights() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = Width(2, 4)
            self.first, self.last = nn.Linear(3, width), nn.Linear(width, 1)
            nn.init.ones_(self.first.weight)
            self.first.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    space = Space(Narrow)
    built = space.fresh(space.smallest(torch.zeros(1, 3)), 0)
    assert built.first.weight.tolist() == [[1.0] * 3] * 2


def test_an_instance_stays_as_it_is_and_each_space_of_it_begins_with_its_weights():
    torch.manual_seed(0)
    net = nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Identity()), nn.Linear(2, 2))
    before = copy.deepcopy(net.state_dict())
    first = Space(net)
    with torch.no_grad():  # as a search would train it
        for parameter in first.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    second = Space(net)
    assert all(torch.equal(second.model.state_dict()[k], v) for k, v in before.items())
