from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.weights.optimizer import PathOptimizer
from tests.space.spaces import Chain, Tangle

RECIPES = [
    Recipe(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
    Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1),
]


def step(space: Space, optimizer: PathOptimizer, path: Architecture, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    space.select(path)
    optimizer.activate(space.shadowed, space.values)
    space.model(x).square().mean().backward()
    optimizer.step(0.1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_step_does_not_run_keeps_its_bits(recipe: Recipe) -> None:
    torch.manual_seed(0)
    space = Space(Chain)
    optimizer = PathOptimizer(space.model, recipe)
    narrow = space.check({**{f"body.{i}": "conv3" for i in range(6)}, "neck.0": 32})
    wide = space.check({**{f"body.{i}": "sep3" for i in range(6)}, "neck.0": 64})
    x = torch.randn(8, 1, 6, 6)
    step(space, optimizer, wide, x)  # so that there is momentum everywhere
    before = {n: p.detach().clone() for n, p in space.model.named_parameters()}
    step(space, optimizer, narrow, x)
    after = dict(space.model.named_parameters())
    for name, parameter in before.items():
        if ".conv5." in name or ".sep3." in name:
            assert torch.equal(after[name], parameter), name
        elif ".conv3." in name and name.endswith("0.weight"):
            assert not torch.equal(after[name], parameter), name
    assert torch.equal(after["neck.0.weight"][32:], before["neck.0.weight"][32:])
    assert torch.equal(after["head.weight"][:, 32:], before["head.weight"][:, 32:])
    assert not torch.equal(after["head.weight"][:, :32], before["head.weight"][:, :32])
    assert not torch.equal(after["neck.0.weight"][:32], before["neck.0.weight"][:32])


@pytest.mark.parametrize("recipe", RECIPES)
def test_at_the_largest_path_it_is_torchs_optimizer(recipe: Recipe) -> None:
    torch.manual_seed(0)
    space = Space(Tangle)
    space.model.double()
    largest = space.largest()
    twin = space.build(largest)
    decayed = [p for p in twin.parameters() if p.ndim > 1]
    plain = [p for p in twin.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    theirs: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    else:
        theirs = torch.optim.AdamW(groups, lr=0.1)
    ours = PathOptimizer(space.model, recipe)
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    for _ in range(4):
        step(space, ours, largest, x)
        theirs.zero_grad()
        twin(x).square().mean().backward()
        theirs.step()
    built = space.build(largest)
    for one, other in zip(built.parameters(), twin.parameters(), strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-12


def test_paths_of_one_step_are_updated_as_one_box() -> None:
    space = Space(Chain)
    optimizer = PathOptimizer(space.model, Recipe(weight_decay=0.0))
    x = torch.randn(4, 1, 6, 6)
    before = dict(space.model.named_parameters())["head.weight"].detach().clone()
    optimizer.zero_grad()
    for width in (32, 48):
        space.select(space.check({**{f"body.{i}": "skip" for i in range(6)}, "neck.0": width}))
        optimizer.activate(space.shadowed, space.values)
        space.model(x).square().mean().backward()
    optimizer.step(0.1)
    after = dict(space.model.named_parameters())["head.weight"]
    assert torch.equal(after[:, 48:], before[:, 48:])
    assert not torch.equal(after[:, 32:48], before[:, 32:48])


def test_its_state_goes_on_elsewhere() -> None:
    torch.manual_seed(0)
    first, second = Space(Chain), Space(Chain)
    second.model.load_state_dict(first.model.state_dict())
    x = torch.randn(4, 1, 6, 6)
    a = PathOptimizer(first.model, RECIPES[0])
    step(first, a, first.smallest(), x)
    b = PathOptimizer(second.model, RECIPES[0])
    second.model.load_state_dict(first.model.state_dict())
    b.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for space, optimizer in ((first, a), (second, b)):
        step(space, optimizer, space.largest(), x)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_mix_of_tensors_receives_gradients_beside_the_weights() -> None:
    space = Space(nn.Sequential(Chain().body[0], nn.Flatten()))
    weight = torch.tensor([0.5, 0.5], requires_grad=True)
    space.select({"0": {"conv3": weight[0], "skip": weight[1]}})
    space.model(torch.randn(2, 16, 4, 4)).square().mean().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().min()) > 0
