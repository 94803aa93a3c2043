"""What a model that was given as an instance comes back to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.cost import derive
from assay.space.choices import OneOf
from assay.space.fresh import reset
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
